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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.channel import Channel, ChannelClosed, connect
from dexgrasp_sim.transport.layout import RESULT_NAMES, RunLayout, rollout_schema_hash
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError, require
from dexgrasp_sim.transport.shared_memory import (
    Segment,
    remove_if_dead,
    run_folder,
    socket_path,
)
from dexgrasp_sim.transport.telemetry import WorkerState, WorkerTelemetry
from dexgrasp_sim.vec_env import VecEnv, make_env

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""What numerical libraries read, when they are imported, to size their thread pools."""

_POLL_S = 1.0
_LOCK_RELEASE_S = 2.0


class EnvSlice:
    """The environments of one worker, bound to their rows of the rollout tensors."""

    def __init__(
        self,
        env: VecEnv,
        layout: RunLayout,
        tensors: Mapping[str, Tensor],
        telemetry: WorkerTelemetry,
        index: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepares the views of every slot.

        Args:
            env: As many environments as the worker's slice holds.
            layout: Of the run.
            tensors: The rollout tensors by name, see `RunLayout.rollout_blocks`.
            telemetry: The worker's telemetry row.
            index: Worker index.
            clock: Seconds, for the time spent stepping.

        Raises:
            ProtocolError: The environments take or give something else than the layout says.
        """
        self.schema_hash = rollout_schema_hash(env.observation_specs, env.action_dim)
        if self.schema_hash != layout.schema_hash:
            raise ProtocolError(
                f"worker {index}: its environments have schema {self.schema_hash}, the run has "
                f"{layout.schema_hash}; install the same version of dexgrasp on both sides"
            )
        self.env = env
        self.telemetry = telemetry
        self._start, self._stop = layout.slices[index]
        rows = slice(self._start, self._stop)
        names = [spec.name for spec in layout.observation_specs] + [*RESULT_NAMES]
        slots = range(layout.horizon + 1)
        self._out = [{name: tensors[name][slot, rows] for name in names} for slot in slots]
        self._actions = [tensors["actions"][slot, rows] for slot in range(layout.horizon)]
        self._sequence = tensors["sequence"][:, index].numpy()
        self._metadata = state_metadata(layout, index)
        self._clock = clock
        self._slot = 0
        self._steps = 0
        self._episodes = 0
        self._step_s = 0.0
        self._rendered_s = 0.0

    def reset(self) -> None:
        """Starts episodes everywhere and fills slot 0, whose end-of-episode flags become True."""
        self._slot = self._steps = self._episodes = 0
        self.env.set_difficulty(self.telemetry.difficulty)
        self.env.reset(self._out[0])
        for name in ("terminated", "truncated"):
            self._out[0][name].fill_(True)
        self._sequence[0] = 0
        self._rendered_s = self.env.timings()["render"]
        self.telemetry.count(steps=0, episodes=0, slot=0)
        self.show()

    def step(self, slot: int, policy_version: int) -> None:
        """Applies `actions[slot]` and fills slot + 1, its sequence number last."""
        self.telemetry.count(state=WorkerState.STEPPING, policy_version=policy_version)
        self.env.set_difficulty(self.telemetry.difficulty)
        begin_s = self._clock()
        self.env.step(self._actions[slot], self._out[slot + 1])
        self._step_s = self._clock() - begin_s
        self._slot = slot + 1
        self._steps += 1
        self.telemetry.count(steps=self._steps, slot=self._slot)
        self._sequence[slot + 1] = self._steps

    def report(self) -> None:
        """Tells what the last step took; a worker does so while the learner is already at work."""
        out = self._out[self._slot]
        self._episodes += int((out["terminated"] | out["truncated"]).sum())
        rendered_s = self.env.timings()["render"]
        rendering_s = rendered_s - self._rendered_s
        self._rendered_s = rendered_s
        self.telemetry.count(state=WorkerState.WAITING, episodes=self._episodes)
        self.telemetry.spend(simulating=self._step_s - rendering_s, rendering=rendering_s)
        self.show()

    def show(self) -> None:
        """Writes the view of the watched environment if it is one of these and a view is due."""
        wanted = self.telemetry.wanted_env(self._start, self._stop)
        if wanted is not None:
            self.telemetry.show(wanted, self.env.telemetry(wanted - self._start))

    def save(self, path: Path) -> None:
        """Writes everything that is needed to continue from the slot written last."""
        tensors = {f"env.{name}": tensor for name, tensor in self.env.state_dict().items()}
        tensors |= {f"result.{name}": self._out[self._slot][name] for name in RESULT_NAMES}
        # clones: safetensors refuses tensors that share memory, such as views of one segment
        tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        part = path.with_suffix(".part")
        save_file(tensors, part, metadata=self._metadata)
        part.replace(path)

    def load(self, path: Path) -> None:
        """Continues from what `save` wrote: rewrites observations and results in slot 0."""
        tensors = load_file(path)
        state = {n.removeprefix("env."): t for n, t in tensors.items() if n.startswith("env.")}
        self._slot = 0
        self.env.load_state_dict(state, self._out[0])
        for name in RESULT_NAMES:
            self._out[0][name].copy_(tensors[f"result.{name}"])
        self._sequence[0] = self._steps

    def close(self) -> None:
        """Closes the environments; idempotent."""
        self.telemetry.count(state=WorkerState.STOPPED)
        self.env.close()


def state_path(folder: Path, index: int) -> Path:
    """The file of worker `index` inside a folder of saved states."""
    return folder / f"worker_{index}.safetensors"


def state_metadata(layout: RunLayout, index: int) -> dict[str, str]:
    """What a saved state must have in common with the run that loads it."""
    start, stop = layout.slices[index]
    return {"schema_hash": layout.schema_hash, "envs": f"{start}..{stop}"}


def check_state_file(path: Path, layout: RunLayout, index: int) -> None:
    """Makes sure that worker `index` can load a saved state.

    Raises:
        ConfigError: The file is missing, or is of other environments or another schema.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing; give a folder that `save_state` has written")
    with safe_open(path, framework="pt") as file:
        found = file.metadata()
    wanted = state_metadata(layout, index)
    if found != wanted:
        raise ConfigError(
            f"{path} is of {found} and worker {index} of this run has {wanted}; continue with "
            "the environments, workers and observations that the state was saved with"
        )


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
    orders = require(_next_message(channel), MessageType.WELCOME).payload or {}
    channel.spin_us = orders["spin_us"]
    _limit_threads(orders["threads"])
    start, stop = segment.layout.slices[index]
    env = make_env(
        kind=orders["kind"],
        config=orders["config"],
        num_envs=stop - start,
        seed=orders["seed"],
        threads=orders["threads"],
        groups=orders["groups"],
        env_offset=start,
    )
    env_slice = EnvSlice(env, segment.layout, segment.tensors, telemetry, index)
    ready = Message(MessageType.READY, payload={"schema_hash": env_slice.schema_hash})
    channel.send(ready)
    return env_slice


def _limit_threads(threads: int) -> None:
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    torch.set_num_threads(threads)


def _obey(channel: Channel, env_slice: EnvSlice) -> None:
    """Carries out one message after the other until STOP."""
    env_slice.telemetry.count(state=WorkerState.WAITING)
    while True:
        begin_s = time.perf_counter()
        message = _next_message(channel)
        env_slice.telemetry.spend(waiting=time.perf_counter() - begin_s)
        if message.type == MessageType.STOP:
            return
        if message.type == MessageType.STEP:
            env_slice.step(message.slot, message.policy_version)
        elif message.type == MessageType.START:
            env_slice.reset()
        elif message.type == MessageType.SAVE:
            env_slice.save(Path((message.payload or {})["path"]))
        elif message.type == MessageType.LOAD:
            env_slice.load(Path((message.payload or {})["path"]))
        else:
            raise ProtocolError(f"the learner sent {message.type.name}, which is no order")
        done = Message(MessageType.DONE, message.slot, message.sequence, message.policy_version)
        channel.send(done)
        if message.type == MessageType.STEP:
            env_slice.report()


def _next_message(channel: Channel) -> Message:
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


if __name__ == "__main__":
    sys.exit(main())
