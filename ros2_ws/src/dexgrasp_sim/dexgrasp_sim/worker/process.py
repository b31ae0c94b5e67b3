"""The simulator worker: builds the environments that a learner orders and steps them.

It ends when the learner sends STOP or is gone, or with a traceback when its environments fail.
"""

import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.environments import make_env
from dexgrasp_sim.transport.carrier import make_carrier
from dexgrasp_sim.transport.channel import Channel, ChannelClosed
from dexgrasp_sim.transport.protocol import (
    Message,
    MessageType,
    ProtocolError,
    require,
    text_message,
)
from dexgrasp_sim.transport.telemetry import WorkerState, WorkerTelemetry
from dexgrasp_sim.transport.worker_link import WorkerLink
from dexgrasp_sim.vec_env import VecEnv
from dexgrasp_sim.worker.env_slice import EnvSlice

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""Environment variables from which numerical libraries read the size of their thread pools."""

_POLL_S = 1.0
_LAST_WORD_S = 1.0
"""Time to read what the learner has said before it closed the connection."""


def serve(link: WorkerLink) -> None:
    """Carries out the orders of a learner until STOP.

    Args:
        link: Connected to the learner.

    Raises:
        ConfigError: The environments' config is wrong.
        ChannelClosed: The learner is gone.
        ProtocolError: The learner has another version, or the schemas differ.
    """
    is_over = threading.Event()
    watch = threading.Thread(target=exit_with_learner, args=(link, is_over), daemon=True)
    watch.start()
    channel = link.channel
    try:
        channel.send(Message(MessageType.HELLO, payload=_introduction(link)))
        env_slice = _build(link)
        try:
            _obey(link, env_slice)
        finally:
            env_slice.close()
    except ChannelClosed:
        raise
    except Exception as error:
        is_explained = isinstance(error, (ConfigError, ProtocolError))
        with suppress(ChannelClosed):
            text = str(error) if is_explained else traceback.format_exc()
            channel.send(text_message(MessageType.ERROR, text))
        raise
    finally:
        is_over.set()
        channel.close()


def _introduction(link: WorkerLink) -> dict[str, Any]:
    return {
        "index": link.index,
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        **link.introduction(),
    }


def _build(link: WorkerLink) -> EnvSlice:
    """Builds the environments of the learner's WELCOME and sends READY with their schema."""
    orders = require(next_message(link.channel), MessageType.WELCOME).payload or {}
    link.channel.spin_us = orders["spin_us"]
    link.open(orders)
    telemetry = WorkerTelemetry(link.telemetry, link.index)
    telemetry.count(pid=os.getpid(), state=WorkerState.BUILDING)
    start, stop = link.layout.slices[link.index]
    env_slice = EnvSlice(
        make_ordered_env(orders, start, stop),
        link.layout,
        link.tensors,
        telemetry,
        link.index,
        carrier=lambda slots: make_carrier(slots, {**orders, "rows": (start, stop)}),
    )
    ready = Message(MessageType.READY, payload={"schema_hash": env_slice.schema_hash})
    link.channel.send(ready)
    return env_slice


def make_ordered_env(orders: Mapping[str, Any], start: int, stop: int) -> VecEnv:
    """Builds the environments [start, stop) of a run and sets the number of threads.

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
        device=orders.get("device", "cpu"),
    )


def _obey(link: WorkerLink, env_slice: EnvSlice) -> None:
    """Carries out orders until STOP."""
    env_slice.telemetry.count(state=WorkerState.WAITING)
    while True:
        begin_s = time.perf_counter()
        message = next_message(link.channel)
        env_slice.telemetry.spend(waiting=time.perf_counter() - begin_s)
        if message.type == MessageType.STOP:
            return
        order = link.accept(message)
        if order.type == MessageType.STEP:
            env_slice.step(order.slot, order.policy_version)
            link.answer(message, order.slot + 1)
            env_slice.report()
            continue
        try:
            _carry_out(order, env_slice)
        except (OSError, ConfigError) as error:
            if order.type not in (MessageType.SAVE, MessageType.LOAD):
                raise
            link.channel.send(text_message(MessageType.REFUSED, str(error)))
            continue
        link.answer(message, slot=0)


def _carry_out(order: Message, env_slice: EnvSlice) -> None:
    """Carries out START, SAVE and LOAD."""
    payload = order.payload or {}
    if order.type == MessageType.SAVE:
        env_slice.save(Path(payload["path"]))
    elif order.type == MessageType.LOAD:
        env_slice.load(Path(payload["path"]))
    elif order.type == MessageType.START and payload:
        env_slice.take_over(payload["slot"], payload["sequence"])
    elif order.type == MessageType.START:
        env_slice.reset()
    else:
        raise ProtocolError(f"the learner sent {order.type.name}, which is no order")


def next_message(channel: Channel) -> Message:
    """The next message; waits without limit, because the learner may be training or paused."""
    while True:
        with suppress(TimeoutError):
            return channel.receive(_POLL_S)


def exit_with_learner(link: WorkerLink, is_over: threading.Event) -> None:
    """Ends the process when the learner's end of the channel closes, whatever it is doing.

    It returns when `is_over` is set, before the worker itself closes the channel.
    """
    poller = select.poll()
    poller.register(link.channel.fileno(), select.POLLRDHUP)
    while not is_over.is_set() and not poller.poll(_POLL_S * 1e3):
        pass
    if link.channel.has_unread():
        is_over.wait(_LAST_WORD_S)
    if is_over.is_set():
        return
    link.leave()
    os._exit(1)
