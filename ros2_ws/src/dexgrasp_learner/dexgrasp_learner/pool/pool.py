"""What all pools have in common."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.restarts import Restart
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.telemetry import read_statuses
from dexgrasp_sim.worker.env_slice import check_state_file, state_path

ALL = slice(None)
"""All workers."""


class Pool:
    """Tensors, counts and times of a pool; see `EnvPool`."""

    def __init__(
        self,
        spec: PoolSpec,
        layout: RunLayout,
        tensors: Mapping[str, Tensor],
        telemetry: Mapping[str, Tensor],
    ) -> None:
        """Args:
        spec: Of the run.
        layout: Of the spec.
        tensors: See `RunLayout.rollout_blocks`; `sequence` is in host memory.
        telemetry: See `RunLayout.telemetry_blocks`.
        """
        self.spec = spec
        self.layout = layout
        self.num_envs = layout.num_envs
        self.num_workers = layout.num_workers
        self.horizon = layout.horizon
        self.action_dim = layout.specs.action_dim
        self.control_dt_s = layout.specs.control_dt_s
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
