"""Collecting rollouts and learning from them: in turn, or the one beside the other."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pipeline.rollout import Rollout
from dexgrasp_learner.pool.env_pool import EnvPool
from dexgrasp_learner.run.assembly import Algorithm
from dexgrasp_learner.run.stopwatch import Stopwatch


@dataclass(frozen=True)
class Collected:
    """What a run wants to know of a rollout.

    Attributes:
        policy_version: Updates that the acting policy had had.
        episode: [T, N, E] rows of `EPISODE_FIELDS`.
        ended: bool [T, N], which rows hold an episode.
        reward: Mean per step.
        invalid_steps: Steps without a real result, which nothing learns from.
    """

    policy_version: int
    episode: Tensor
    ended: Tensor
    reward: float
    invalid_steps: int


@dataclass(frozen=True)
class Learned:
    """An update: its figures, the rollout it was made from, and what failed beside it."""

    figures: dict[str, float]
    rollout: Collected
    failure: Exception | None = None


class Learning:
    """Collects a rollout, then learns from it."""

    is_ahead = False
    """Whether a rollout is collected from which nothing was learned yet."""

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
        stopwatch: Takes the time of `update`.
        update_threads: CPU threads of the update.
        """
        self._pool = pool
        self._rollout = rollout
        self._collector = collector
        self._algorithm = algorithm
        self._stopwatch = stopwatch
        self._update_threads = update_threads

    def iterate(self, version: int, look_ahead: bool) -> Learned:
        """One update.

        Args:
            version: Updates so far.
            look_ahead: Whether the next rollout may be begun meanwhile; no matter here.

        Raises:
            WorkerDied, WorkerTimeout: See `EnvPool`.
            NonFiniteLoss: See `Ppo.learn`.
        """
        del look_ahead
        self._collector.collect(version)
        self._algorithm.finish(self._rollout)
        collected = self._look(version)
        torch.set_num_threads(self._update_threads)
        with self._stopwatch.measure("update"):
            figures = self._algorithm.learn(self._rollout)
        torch.set_num_threads(1)
        self._pool.roll_over()
        return Learned(figures, collected)

    def close(self) -> None:
        """Waits for an update that goes on; idempotent."""

    def _look(self, version: int) -> Collected:
        rollout = self._rollout
        ended = rollout.terminated | rollout.truncated
        rewards, valid = rollout.rewards, rollout.valid
        if valid is not None:
            ended, rewards = ended & valid, rewards[valid]
        episode = self._pool.tensors["episode"][1:].clone()
        reward = rewards.mean().item()
        invalid_steps = 0 if valid is None else int((~valid).sum())
        return Collected(version, episode, ended.to(episode.device), reward, invalid_steps)


class OverlappedLearning(Learning):
    """Learns from a rollout in a thread of its own while the next one is collected.

    The acting nets are copies of those that learn, made before the update; so a rollout comes from
    weights (and statistics) that have had one update less than those which begin to learn from it.
    The importance ratios are those to the nets that acted. Since no two threads share what they
    write, a run can be repeated. It costs one copy of the nets and one of the rollout: all its
    observations once more, where they are stored.

    Both threads compute with `update_threads`. On a GPU their kernels take turns in one stream;
    what overlaps there is the simulation.
    """

    def __init__(
        self,
        pool: EnvPool,
        rollout: Rollout,
        collector: Collector,
        algorithm: Algorithm,
        stopwatch: Stopwatch,
        update_threads: int,
    ) -> None:
        """See `Learning`."""
        super().__init__(pool, rollout, collector, algorithm, stopwatch, update_threads)
        algorithm.act_with_copies()
        self._learned_from = rollout.twin()
        self._next: Collected | None = None
        self._thread = ThreadPoolExecutor(1, "update")

    @property
    def is_ahead(self) -> bool:
        """See `Learning`."""
        return self._next is not None

    def iterate(self, version: int, look_ahead: bool) -> Learned:
        """One update, and beside it the next rollout; see `Learning`.

        What fails meanwhile does not undo the update: see `Learned.failure`.
        """
        torch.set_num_threads(self._update_threads)
        self._algorithm.refresh_copies()
        if self._next is None:
            self._collector.collect(version)
            self._next = self._hand_over(version)
        rollout, self._next = self._next, None
        self._algorithm.refresh_copies()
        update = self._thread.submit(self._learn)
        failure = None
        if look_ahead:
            try:
                self._collector.collect(version)
            except Exception as error:  # the weights are not at rest before the update ends
                failure = error
        with self._stopwatch.measure("join"):
            figures = update.result()
        if look_ahead and failure is None:
            self._next = self._hand_over(version)
        return Learned(figures, rollout, failure)

    def close(self) -> None:
        """See `Learning`."""
        self._thread.shutdown()

    def _hand_over(self, version: int) -> Collected:
        """Copies the rollout for the update, so that the simulators may write the next one."""
        self._algorithm.finish(self._rollout)
        collected = self._look(version)
        with self._stopwatch.measure("copy"):
            self._learned_from.take(self._rollout)
        self._pool.roll_over()
        return collected

    def _learn(self) -> dict[str, float]:
        torch.set_num_threads(self._update_threads)
        with self._stopwatch.measure("update"):
            return self._algorithm.learn(self._learned_from)
