"""Environments as the learner sees them: one batch, however many processes step it."""

import atexit
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_learner.worker_group import ALL, WorkerGroup, WorkerTimeout
from dexgrasp_learner.worker_process import WorkerDied
from dexgrasp_sim.config import STRICT, ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.transport.layout import Block, RunLayout, split_envs
from dexgrasp_sim.transport.protocol import Message, MessageType
from dexgrasp_sim.transport.shared_memory import Segment, run_folder
from dexgrasp_sim.transport.telemetry import WorkerTelemetry, read_statuses
from dexgrasp_sim.vec_env import env_specs, make_env
from dexgrasp_sim.worker import EnvSlice, check_state_file, state_path

__all__ = ["EnvPool", "PoolSpec", "WorkerDied", "WorkerTimeout", "make_pool"]

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class PoolSpec:
    """Which environments to simulate, and who does it.

    Attributes:
        kind: Kind of environment, see `vec_env.make_env`.
        config: Plain values of the environment's config.
        groups: Names of the observation groups.
        horizon: Steps per rollout, T.
        num_envs: Environments of all workers together, N.
        num_workers: Workers, W; they share the environments as equally as can be.
        threads_per_worker: CPU threads of each.
        seed: Of the run; how the environments are split changes nothing about a rollout.
        transport: `shared_memory`: worker processes; `in_process`: all in this thread.
        sim_python: Interpreter of the workers; "": this one.
        log_dir: Folder of the workers' logs; None: the run's folder, which goes with the run.
        timeout_s: A worker that has not answered a step for this long counts as hung.
        start_timeout_s: The same for building and resetting the environments, and for saving.
        spin_us: Busy-wait before blocking; pays only where every process has a free core.
        run_id: Id under which workers and observers find the run; "": a new one is drawn.
        spawn: False: the workers are started by hand, within `start_timeout_s`.
    """

    kind: str
    config: dict[str, Any]
    groups: tuple[str, ...]
    horizon: Count
    num_envs: Count
    num_workers: Count = 1
    threads_per_worker: Count = 1
    seed: Annotated[int, Field(ge=0)] = 0
    transport: Literal["shared_memory", "in_process"] = "shared_memory"
    sim_python: str = ""
    log_dir: Path | None = None
    timeout_s: Seconds = 60.0
    start_timeout_s: Seconds = 300.0
    spin_us: Annotated[float, Field(ge=0)] = 0.0
    run_id: str = ""
    spawn: bool = True

    def layout(self) -> RunLayout:
        """The tensors that these environments need.

        Raises:
            ConfigError: The environments' config is wrong, or they cannot be split.
        """
        specs = env_specs(self.kind, self.config, self.groups)
        try:
            slices = split_envs(self.num_envs, self.num_workers)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return RunLayout(
            specs.observation_specs, specs.action_dim, specs.control_dt_s, self.horizon, slices
        )

    def orders(self) -> dict[str, Any]:
        """What a worker must know to build its environments, as plain JSON values."""
        values = {
            "kind": self.kind,
            "config": self.config,
            "groups": self.groups,
            "seed": self.seed,
            "threads": self.threads_per_worker,
            "spin_us": self.spin_us,
        }
        return json.loads(json.dumps(values))


class EnvPool(Protocol):
    """N environments behind W workers, and the tensors of one rollout.

    Attributes:
        tensors: Observations and results [T+1, N, ...] by name, actions [T, N, A] float32,
            sequence [T+1, W] int64. The result of actions[t] and the observation after it stand
            in slot t+1. Workers write in place: read slot t+1 only after `wait(t)`.
        slot_mismatches: Sequence numbers that were not the expected ones; 0 in a sound run.
    """

    num_envs: int
    num_workers: int
    horizon: int
    action_dim: int
    control_dt_s: float
    observation_specs: tuple[TensorSpec, ...]
    tensors: Mapping[str, Tensor]
    slot_mismatches: int

    def start(self) -> None:
        """Resets all environments and fills slot 0, whose end-of-episode flags are all True.

        Raises:
            WorkerDied: A worker has ended.
            WorkerTimeout: A worker was not ready within `start_timeout_s`.
            ProtocolError: A worker runs another version of this code.
        """
        ...

    def send(self, slot: int, policy_version: int, workers: slice = ALL) -> None:
        """Lets these workers apply `actions[slot]`; returns at once.

        Raises:
            WorkerDied: A worker has ended.
        """
        ...

    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        """Returns when these workers' slot + 1 is complete; may be called again after a time-out.

        Raises:
            WorkerDied: A worker has ended.
            WorkerTimeout: A worker has not answered; the default is the spec's `timeout_s`.
        """
        ...

    def roll_over(self) -> None:
        """Copies slot T to slot 0, where the next rollout begins."""
        ...

    def set_difficulty(self, difficulty: float) -> None:
        """Sets that of the episodes to come in all workers, 0 to 1.

        Call it before `start` or between rollouts only, so that all workers see it in the same
        step. Until then it is the `difficulty` of the environments' config.
        """
        ...

    def save_state(self, folder: Path) -> None:
        """Each worker writes `worker_<k>.safetensors`; errors as for `start`."""
        ...

    def load_state(self, folder: Path) -> None:
        """Restores what `save_state` wrote: the slot that was newest then becomes slot 0.

        Raises:
            ConfigError: A file is missing or belongs to other environments.
        """
        ...

    def timings(self) -> list[dict[str, float]]:
        """Per worker, since it was built: steps, and seconds simulating, rendering, waiting."""
        ...

    def close(self) -> None:
        """Ends all workers and frees the shared memory; idempotent."""
        ...


def make_pool(spec: PoolSpec) -> EnvPool:
    """The pool of a spec; `start` it, and `close` it in the end.

    Raises:
        ConfigError: A value of the spec or of its config is wrong, or shared memory too small.
    """
    if spec.transport == "in_process":
        return InProcessPool(spec)
    return SharedMemoryPool(spec)


class _Pool:
    """What the two pools have in common."""

    def __init__(
        self,
        spec: PoolSpec,
        layout: RunLayout,
        tensors: Mapping[str, Tensor],
        telemetry: Mapping[str, Tensor],
    ) -> None:
        self.spec = spec
        self.layout = layout
        self.num_envs = layout.num_envs
        self.num_workers = layout.num_workers
        self.horizon = layout.horizon
        self.action_dim = layout.action_dim
        self.control_dt_s = layout.control_dt_s
        self.observation_specs = layout.observation_specs
        self.tensors = tensors
        self.telemetry = telemetry
        self.slot_mismatches = 0
        self._sequence = tensors["sequence"].numpy()
        self._steps = np.zeros(layout.num_workers, dtype=np.int64)
        self.set_difficulty(spec.config.get("difficulty", 0.0))

    def set_difficulty(self, difficulty: float) -> None:
        """See `EnvPool`."""
        self.telemetry["control.difficulty"][0] = difficulty

    def roll_over(self) -> None:
        """See `EnvPool`."""
        for name, tensor in self.tensors.items():
            if name != "actions":
                tensor[0].copy_(tensor[-1])

    def timings(self) -> list[dict[str, float]]:
        """See `EnvPool`."""
        return [
            {
                "steps": float(status.steps),
                "simulating": status.simulating_s,
                "rendering": status.rendering_s,
                "waiting": status.waiting_s,
            }
            for status in read_statuses(self.telemetry)
        ]

    def _check_sequence(self, slot: int, workers: slice = ALL) -> None:
        wrong = self._sequence[slot, workers] != self._steps[workers]
        self.slot_mismatches += int(wrong.sum())

    def _check_states(self, folder: Path) -> None:
        for index in range(self.num_workers):
            check_state_file(state_path(folder, index), self.layout, index)


class InProcessPool(_Pool):
    """All environments in the caller's thread, split, seeded and written as by workers."""

    def __init__(self, spec: PoolSpec) -> None:
        """Builds the environments; errors as for `make_pool`."""
        layout = spec.layout()
        tensors = _private(layout.rollout_blocks)
        super().__init__(spec, layout, tensors, _private(layout.telemetry_blocks))
        self._slices = [self._build(index) for index in range(self.num_workers)]

    def _build(self, index: int) -> EnvSlice:
        orders = self.spec.orders()
        del orders["spin_us"]
        start, stop = self.layout.slices[index]
        env = make_env(num_envs=stop - start, env_offset=start, **orders)
        telemetry = WorkerTelemetry(self.telemetry, index)
        telemetry.count(pid=os.getpid())
        return EnvSlice(env, self.layout, self.tensors, telemetry, index)

    def start(self) -> None:
        """See `EnvPool`."""
        self._steps[:] = 0
        self._each(EnvSlice.reset)
        self._check_sequence(0)

    def send(self, slot: int, policy_version: int, workers: slice = ALL) -> None:
        """See `EnvPool`; simulates before it returns."""
        self._steps[workers] += 1
        self._each(lambda envs: envs.step(slot, policy_version), workers)
        self._each(EnvSlice.report, workers)

    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        """See `EnvPool`; never waits."""
        del timeout_s
        self._check_sequence(slot + 1, workers)

    def save_state(self, folder: Path) -> None:
        """See `EnvPool`."""
        folder.mkdir(parents=True, exist_ok=True)
        for index, envs in enumerate(self._slices):
            envs.save(state_path(folder, index))

    def load_state(self, folder: Path) -> None:
        """See `EnvPool`."""
        self._check_states(folder)
        paths = iter([state_path(folder, index) for index in range(self.num_workers)])
        self._each(lambda envs: envs.load(next(paths)))

    def close(self) -> None:
        """See `EnvPool`."""
        for envs in self._slices:
            envs.close()

    def _each(self, act: Callable[[EnvSlice], None], workers: slice = ALL) -> None:
        # a caller's inference mode would make tensors that the environments cannot change later
        with torch.inference_mode(False), torch.no_grad():
            for envs in self._slices[workers]:
                act(envs)


def _private(blocks: tuple[Block, ...]) -> dict[str, Tensor]:
    return {block.name: torch.zeros(block.shape, dtype=block.torch_dtype) for block in blocks}


class SharedMemoryPool(_Pool):
    """Worker processes that write their slices of one memory-mapped file.

    Attributes:
        run_id: Id under which workers and observers attach.
    """

    def __init__(self, spec: PoolSpec) -> None:
        """Allocates the shared memory and starts the processes; errors as for `make_pool`."""
        layout = spec.layout()
        self.run_id = spec.run_id or time.strftime("%m%d-%H%M%S-") + secrets.token_hex(3)
        self._segment = Segment.create(self.run_id, layout)
        super().__init__(spec, layout, self._segment.tensors, self._segment.telemetry)
        self._owner_pid = os.getpid()
        self._workers: WorkerGroup | None = None
        self._started = False
        atexit.register(self.close)
        try:
            log_dir = spec.log_dir or run_folder(self.run_id)
            self._workers = WorkerGroup(self.run_id, self.num_workers, log_dir, spec.spin_us)
            if spec.spawn:
                self._workers.spawn(spec.sim_python, spec.threads_per_worker)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """See `EnvPool`."""
        if not self._started:
            schema_hash, timeout_s = self.layout.schema_hash, self.spec.start_timeout_s
            self._open_workers().welcome(self.spec.orders(), schema_hash, timeout_s)
            self._started = True
        self._steps[:] = 0
        self._order(MessageType.START)
        self._check_sequence(0)

    def send(self, slot: int, policy_version: int, workers: slice = ALL) -> None:
        """See `EnvPool`."""
        sequence = int(self._steps[workers][0]) + 1
        step = Message(MessageType.STEP, slot, sequence, policy_version)
        self._open_workers().send(step, workers=workers)
        self._steps[workers] += 1

    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        """See `EnvPool`."""
        timeout_s = self.spec.timeout_s if timeout_s is None else timeout_s
        self.slot_mismatches += self._open_workers().collect(slot, timeout_s, workers)
        self._check_sequence(slot + 1, workers)

    def save_state(self, folder: Path) -> None:
        """See `EnvPool`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._order(MessageType.SAVE, folder)

    def load_state(self, folder: Path) -> None:
        """See `EnvPool`."""
        self._check_states(folder)
        self._order(MessageType.LOAD, folder)

    def close(self) -> None:
        """See `EnvPool`. Tensors that the caller still holds stay readable."""
        if os.getpid() != self._owner_pid:
            return  # a fork of the learner must not end the learner's workers
        if self._workers is not None:
            self._workers.close()
            self._workers = None
        self._segment.close()
        atexit.unregister(self.close)

    def _order(self, kind: MessageType, folder: Path | None = None) -> None:
        """Has all workers carry out an order."""
        indices = range(self.num_workers)
        paths = [state_path(folder, index) for index in indices] if folder else None
        workers = self._open_workers()
        workers.send(Message(kind), paths)
        workers.collect(0, self.spec.start_timeout_s)

    def _open_workers(self) -> WorkerGroup:
        if self._workers is None:
            raise RuntimeError("the pool is closed; make a new one")
        return self._workers
