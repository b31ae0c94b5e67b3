"""A training run in a separate thread, for processes that do other work at the same time."""

import threading
from dataclasses import replace
from pathlib import Path

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.run.assembly import build_ppo
from dexgrasp_learner.run.control import RunControl, RunState, RunSummary
from dexgrasp_learner.run.initial_weights import take_initial_weights
from dexgrasp_learner.run.runner import Runner


class RunThread(threading.Thread):
    """Runs PPO from `start` until the run ends or `control` stops it.

    Attributes:
        control: Steers the run, also before it has started.
        summary: Summary of the finished run; None before its end, and if it failed.
        error: The error with which the run failed, else None.
    """

    def __init__(
        self, config: RunConfig, folder: Path, run_id: str = "", resume: Path | None = None
    ) -> None:
        """Starts nothing yet.

        Args:
            config: The run.
            folder: Its folder; made by `create_run_folder`.
            run_id: See `Runner`.
            resume: The folder, to go on from its last checkpoint, or one of its checkpoints.
        """
        super().__init__(name="training", daemon=True)
        self.control = RunControl()
        self.summary: RunSummary | None = None
        self.error: Exception | None = None
        self._config = config
        self._folder = folder
        self._run_id = run_id
        self._resume = resume

    def run(self) -> None:
        """The thread's work; called by `start`."""
        try:
            self.summary = self._train()
        except Exception as error:
            self.error = error
            status = self.control.status
            self.control.status = replace(status, state=RunState.FAILED, message=str(error))

    def stop(self, timeout_s: float) -> None:
        """Asks for an orderly end with a checkpoint and waits for it.

        Raises:
            TimeoutError: The run has not ended in time.
        """
        self.control.stop()
        self.join(timeout_s)
        if self.is_alive():
            raise TimeoutError(f"the run did not end within {timeout_s:g} s")

    def _train(self) -> RunSummary:
        algorithm = build_ppo(self._config)
        if not self._resume:
            take_initial_weights(algorithm, self._config)
        control, run_id = self.control, self._run_id
        runner = Runner(
            self._config, self._folder, algorithm, control, show_progress=True, run_id=run_id
        )
        try:
            if self._resume:
                runner.resume(self._resume)
            return runner.run()
        finally:
            runner.close()
