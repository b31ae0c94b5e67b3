"""Environments as the learner sees them: one batch, however many processes step it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from dexgrasp_learner.pool.in_process_pool import InProcessPool
from dexgrasp_learner.pool.pool import ALL
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.restarts import Restart
from dexgrasp_learner.pool.worker_pool import WorkerPool
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.transport.layout import RunLayout


class EnvPool(Protocol):
    """N environments behind W workers, and the tensors of one rollout.

    Attributes:
        tensors: Observations and results [T+1, N, ...] by name, actions [T, N, A] float32,
            sequence [T+1, W] int64. The result of actions[t] and the observation after it stand
            in slot t+1. Workers write in place: read slot t+1 only after `wait(t)`. Where
            `valid` is False in slot t+1, there is no result of actions[t]: the environment had
            to begin anew, see `transport.layout`.
        slot_mismatches: Sequence numbers that were not the expected ones; 0 in a sound run.
        restarts: Workers that were lost and replaced, in order.
        workers_alive: Workers that are there now.
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
        """See above."""
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
        """Lets these workers apply `actions[slot]`; returns at once, also where one has ended."""
        ...

    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        """Returns when these workers' slot + 1 is complete; may be called again after a time-out.

        A worker that has ended or has not answered within `timeout_s` (default: the spec's) is
        replaced as often as the spec's `restarts` allow. This takes as long as building its
        environments, for a remote worker also until somebody starts it; their rows of slot + 1
        then are not valid.

        Raises:
            WorkerDied: A worker has ended and may not be replaced.
            WorkerTimeout: The same of one that hangs, or of one that a person has started.
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
        """Each worker writes `worker_<k>.safetensors`, also one that has just been replaced.

        Raises:
            OSError: A state cannot be written, as on a full disk; all goes on.
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

        The last are environments that began anew because something in them was not finite.
        """
        ...

    def close(self) -> None:
        """Ends all workers and frees the shared memory; idempotent."""
        ...


def make_pool(spec: PoolSpec) -> EnvPool:
    """The pool of a spec; `start` it, and `close` it in the end.

    Raises:
        ConfigError: A value of the spec or of its config is wrong, a device is not there, or
            shared memory is too small.
    """
    spec.check_devices()
    if spec.simulators.transport == "in_process":
        return InProcessPool(spec)
    return WorkerPool(spec)
