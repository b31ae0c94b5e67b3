"""Collecting and learning in turn: the simulators are idle during an update."""

import torch
from typing_extensions import override

from dexgrasp_learner.algorithms.algorithm import Algorithm
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pipeline.pipeline import Learned, Pipeline, summarize
from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.timing import Stopwatch


class InTurn(Pipeline):
    """Collects a rollout, then learns from it."""

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
    @override
    def is_ahead(self) -> bool:
        return False

    @override
    def iterate(self, version: int, look_ahead: bool) -> Learned:
        del look_ahead  # the next rollout never begins during an update
        self._collector.collect(version)
        self._algorithm.finish(self._rollout)
        collected = summarize(self._pool, self._rollout, version)
        torch.set_num_threads(self._update_threads)
        with self._stopwatch.measure("update"):
            figures = self._algorithm.learn(self._rollout)
        torch.set_num_threads(1)
        self._pool.roll_over()
        return Learned(figures, collected)

    @override
    def close(self) -> None:
        pass  # no update runs between calls
