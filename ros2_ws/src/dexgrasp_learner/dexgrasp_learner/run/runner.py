"""One training run: collect, update, log and save, until it is finished."""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch

from dexgrasp_learner.algorithms.algorithm import Algorithm
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.console import warn
from dexgrasp_learner.evaluation.episode_statistics import EpisodeStatistics
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pipeline.in_turn import InTurn
from dexgrasp_learner.pipeline.overlapped import Overlapped
from dexgrasp_learner.pipeline.pipeline import Collected, Pipeline
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.pool.worker_group import WorkerTimeout
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.adr import AdrController
from dexgrasp_learner.run.agreement import agree_on_checkpoint, gathered, weights
from dexgrasp_learner.run.assembly import pool_spec
from dexgrasp_learner.run.continuation import settle
from dexgrasp_learner.run.control import RunControl, RunState, RunSummary
from dexgrasp_learner.run.report import RunReport, Tally
from dexgrasp_learner.run.selection import Selection
from dexgrasp_learner.storage.checkpoint import (
    check_resumable,
    load_state,
    load_training,
    policy_schema,
    save_checkpoint,
    saved_config,
)
from dexgrasp_learner.storage.checkpoint_files import STATE, TRAINING, reading
from dexgrasp_learner.storage.history import check_files
from dexgrasp_learner.storage.owner import OwnerLock
from dexgrasp_learner.timing import Stopwatch
from dexgrasp_sim.config import to_dict

_PAUSE_POLL_S = 0.2


class LastCheckpointLost(OSError):
    """The checkpoint at the end of a run cannot be written; the message says why."""


class Runner:
    """Owns the simulators and the run folder; `run` trains."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        algorithm: Algorithm,
        control: RunControl | None = None,
        show_progress: bool = True,
        clock: Callable[[], float] = time.monotonic,
        run_id: str = "",
    ) -> None:
        """Starts the simulators.

        Args:
            config: The run.
            algorithm: What learns; see `assembly`.
            folder: The run folder; made by `create_run_folder`.
            control: Lets other threads control the run.
            show_progress: Whether stderr shows the progress.
            clock: Seconds, monotonic.
            run_id: Id under which observers find the run's shared memory; "" draws one.

        Raises:
            ConfigError: The config contradicts itself or does not fit the machine, or another
                process trains in the folder.
        """
        torch.use_deterministic_algorithms(config.training.deterministic)
        self.config = config
        self.folder = folder
        self.control = control or RunControl()
        self._show_progress = show_progress
        self.algorithm = algorithm
        self.peers = algorithm.peers
        self.schema_hash = policy_schema(algorithm.actor, config.task)
        self._clock = clock
        with ExitStack() as undo:
            self._lock = OwnerLock(folder)
            undo.callback(self._lock.close)
            self.pool: EnvPool = make_pool(
                pool_spec(config, folder, algorithm.groups, run_id, algorithm.peers.rank)
            )
            undo.callback(self.pool.close)
            self._prepare(Stopwatch())
            undo.pop_all()
        self._resumed = False
        self._saved_iteration: int | None = None

    def _prepare(self, stopwatch: Stopwatch) -> None:
        """Builds what works on the pool's tensors."""
        config, algorithm = self.config, self.algorithm
        self.rollout = Rollout.on(
            self.pool.tensors,
            algorithm.groups,
            algorithm.memory_sizes,
            algorithm.device,
            config.training.image_storage,
            stopwatch,
        )
        names = [item.name for item in config.task.objects]
        self.tally = Tally(
            AdrController(config.adr, config.task.difficulty),
            episodes=EpisodeStatistics(self.pool.layout.specs.episode_fields, names),
        )
        self.report = RunReport(
            config,
            self.folder,
            self.control,
            self.tally,
            self.pool,
            self.schema_hash,
            stopwatch,
            self._clock,
        )
        device = config.simulators.worker_specs[0].device
        self.selection = Selection(algorithm.actor, config.training, config.seed, device)
        self.pipeline = self._make_pipeline()
        self.pool.set_difficulty(self.tally.adr.difficulty)

    def resume(self, path: Path, allow_changed_files: bool = False) -> None:
        """Continues from a checkpoint exactly: weights, optimizers, generators, simulators.

        A checkpoint written after a failure has no simulators: all environments then start new
        episodes. Later checkpoints of the run are set aside. `config.yaml` and the history of the
        run then have the settings with which it goes on.

        Args:
            path: Run folder or checkpoint.
            allow_changed_files: Go on even if a mesh or robot file has changed.

        Raises:
            ConfigError: There is no checkpoint, it is damaged, or it does not fit this run's
                config; or a mesh or robot file has changed.
        """
        if not allow_changed_files:
            check_files(self.folder, self.config)
        start = agree_on_checkpoint(self.peers, path, self.folder)
        checkpoint = start.path
        check_resumable(checkpoint, self.config)
        state = load_state(checkpoint)
        own = self.algorithm.state_dict()
        training = load_training(checkpoint, own.keys())
        if not start.is_own:
            training["algorithm"] |= {name: own[name] for name in ("noise", "shuffle")}
        with reading(checkpoint / TRAINING):
            self.algorithm.load_state_dict(training["algorithm"])
            self.selection.load_state_dict(training["selection"])
        with reading(checkpoint / STATE):
            self.tally.load_state_dict(state)
        self.pool.set_difficulty(self.tally.adr.difficulty)
        self.report.status(checkpoint=str(checkpoint))
        if start.is_exact:
            self.pool.start()
            self.pool.load_state(checkpoint / "simulators")
            with reading(checkpoint / TRAINING):
                self.rollout.load_state_dict(training["memory"])
            self._resumed = True
        settle(self.folder, saved_config(checkpoint, state), self.config, self.tally.iteration)
        if checkpoint.parent == (self.folder / "checkpoints").resolve():
            self._saved_iteration = self.tally.iteration

    def run(self) -> RunSummary:
        """Runs until the iterations, the time or the target are reached, or a stop is requested.

        It ends with a checkpoint, even if a simulator dies or the update fails.

        Raises:
            WorkerDied, WorkerTimeout, NonFiniteLoss, PeerLost, PeersDiffer: After the checkpoint.
            OSError: The last checkpoint cannot be written; for an earlier one the run only warns.
        """
        torch.set_num_threads(1)
        try:
            self.report.open(self._show_progress)
            if not self._resumed:
                self.pool.start()
            for net in weights(self.algorithm.state_dict()):
                self.peers.broadcast_(list(net.values()))
            if self.tally.iteration == 0:
                self._count(self.pipeline.look_around(0))
            while self._goes_on():
                self._iterate()
            self._check_peers()
            self._save_last()
            self.report.status(state=RunState.FINISHED)
        except LastCheckpointLost as error:
            self.report.status(state=RunState.FAILED, message=str(error))
            raise
        except Exception as error:
            # the simulators' state may be the cause of the failure, and one may be lost
            self._save_or_warn(with_simulators=False)
            self.report.status(state=RunState.FAILED, message=str(error))
            raise
        finally:
            self.report.close()
            self.close()
        choice = self.selection.choice
        return self.report.summary(None if choice is None else choice.success)

    def close(self) -> None:
        """Stops the simulators; idempotent."""
        self.pool.close()
        self.pipeline.close()
        self._lock.close()

    def _make_pipeline(self) -> Pipeline:
        config, watch = self.config, self.report.stopwatch
        name = config.simulators.pipeline
        groups = 2 if name == "double_buffered" else 1
        collector = Collector(self.pool, self.rollout, self.algorithm, groups, watch)
        kind = Overlapped if name == "overlapped" else InTurn
        threads = config.training.update_threads
        return kind(self.pool, self.rollout, collector, self.algorithm, watch, threads)

    def _goes_on(self) -> bool:
        if self.pipeline.is_ahead:
            return True  # learn from the collected rollout before anything else
        while True:
            over, paused, save = self.peers.any(
                self._is_over(), self.control.paused, self.control.take_save_request()
            )
            if save:
                self._check_peers()
                self._save_or_warn()
            if over or not paused:
                return not over
            self.report.status(state=RunState.PAUSED)
            self.control.wait_while_paused(_PAUSE_POLL_S)

    def _is_over(self) -> bool:
        training = self.config.training
        return (
            self.control.stopping
            or self.tally.iteration >= training.iterations
            or (training.max_minutes is not None and self.report.minutes >= training.max_minutes)
            or self.selection.has_reached_target
        )

    def _may_look_ahead(self) -> bool:
        """Whether nothing after this iteration needs idle simulators.

        They must be idle for a pause, a checkpoint and the end of the run.
        """
        training, following = self.config.training, self.tally.iteration + 1
        (must_rest,) = self.peers.any(
            self._is_over()
            or self.control.paused
            or self.control.save_asked
            or following >= training.iterations
            or following % training.checkpoint_every == 0
        )
        return not must_rest

    def _iterate(self) -> None:
        started_s = self._clock()
        tally = self.tally
        learned = self.pipeline.iterate(tally.iteration, self._may_look_ahead())
        lag = tally.iteration - learned.rollout.policy_version
        self.selection.follow()
        rollout, steps = self._count(learned.rollout)
        tally.iteration += 1
        rate = steps / max(self._clock() - started_s, 1e-9)
        figures = {f"update/{name}": value for name, value in learned.figures.items()}
        figures |= self._evaluate_if_due()
        self.report.record(figures, rate, rollout, lag)
        if learned.failure is not None:
            raise learned.failure
        training = self.config.training
        is_due = tally.iteration % training.checkpoint_every == 0 and not self.pipeline.is_ahead
        if is_due and tally.iteration < training.iterations:  # else it is the last, see `run`
            self._check_peers()
            self._save_or_warn()

    def _count(self, collected: Collected) -> tuple[Collected, int]:
        """Counts a rollout of all ranks; returns its summary and its environment steps."""
        rollout, tally = gathered(self.peers, collected), self.tally
        tally.add_episodes(rollout.episode, rollout.ended)
        self.pool.set_difficulty(tally.adr.difficulty)
        steps = self.rollout.horizon * self.rollout.num_envs * self.peers.size
        tally.env_steps += steps
        return rollout, steps

    def _evaluate_if_due(self) -> dict[str, float]:
        training, tally = self.config.training, self.tally
        every, is_last = training.evaluate_every, tally.iteration == training.iterations
        if every is None or (tally.iteration % every and not is_last):
            return {}
        task = replace(self.config.task, difficulty=tally.adr.difficulty)
        with self.report.stopwatch.measure("evaluation"):
            record = self.selection.evaluate(task, tally.iteration)
        self.report.message(
            f"iteration {tally.iteration}: {record['evaluation/success_rate']:.3f} of "
            f"{record['evaluation/episodes']} evaluation episodes succeed"
        )
        return record

    def _save(self, with_simulators: bool = True) -> None:
        """Writes a checkpoint unless this iteration has one, which is complete then."""
        if self._saved_iteration == self.tally.iteration:
            self.control.saved(Path(self.control.status.checkpoint))
            return

        def save_simulators(folder: Path) -> None:
            if with_simulators:
                self.pool.save_state(folder)

        state = {
            **self.tally.state_dict(),
            "schema_hash": self.schema_hash,
            "config": to_dict(self.config),
            "policy": None if self.selection.choice is None else asdict(self.selection.choice),
        }
        training = {
            "algorithm": self.algorithm.state_dict(),
            "selection": self.selection.state_dict(),
            "memory": self.rollout.state_dict(),
        }
        with self.report.stopwatch.measure("checkpoint"):
            path = save_checkpoint(
                self.folder / "checkpoints",
                self.tally.iteration,
                self.selection.policy,
                training,
                state,
                save_simulators,
            )
        self._saved_iteration = self.tally.iteration
        self.report.status(checkpoint=str(path), message="")
        self.control.saved(path)

    def _save_last(self) -> None:
        """Writes the last checkpoint; LastCheckpointLost if the disk does not take all of it."""
        try:
            self._save()
        except WorkerTimeout:  # a subclass of OSError
            raise
        except OSError as error:
            with suppress(OSError):  # without the simulators' state it may fit
                self._save(with_simulators=False)
            raise LastCheckpointLost(
                f"the checkpoint of iteration {self.tally.iteration} cannot be written ({error}); "
                "free some space and resume from the one before"
            ) from None

    def _check_peers(self) -> None:
        """Checks before a checkpoint that all ranks still hold the same nets."""
        where = f"iteration {self.tally.iteration}"
        self.peers.check_equal(weights(self.algorithm.state_dict()), where)

    def _save_or_warn(self, with_simulators: bool = True) -> None:
        """Writes a checkpoint; on a full disk it only warns, so that the run continues."""
        try:
            self._save(with_simulators)
        except WorkerTimeout:  # a subclass of OSError
            raise
        except OSError as error:
            text = f"no checkpoint at iteration {self.tally.iteration}: {error}; free some space"
            self.report.status(message=text)
            warn(text)
