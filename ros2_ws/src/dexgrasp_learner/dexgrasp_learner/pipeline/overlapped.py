"""Learning from one rollout while the next one is collected."""

from concurrent.futures import ThreadPoolExecutor

import torch
from typing_extensions import override

from dexgrasp_learner.algorithms.algorithm import Algorithm
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pipeline.pipeline import Collected, Learned, Pipeline, summarize
from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.timing import Stopwatch


class Overlapped(Pipeline):
    """Learns from a rollout in a separate thread while the next one is collected.

    The acting nets are copies of the learning ones, made before each update. A rollout therefore
    comes from weights (and statistics) that are one update older than those that learn from it;
    importance ratios refer to the nets that acted. The two threads write no common data, so a run
    is repeatable. It needs memory for a copy of the nets and a copy of the rollout with all its
    observations, on the device that stores them.

    Both threads compute with `update_threads`. On a GPU their kernels share one stream, and only
    the simulation overlaps with the update.
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
        """Arguments as for `Pipeline`."""
        super().__init__(pool, rollout, collector, algorithm, stopwatch, update_threads)
        algorithm.act_with_copies()
        self._learned_from = rollout.twin()
        self._next: Collected | None = None
        self._thread = ThreadPoolExecutor(1, "update")

    @property
    @override
    def is_ahead(self) -> bool:
        return self._next is not None

    @override
    def iterate(self, version: int, look_ahead: bool) -> Learned:
        """One update, and at the same time the next rollout; see `Pipeline`.

        An error of the collection does not discard the update: see `Learned.failure`.
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
            except Exception as error:  # wait for the update, which is changing the weights
                failure = error
        with self._stopwatch.measure("join"):
            figures = update.result()
        if look_ahead and failure is None:
            self._next = self._hand_over(version)
        return Learned(figures, rollout, failure)

    @override
    def close(self) -> None:
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
