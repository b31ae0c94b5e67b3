"""Collecting and learning in turn: the simulators are idle during an update."""

import torch
from typing_extensions import override

from dexgrasp_learner.pipeline.pipeline import Learned, Pipeline, summarize


class InTurn(Pipeline):
    """Collects a rollout, then learns from it."""

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
