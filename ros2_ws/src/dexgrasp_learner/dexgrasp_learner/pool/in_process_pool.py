"""All environments in the learner's own process, and what they share with worker processes."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.restarts import Restart
from dexgrasp_learner.pool.worker_group import ALL
from dexgrasp_sim.environments import make_env
from dexgrasp_sim.transport.layout import Block, RunLayout
from dexgrasp_sim.transport.telemetry import WorkerTelemetry, read_statuses
from dexgrasp_sim.worker.env_slice import EnvSlice, check_state_file, state_path


class Pool:
    """What all pools have in common."""

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
        self.restarts: list[Restart] = []
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
                "resets_not_finite": float(status.resets_not_finite),
            }
            for status in read_statuses(self.telemetry)
        ]

    def _check_sequence(self, slot: int, workers: slice = ALL) -> None:
        wrong = self._sequence[slot, workers] != self._steps[workers]
        self.slot_mismatches += int(wrong.sum())

    def _check_states(self, folder: Path) -> None:
        for index in range(self.num_workers):
            check_state_file(state_path(folder, index), self.layout, index)


class InProcessPool(Pool):
    """All environments in the caller's thread, split, seeded and written as by workers."""

    def __init__(self, spec: PoolSpec) -> None:
        """Builds the environments; errors as for `make_pool`."""
        layout = spec.layout()
        tensors = private_tensors(layout.rollout_blocks)
        super().__init__(spec, layout, tensors, private_tensors(layout.telemetry_blocks))
        self._slices = [self._build(index) for index in range(self.num_workers)]

    def _build(self, index: int) -> EnvSlice:
        orders = self.spec.orders()[index]
        start, stop = self.layout.slices[index]
        env = make_env(
            num_envs=stop - start,
            env_offset=orders["env_offset"] + start,
            **{name: orders[name] for name in ("kind", "config", "groups", "seed", "threads")},
        )
        telemetry = WorkerTelemetry(self.telemetry, index)
        telemetry.count(pid=os.getpid())
        return EnvSlice(env, self.layout, self.tensors, telemetry, index)

    @property
    def workers_alive(self) -> int:
        """See `EnvPool`."""
        return self.num_workers

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


def private_tensors(blocks: tuple[Block, ...]) -> dict[str, Tensor]:
    """Zeroed tensors in memory of this process alone, by name."""
    return {block.name: torch.zeros(block.shape, dtype=block.torch_dtype) for block in blocks}
