"""Reports of a run: status, records, progress bar and final summary."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.evaluation.episode_statistics import EpisodeStatistics
from dexgrasp_learner.pipeline.pipeline import Collected
from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.run.adr import AdrController
from dexgrasp_learner.run.control import RunControl, RunState, RunSummary
from dexgrasp_learner.run.metrics import MetricsWriter, Progress
from dexgrasp_learner.timing import (
    ROLLOUT_STAGES,
    IterationTimes,
    Stopwatch,
    cpu_seconds,
    rounded,
)

_ENDED = (RunState.FINISHED, RunState.FAILED)


@dataclass
class Tally:
    """Progress of a run, saved in every checkpoint.

    Attributes:
        iteration: Updates done.
        env_steps: Control periods over all environments.
        episodes: Statistics of the last episodes.
        adr: Controls the difficulty.
    """

    adr: AdrController
    iteration: int = 0
    env_steps: int = 0
    episodes: EpisodeStatistics = field(default_factory=EpisodeStatistics)

    def add_episodes(self, episode: Tensor, ended: Tensor) -> None:
        """Adds the episodes that ended in a rollout: rows [T, N, E] where `ended` [T, N]."""
        self.episodes.add(episode, ended)
        self.adr.add(episode, ended)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; `save_checkpoint` adds the iteration."""
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes.state_dict(),
            "adr": self.adr.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, and the iteration that the checkpoint added.

        Episodes and difficulty begin anew where an older version has not saved them.
        """
        self.iteration = state["iteration"]
        self.env_steps = state["env_steps"]
        for name, part in (("episodes", self.episodes), ("adr", self.adr)):
            if name in state:
                part.load_state_dict(state[name])


class RunReport:
    """Keeps the status that observers read, and writes the figures of each iteration.

    Attributes:
        stopwatch: Where the learner's time goes.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        control: RunControl,
        tally: Tally,
        pool: EnvPool,
        schema_hash: str,
        stopwatch: Stopwatch,
        clock: Callable[[], float],
    ) -> None:
        """Starts the clock.

        Args:
            config: The run.
            folder: The run folder.
            control: Its `status` is kept up to date.
            tally: Read for every report.
            pool: Of the run.
            schema_hash: Of the observation groups in use.
            stopwatch: Where the learner's time goes.
            clock: Seconds, monotonic.
        """
        self.stopwatch = stopwatch
        self._times = IterationTimes()
        self._config = config
        self._folder = folder
        self._control = control
        self._tally = tally
        self._pool = pool
        self._schema_hash = schema_hash
        self._clock = clock
        self._started_s, self._started_cpu_s = clock(), cpu_seconds()
        self._writer: MetricsWriter | None = None
        self._progress: Progress | None = None

    def open(self, show_progress: bool) -> None:
        """Opens the record files and, if wanted, shows the progress on stderr."""
        training, iteration = self._config.training, self._tally.iteration
        self._writer = MetricsWriter(self._folder, iteration)
        self._progress = Progress(training.iterations, iteration, self._config.name, show_progress)

    def close(self) -> None:
        """Closes what `open` opened; idempotent."""
        if self._progress is not None:
            self._progress.close()
        if self._writer is not None:
            self._writer.close()

    @property
    def minutes(self) -> float:
        """Since the run began, in this process."""
        return (self._clock() - self._started_s) / 60

    def record(
        self, figures: dict[str, float], rate: float, rollout: Collected, policy_lag: int
    ) -> None:
        """Writes the record of an iteration and shows it.

        Args:
            figures: Of the update and of an evaluation, by the names that they have in the record.
            rate: Environment steps per second of this iteration.
            rollout: What was learned from.
            policy_lag: See `RunStatus`.
        """
        assert self._writer is not None and self._progress is not None, "not open"
        tally, reward = self._tally, rollout.reward
        run = {
            "run/env_steps": tally.env_steps,
            "run/env_steps_per_s": rate,
            "run/reward": reward,
            "run/minutes": self.minutes,
            "run/cpu_minutes": (cpu_seconds() - self._started_cpu_s) / 60,
            "run/policy_lag": policy_lag,
            "run/invalid_steps": rollout.invalid_steps,
            "run/refused_connections": self._pool.refused_connections,
        }
        episodes = tally.episodes.figures()
        times = self._times.since_last(self.stopwatch.seconds, self._pool.timings())
        figures = {**figures, **episodes, **tally.adr.figures(self._config.task), **run, **times}
        self._writer.write(tally.iteration, figures)
        self._progress.update(rate, reward, tally.episodes.success)
        self.status(
            state=RunState.RUNNING,
            env_steps_per_s=rate,
            reward=reward,
            policy_lag=policy_lag,
            remaining_s=self._progress.remaining_s,
        )

    def message(self, text: str) -> None:
        """A line above the progress bar."""
        if self._progress is not None:
            self._progress.message(text)

    def status(self, **changes: Any) -> None:
        """Replaces the status; `changes` are fields of `RunStatus` that only the run knows."""
        total_s = max(self._clock() - self._started_s, 1e-9)
        seconds, tally, status = self.stopwatch.seconds, self._tally, self._control.status
        ended = changes.get("state", status.state) in _ENDED
        self._control.status = replace(
            status,
            run_id=self._folder.name,
            iteration=tally.iteration,
            iterations=self._config.training.iterations,
            env_steps=tally.env_steps,
            policy_version=tally.iteration,
            episodes=tally.episodes.count,
            success=tally.episodes.success,
            adr_level=tally.adr.difficulty,
            rollout_fraction=sum(seconds.get(stage, 0.0) for stage in ROLLOUT_STAGES) / total_s,
            update_fraction=seconds.get("update", 0.0) / total_s,
            schema_hash=self._schema_hash,
            num_workers=self._pool.num_workers,
            # a run closes its workers when it has ended
            workers_alive=0 if ended else self._pool.workers_alive,
            restarts=len(self._pool.restarts),
            refused_connections=self._pool.refused_connections,
            **changes,
        )

    def summary(self, evaluation_success: float | None) -> RunSummary:
        """The summary of the run at its end; see `RunSummary`."""
        return RunSummary(
            iterations=self._tally.iteration,
            env_steps=self._tally.env_steps,
            workers=self._pool.num_workers,
            transport=self._config.simulators.transport,
            slot_mismatches=self._pool.slot_mismatches,
            success=self._tally.episodes.success,
            evaluation_success=evaluation_success,
            checkpoint=self._control.status.checkpoint,
            run_dir=str(self._folder),
            seconds=rounded(self.stopwatch.seconds),
            worker_seconds=[rounded(worker) for worker in self._pool.timings()],
            restarts=len(self._pool.restarts),
            refused_connections=self._pool.refused_connections,
        )
