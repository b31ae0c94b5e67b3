"""How a rollout is collected: all environments at once, or in groups that take turns."""

from typing import Protocol

import torch

from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.timing import Stopwatch
from dexgrasp_sim.transport.layout import split_envs


class Policy(Protocol):
    """The part of PPO or distillation that acts."""

    def act(self, rollout: Rollout, slot: int) -> None:
        """Draws the actions for one slot whose observations are in place."""
        ...


class Collector:
    """Fills rollouts with the environments in groups, each with its own workers.

    With one group the simulators wait while the learner infers, and vice versa. With two, one
    group simulates while the learner infers for the other. In both cases each action comes from
    the newest observation and the same weights, and the groups act in a fixed order, so that a run
    is repeatable.
    """

    def __init__(
        self,
        pool: EnvPool,
        rollout: Rollout,
        policy: Policy,
        groups: int = 1,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Splits the workers into groups.

        Args:
            pool: Started before `collect`.
            rollout: On the pool's tensors.
            policy: Acts on the rollout or on parts of it.
            groups: At most as many as the pool has workers.
            stopwatch: Measures the stages `wait` (for simulators) and `infer`.

        Raises:
            ValueError: There are fewer workers than groups.
        """
        if groups > pool.num_workers:
            raise ValueError(
                f"{pool.num_workers} workers cannot form {groups} groups; start more workers"
            )
        envs = pool.layout.slices
        workers = split_envs(pool.num_workers, groups)
        self._pool = pool
        self._rollout = rollout
        self._policy = policy
        self._stopwatch = stopwatch or Stopwatch()
        self._workers = [slice(first, end) for first, end in workers]
        self._envs = [slice(envs[first][0], envs[end - 1][1]) for first, end in workers]

    @torch.inference_mode()
    def collect(self, policy_version: int) -> None:
        """Fills all slots except the first, which must be filled already.

        Raises:
            WorkerDied, WorkerTimeout: See `EnvPool`.
        """
        parts = [self._rollout.part(envs) for envs in self._envs]
        measure = self._stopwatch.measure
        for slot in range(self._rollout.horizon):
            for part, workers in zip(parts, self._workers):
                if slot > 0:
                    with measure("wait"):
                        self._pool.wait(slot - 1, workers=workers)
                with measure("infer"):
                    self._policy.act(part, slot)
                with measure("wait"):  # an in-process pool simulates within `send`
                    self._pool.send(slot, policy_version, workers)
        with measure("wait"):
            self._pool.wait(self._rollout.horizon - 1)
        self._rollout.join(parts)
