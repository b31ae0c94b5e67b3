"""The simulator worker: a process that attaches to a run by its id and steps its environments.

The learner starts it as `python -m dexgrasp_sim.worker --run-id ID --index K`, perhaps with
another interpreter; a person can do the same by hand. It ends when the learner says so, when the
learner is gone, or with a traceback when its environments fail.
"""

import argparse
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.environments import make_env
from dexgrasp_sim.transport.carrier import make_carrier
from dexgrasp_sim.transport.channel import Channel, ChannelClosed, connect
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError, require
from dexgrasp_sim.transport.shared_memory import (
    Segment,
    remove_if_dead,
    run_folder,
    socket_path,
)
from dexgrasp_sim.transport.telemetry import WorkerState, WorkerTelemetry
from dexgrasp_sim.vec_env import VecEnv
from dexgrasp_sim.worker.env_slice import EnvSlice

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""What numerical libraries read, when they are imported, to size their thread pools."""

_POLL_S = 1.0
_LOCK_RELEASE_S = 2.0


def serve(run_id: str, index: int) -> None:
    """Attaches to a run and does what its learner says until it says stop.

    Raises:
        ConfigError: There is no such run, or the environments' config is wrong.
        ChannelClosed: The learner is gone.
        ProtocolError: The learner speaks another version, or the schemas differ.
    """
    segment = Segment.attach(run_id)
    workers = segment.layout.num_workers
    if not 0 <= index < workers:
        raise ConfigError(f"--index {index}: run {run_id!r} has workers 0 to {workers - 1}")
    channel = connect(socket_path(run_id, index))
    watch = threading.Thread(target=_exit_with_learner, args=(channel, run_id), daemon=True)
    watch.start()
    try:
        channel.send(Message(MessageType.HELLO, payload=_introduction(segment, index)))
        env_slice = _build(channel, segment, index)
        try:
            _obey(channel, env_slice)
        finally:
            env_slice.close()
    except ChannelClosed:
        raise
    except Exception:
        with suppress(ChannelClosed):
            text = traceback.format_exc()
            channel.send(Message(MessageType.ERROR, payload={"text": text}))
        raise


def _introduction(segment: Segment, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "schema_hash": segment.layout.schema_hash,
    }


def _build(channel: Channel, segment: Segment, index: int) -> EnvSlice:
    """Builds the environments that the learner's WELCOME names and reports their schema."""
    telemetry = WorkerTelemetry(segment.telemetry, index)
    telemetry.count(pid=os.getpid(), state=WorkerState.BUILDING)
    orders = require(next_message(channel), MessageType.WELCOME).payload or {}
    channel.spin_us = orders["spin_us"]
    start, stop = segment.layout.slices[index]
    env_slice = EnvSlice(
        make_ordered_env(orders, start, stop),
        segment.layout,
        segment.tensors,
        telemetry,
        index,
        carrier=lambda slots: make_carrier(slots, {**orders, "rows": (start, stop)}),
    )
    ready = Message(MessageType.READY, payload={"schema_hash": env_slice.schema_hash})
    channel.send(ready)
    return env_slice


def make_ordered_env(orders: Mapping[str, Any], start: int, stop: int) -> VecEnv:
    """The environments [start, stop) of a run, and as many threads as they may have.

    Args:
        orders: The payload of the learner's WELCOME.
        start: First environment of the worker.
        stop: The one after its last.

    Raises:
        ConfigError: The environments' config is wrong.
    """
    threads = orders["threads"]
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    torch.set_num_threads(threads)
    return make_env(
        kind=orders["kind"],
        config=orders["config"],
        num_envs=stop - start,
        seed=orders["seed"],
        threads=threads,
        groups=orders["groups"],
        env_offset=orders["env_offset"] + start,
    )


def _obey(channel: Channel, env_slice: EnvSlice) -> None:
    """Carries out one message after the other until STOP."""
    env_slice.telemetry.count(state=WorkerState.WAITING)
    while True:
        begin_s = time.perf_counter()
        message = next_message(channel)
        env_slice.telemetry.spend(waiting=time.perf_counter() - begin_s)
        if message.type == MessageType.STOP:
            return
        if message.type == MessageType.STEP:
            env_slice.step(message.slot, message.policy_version)
        elif message.type == MessageType.SAVE:
            try:
                env_slice.save(Path((message.payload or {})["path"]))
            except OSError as error:
                channel.send(Message(MessageType.REFUSED, payload={"text": str(error)}))
                continue
        else:
            _carry_out(message, env_slice)
        done = Message(MessageType.DONE, message.slot, message.sequence, message.policy_version)
        channel.send(done)
        if message.type == MessageType.STEP:
            env_slice.report()


def _carry_out(message: Message, env_slice: EnvSlice) -> None:
    """Orders that come once in a run."""
    payload = message.payload or {}
    if message.type == MessageType.LOAD:
        env_slice.load(Path(payload["path"]))
    elif message.type == MessageType.START and payload:
        env_slice.take_over(payload["slot"], payload["sequence"])
    elif message.type == MessageType.START:
        env_slice.reset()
    else:
        raise ProtocolError(f"the learner sent {message.type.name}, which is no order")


def next_message(channel: Channel) -> Message:
    """Waits for as long as the learner lives: it may be updating its weights, or be paused."""
    while True:
        with suppress(TimeoutError):
            return channel.receive(_POLL_S)


def _exit_with_learner(channel: Channel, run_id: str) -> None:
    """Ends the process when the learner's end of the channel closes, whatever it is doing."""
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLRDHUP)
    while not poller.poll(_POLL_S * 1e3):
        pass
    _leave_dead_run(run_id)
    os._exit(1)


def _leave_dead_run(run_id: str) -> None:
    """Removes the run if its learner is dead; the lock goes a moment after the socket does."""
    print(f"dexgrasp worker: the learner of run {run_id} is gone", file=sys.stderr, flush=True)
    for _ in range(20):
        if remove_if_dead(run_id) or not run_folder(run_id).exists():
            return
        time.sleep(_LOCK_RELEASE_S / 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the worker; returns the exit code."""
    parser = argparse.ArgumentParser(prog="dexgrasp_sim.worker", description=__doc__)
    parser.add_argument("--run-id", required=True, help="id of the learner's run")
    parser.add_argument("--index", required=True, type=int, help="worker index, from 0")
    options = parser.parse_args(arguments)
    try:
        serve(options.run_id, options.index)
    except ConfigError as error:
        print(f"dexgrasp worker: {error}", file=sys.stderr)
        return 2
    except ChannelClosed as error:
        print(f"dexgrasp worker: {error}", file=sys.stderr)
        _leave_dead_run(options.run_id)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
