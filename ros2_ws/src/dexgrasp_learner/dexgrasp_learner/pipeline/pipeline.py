"""What is common to the ways to combine collecting rollouts and learning from them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from dexgrasp_learner.algorithms.algorithm import Algorithm
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.timing import Stopwatch


@dataclass(frozen=True)
class Collected:
    """Summary of a rollout.

    Attributes:
        policy_version: Number of updates of the policy that acted.
        episode: [T, N, E] rows of the pool's `episode` result.
        ended: bool [T, N], which rows hold an episode.
        reward: Mean per step.
        invalid_steps: Steps without a real result, which are not learned from.
    """

    policy_version: int
    episode: Tensor
    ended: Tensor
    reward: float
    invalid_steps: int


@dataclass(frozen=True)
class Learned:
    """An update: its figures, the rollout it used, and an error while collecting the next one."""

    figures: dict[str, float]
    rollout: Collected
    failure: Exception | None = None


class Pipeline(ABC):
    """Collects rollouts and learns from them; `simulators.pipeline` chooses one."""

    def __init__(
        self,
        pool: EnvPool,
        rollout: Rollout,
        collector: Collector,
        algorithm: Algorithm,
        stopwatch: Stopwatch,
        update_threads: int,
    ) -> None:
        """Args:
        pool: Started before `iterate`.
        rollout: On the pool's tensors.
        collector: Fills the rollout.
        algorithm: Acts and learns.
        stopwatch: Measures the stage `update`.
        update_threads: CPU threads of the update.
        """
        self._pool = pool
        self._rollout = rollout
        self._collector = collector
        self._algorithm = algorithm
        self._stopwatch = stopwatch
        self._update_threads = update_threads

    @property
    @abstractmethod
    def is_ahead(self) -> bool:
        """Whether there is a collected rollout that was not learned from yet."""

    def look_around(self, version: int) -> Collected:
        """Collects a rollout only to begin the normalisation of observations.

        Args:
            version: See `iterate`, which raises the same errors.
        """
        self._collector.collect(version)
        self._algorithm.finish(self._rollout)
        collected = summarize(self._pool, self._rollout, version)
        self._algorithm.observe(self._rollout)
        self._pool.roll_over()
        return collected

    @abstractmethod
    def iterate(self, version: int, look_ahead: bool) -> Learned:
        """One update.

        Args:
            version: Updates so far.
            look_ahead: Whether the next rollout may be collected during the update.

        Raises:
            WorkerDied, WorkerTimeout: See `EnvPool`.
            NonFiniteLoss: See `Ppo.learn`.
        """

    @abstractmethod
    def close(self) -> None:
        """Waits for a running update; idempotent."""


def summarize(pool: EnvPool, rollout: Rollout, version: int) -> Collected:
    """The summary of a finished rollout; `version` is the number of updates of its policy."""
    ended = rollout.terminated | rollout.truncated
    rewards, valid = rollout.rewards, rollout.valid
    if valid is not None:
        ended, rewards = ended & valid, rewards[valid]
    episode = pool.tensors["episode"][1:].clone()
    reward = rewards.mean().item()
    invalid_steps = 0 if valid is None else int((~valid).sum())
    return Collected(version, episode, ended.to(episode.device), reward, invalid_steps)
