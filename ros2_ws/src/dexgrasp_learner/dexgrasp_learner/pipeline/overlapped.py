"""Learning from one rollout while the next one is collected."""

from concurrent.futures import ThreadPoolExecutor

import torch

from dexgrasp_learner.algorithms.algorithm import Algorithm
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pipeline.pipeline import Collected, Learned, summarize
from dexgrasp_learner.pool.env_pool import EnvPool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.timing import Stopwatch


class Overlapped:
    """Learns from a rollout in a thread of its own while the next one is collected.

    Implements `Pipeline`. The acting nets are copies of those that learn, made before the update;
    so a rollout comes from weights (and statistics) that have had one update less than those which
    begin to learn from it. The importance ratios are those to the nets that acted. Since no two
    threads share what they write, a run can be repeated. It costs one copy of the nets and one of
    the rollout: all its observations once more, where they are stored.

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
        """Arguments as for `InTurn`."""
        self._pool = pool
        self._rollout = rollout
        self._collector = collector
        self._algorithm = algorithm
        self._stopwatch = stopwatch
        self._update_threads = update_threads
        algorithm.act_with_copies()
        self._learned_from = rollout.twin()
        self._next: Collected | None = None
        self._thread = ThreadPoolExecutor(1, "update")

    @property
    def is_ahead(self) -> bool:
        """See `Pipeline`."""
        return self._next is not None

    def iterate(self, version: int, look_ahead: bool) -> Learned:
        """One update, and beside it the next rollout; see `Pipeline`.

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
        """See `Pipeline`."""
        self._thread.shutdown()

    def _hand_over(self, version: int) -> Collected:
        """Copies the rollout for the update, so that the simulators may write the next one."""
        self._algorithm.finish(self._rollout)
        collected = summarize(self._pool, self._rollout, version)
        with self._stopwatch.measure("copy"):
            self._learned_from.take(self._rollout)
        self._pool.roll_over()
        return collected

    def _learn(self) -> dict[str, float]:
        torch.set_num_threads(self._update_threads)
        with self._stopwatch.measure("update"):
            return self._algorithm.learn(self._learned_from)
