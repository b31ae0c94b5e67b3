"""The interface of the environment pools, and what all of them have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor
from typing_extensions import override

from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.restarts import Restart
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.telemetry import read_statuses
from dexgrasp_sim.worker.env_slice import check_state_file, state_path

ALL = slice(None)
"""All workers."""


class EnvPool(Protocol):
    """N environments behind W workers, and the tensors of one rollout.

    Attributes:
        tensors: Observations and results [T+1, N, ...] by name, actions [T, N, A] float32,
            sequence [T+1, W] int64. The result of actions[t] and the observation after it are
            in slot t+1. Workers write in place: read slot t+1 only after `wait(t)`. Where
            `valid` is False in slot t+1, there is no result of actions[t]: the environment was
            restarted, see `transport.layout`.
        slot_mismatches: Sequence numbers that were not the expected ones; 0 in a correct run.
        restarts: Workers that were lost and replaced, in order.
        workers_alive: Number of workers that are running now.
        refused_connections: Connections of strangers and of other users that were refused.
    """

    num_envs: int
    num_workers: int
    horizon: int
    action_dim: int
    control_dt_s: float
    observation_specs: tuple[TensorSpec, ...]
    tensors: Mapping[str, Tensor]
    layout: RunLayout
    slot_mismatches: int
    restarts: list[Restart]

    @property
    def workers_alive(self) -> int:
        """Number of workers that are running now."""
        ...

    @property
    def refused_connections(self) -> int:
        """Connections of strangers and of other users that were refused."""
        ...

    def start(self) -> None:
        """Resets all environments and fills slot 0, whose end-of-episode flags are all True.

        Raises:
            WorkerDied: A worker has ended.
            WorkerTimeout: A worker was not ready within `start_timeout_s`.
            ProtocolError: A worker runs another version of this code.
        """
        ...

    def send(self, slot: int, policy_version: int, workers: slice = ALL) -> None:
        """Lets these workers apply `actions[slot]`; does not wait, even if one has ended."""
        ...

    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        """Returns when these workers' slot + 1 is complete; may be called again after a time-out.

        A worker that has ended or has not answered within `timeout_s` (default: the spec's) is
        replaced as often as the spec's `restarts` allow. This takes as long as building its
        environments, for a remote worker also until somebody starts it; their rows of slot + 1
        then are not valid.

        Raises:
            WorkerDied: A worker has ended and may not be replaced.
            WorkerTimeout: A worker hangs and may not be replaced, as one started by hand.
        """
        ...

    def roll_over(self) -> None:
        """Copies slot T to slot 0, where the next rollout begins."""
        ...

    def set_difficulty(self, difficulty: float) -> None:
        """Sets the difficulty of future episodes in all workers, 0 to 1.

        Call it only before `start` or between rollouts, so that all workers read it in the same
        step. The initial value is the `difficulty` of the environments' config.
        """
        ...

    def save_state(self, folder: Path) -> None:
        """Each worker writes `worker_<k>.safetensors`, also one that has just been replaced.

        Raises:
            OSError: A state cannot be written, as on a full disk; the pool can still be used.
            WorkerDied, WorkerTimeout: As for `wait`.
        """
        ...

    def load_state(self, folder: Path) -> None:
        """Restores what `save_state` wrote: the slot that was newest then becomes slot 0.

        Raises:
            ConfigError: A file is missing or belongs to other environments.
        """
        ...

    def timings(self) -> list[dict[str, float]]:
        """Per worker: steps, seconds simulating, rendering and waiting, and resets_not_finite.

        `resets_not_finite` counts environments that were reset because of a value not finite.
        """
        ...

    def close(self) -> None:
        """Ends all workers and frees the shared memory; idempotent.

        Tensors that the caller still holds stay readable.
        """
        ...


class Pool(EnvPool):
    """Tensors, counts and times of a pool, for all kinds of pools."""

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

    @property
    @override
    def refused_connections(self) -> int:
        return 0

    @override
    def set_difficulty(self, difficulty: float) -> None:
        self.telemetry["control.difficulty"][0] = difficulty

    @override
    def roll_over(self) -> None:
        for name, tensor in self.tensors.items():
            if name != "actions":
                tensor[0].copy_(tensor[-1])

    @override
    def timings(self) -> list[dict[str, float]]:
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
