"""One training run: collect, update, log, save, until enough."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from dexgrasp_learner.algorithms.distillation import Distillation
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.checkpoint import (
    check_resumable,
    find_checkpoint,
    load_state,
    load_training,
    policy_schema,
    save_checkpoint,
)
from dexgrasp_learner.collector import Collector
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.curriculum import AdrController
from dexgrasp_learner.env_pool import EnvPool, PoolSpec, WorkerTimeout, make_pool
from dexgrasp_learner.evaluate import evaluate_actor
from dexgrasp_learner.metrics import EpisodeStatistics, MetricsWriter, Progress, warn
from dexgrasp_learner.networks.policy import Actor, build_actor, build_critic
from dexgrasp_learner.rollout import Rollout
from dexgrasp_learner.run_control import RunControl, RunState, RunSummary
from dexgrasp_learner.run_folder import Stopwatch
from dexgrasp_sim.config import to_dict
from dexgrasp_sim.tasks.grasp.observations import all_specs

__all__ = ["Algorithm", "RunSummary", "Runner", "build_distillation", "build_ppo", "pool_spec"]

_PAUSE_POLL_S = 0.2
_ENDED = (RunState.FINISHED, RunState.FAILED)
EVALUATION_SEED = 1_000_003
"""Evaluations draw from seeds that no training run uses."""


class Algorithm(Protocol):
    """What the runner drives: PPO or distillation."""

    actor: Actor
    groups: tuple[str, ...]
    memory_sizes: dict[str, int]

    def act(self, rollout: Rollout, slot: int) -> None:
        """Draws the actions for one slot whose observations are in place."""
        ...

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a complete rollout; returns figures by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that later updates depend on; tensors and plain values only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        ...


def build_ppo(config: RunConfig) -> Ppo:
    """Fresh networks and PPO for a run; ConfigError where the config contradicts itself."""
    specs, action_dim = all_specs(config.task), len(config.task.action.dimensions)
    actor = build_actor(config.network, specs, action_dim, seed=config.seed)
    critic = build_critic(config.network, specs, seed=config.seed + 1)
    return Ppo(actor, critic, config.ppo, config.seed)


def build_distillation(config: RunConfig, teacher: Actor) -> Distillation:
    """A fresh student and distillation for a run; ConfigError as for `build_ppo`."""
    specs, action_dim = all_specs(config.task), len(config.task.action.dimensions)
    student = build_actor(config.network, specs, action_dim, seed=config.seed)
    return Distillation(student, teacher, config.distillation, config.seed)


class Runner:
    """Owns the simulators and the run folder; `run` does the rest."""

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
            algorithm: What learns; see `build_ppo` and `build_distillation`.
            folder: The run folder; made by `create_run_folder`.
            control: How others steer the run.
            show_progress: Whether a progress bar goes to stderr.
            clock: Seconds, monotonic.
            run_id: Id under which observers find the run's shared memory; "" draws one.

        Raises:
            ConfigError: The config does not fit the machine or itself.
        """
        torch.use_deterministic_algorithms(config.training.deterministic)
        self.config = config
        self.folder = folder
        self.control = control or RunControl()
        self._show_progress = show_progress
        self._clock = clock
        self._started_s = clock()
        self._stopwatch = Stopwatch()
        self.algorithm = algorithm
        self.schema_hash = policy_schema(algorithm.actor, config.task)
        self.pool: EnvPool = make_pool(pool_spec(config, folder, algorithm.groups, run_id))
        self.rollout = Rollout(self.pool.tensors, algorithm.groups, algorithm.memory_sizes)
        groups = 2 if config.simulators.pipeline == "double_buffered" else 1
        self.collector = Collector(self.pool, self.rollout, algorithm, groups)
        self.iteration = 0
        self.env_steps = 0
        self.episodes = EpisodeStatistics()
        self.adr = AdrController(config.adr, config.task.difficulty)
        self.pool.set_difficulty(self.adr.difficulty)
        self._evaluation_success: float | None = None
        self._resumed = False
        self._saved_iteration: int | None = None

    def resume(self, path: Path) -> None:
        """Continues from a checkpoint exactly: weights, optimizers, generators, simulators.

        The checkpoint of a failure has no simulators: all environments start new episodes.

        Args:
            path: Run folder or checkpoint.

        Raises:
            ConfigError: There is no checkpoint, or it does not fit this run's config.
        """
        checkpoint = find_checkpoint(path)
        check_resumable(checkpoint, self.config)
        state = load_state(checkpoint)
        training = load_training(checkpoint, self.algorithm.state_dict().keys())
        self.algorithm.load_state_dict(training["algorithm"])
        self.iteration = state["iteration"]
        self.env_steps = state["env_steps"]
        self.episodes.load_state_dict(state["episodes"])
        if "adr" in state:
            self.adr.load_state_dict(state["adr"])
            self.pool.set_difficulty(self.adr.difficulty)
        if checkpoint.parent == (self.folder / "checkpoints").resolve():
            self._saved_iteration = self.iteration
        self._set_status(checkpoint=str(checkpoint))
        if any((checkpoint / "simulators").iterdir()):
            self.pool.start()
            self.pool.load_state(checkpoint / "simulators")
            self.rollout.load_state_dict(training["memory"])
            self._resumed = True

    def run(self) -> RunSummary:
        """Runs until the iterations, the time or the target are reached, or a stop is asked for.

        A checkpoint stands at the end, also when a simulator dies or the update fails.

        Raises:
            WorkerDied, WorkerTimeout, NonFiniteLoss: After the checkpoint.
            OSError: The last checkpoint cannot be written; for an earlier one the run only warns.
        """
        training = self.config.training
        torch.set_num_threads(1)
        writer = MetricsWriter(self.folder, self.iteration)
        progress = Progress(
            training.iterations, self.iteration, self.config.name, self._show_progress
        )
        try:
            with progress:
                if not self._resumed:
                    self.pool.start()
                while self._goes_on():
                    self._iterate(writer, progress)
            self._save()
            self._set_status(state=RunState.FINISHED)
        except Exception as error:
            # what the simulators hold may be what made the run fail, and one may be lost
            self._save_or_warn(with_simulators=False)
            self._set_status(state=RunState.FAILED, message=str(error))
            raise
        finally:
            writer.close()
            self.close()
        return self._summary()

    def close(self) -> None:
        """Stops the simulators; idempotent."""
        self.pool.close()

    def _goes_on(self) -> bool:
        while self.control.paused and not self.control.stopping:
            self._set_status(state=RunState.PAUSED)
            self._save_if_asked()
            self.control.wait_while_paused(_PAUSE_POLL_S)
        training = self.config.training
        minutes = (self._clock() - self._started_s) / 60
        return not (
            self.control.stopping
            or self.iteration >= training.iterations
            or (training.max_minutes is not None and minutes >= training.max_minutes)
            or (self._evaluation_success or 0.0) >= training.target_success
        )

    def _iterate(self, writer: MetricsWriter, progress: Progress) -> None:
        started_s = self._clock()
        with self._stopwatch.measure("rollout"):
            self.collector.collect(policy_version=self.iteration)
        torch.set_num_threads(self.config.training.update_threads)
        with self._stopwatch.measure("update"):
            metrics = self.algorithm.update(self.rollout)
        torch.set_num_threads(1)
        ended = self.rollout.terminated | self.rollout.truncated
        self.episodes.add(self.pool.tensors["episode"][1:], ended)
        self.adr.add(self.pool.tensors["episode"][1:], ended)
        self.pool.set_difficulty(self.adr.difficulty)
        self.pool.roll_over()
        self.iteration += 1
        steps = self.rollout.horizon * self.rollout.num_envs
        self.env_steps += steps
        rate = steps / max(self._clock() - started_s, 1e-9)
        reward = self.rollout.rewards.mean().item()
        record = {f"update/{name}": value for name, value in metrics.items()}
        record |= {f"episode/{name}": value for name, value in self.episodes.means().items()}
        record |= self.adr.figures(self.config.task)
        record |= {
            "run/env_steps": self.env_steps,
            "run/env_steps_per_s": rate,
            "run/reward": reward,
            "run/minutes": (self._clock() - self._started_s) / 60,
        }
        self._evaluate_if_due(record, progress)
        writer.write(self.iteration, record)
        progress.update(rate, reward, self.episodes.success)
        self._set_status(RunState.RUNNING, rate, reward, progress.remaining_s)
        if self.iteration % self.config.training.checkpoint_every == 0:
            self._save_or_warn()
        self._save_if_asked()

    def _evaluate_if_due(self, record: dict[str, float], progress: Progress) -> None:
        training = self.config.training
        above = training.evaluate_above
        if above is None or self.iteration % training.evaluate_every:
            return
        if not self.episodes.success >= above:
            return
        with self._stopwatch.measure("evaluation"):
            result = evaluate_actor(
                self.algorithm.actor,
                replace(self.config.task, difficulty=self.adr.difficulty),
                training.evaluation_episodes,
                seed=EVALUATION_SEED + self.config.seed,
                threads=training.update_threads,
            )
        self._evaluation_success = result.success_rate
        record["evaluation/success_rate"] = result.success_rate
        progress.message(
            f"iteration {self.iteration}: {result.success_rate:.3f} of "
            f"{result.episodes} evaluation episodes succeed"
        )

    def _save(self, with_simulators: bool = True) -> None:
        """Writes a checkpoint unless this iteration has one, which then is the exact one."""
        if self._saved_iteration == self.iteration:
            self.control.saved(Path(self.control.status.checkpoint))
            return

        def save_simulators(folder: Path) -> None:
            if with_simulators:
                self.pool.save_state(folder)

        state = {
            "env_steps": self.env_steps,
            "episodes": self.episodes.state_dict(),
            "adr": self.adr.state_dict(),
            "schema_hash": self.schema_hash,
            "config": to_dict(self.config),
        }
        training = {
            "algorithm": self.algorithm.state_dict(),
            "memory": self.rollout.state_dict(),
        }
        actor = self.algorithm.actor
        with self._stopwatch.measure("checkpoint"):
            path = save_checkpoint(
                self.folder / "checkpoints",
                self.iteration,
                actor,
                training,
                state,
                save_simulators,
            )
        self._saved_iteration = self.iteration
        self._set_status(checkpoint=str(path), message="")
        self.control.saved(path)

    def _save_if_asked(self) -> None:
        if self.control.take_save_request():
            self._save_or_warn()

    def _save_or_warn(self, with_simulators: bool = True) -> None:
        """A full disk costs a checkpoint, not the run."""
        try:
            self._save(with_simulators)
        except WorkerTimeout:  # an OSError by descent
            raise
        except OSError as error:
            text = f"no checkpoint at iteration {self.iteration}: {error}; free some space"
            self._set_status(message=text)
            warn(text)

    def _set_status(
        self,
        state: RunState | None = None,
        rate: float | None = None,
        reward: float | None = None,
        remaining_s: float | None = None,
        **others: Any,
    ) -> None:
        total_s = max(self._clock() - self._started_s, 1e-9)
        seconds = self._stopwatch.seconds
        ended = (state or self.control.status.state) in _ENDED
        changes = {
            "state": state,
            "env_steps_per_s": rate,
            "reward": reward,
            "remaining_s": remaining_s,
        }
        self.control.status = replace(
            self.control.status,
            run_id=self.folder.name,
            iteration=self.iteration,
            iterations=self.config.training.iterations,
            env_steps=self.env_steps,
            policy_version=self.iteration,
            episodes=self.episodes.count,
            success=self.episodes.success,
            adr_level=self.adr.difficulty,
            rollout_fraction=seconds.get("rollout", 0.0) / total_s,
            update_fraction=seconds.get("update", 0.0) / total_s,
            schema_hash=self.schema_hash,
            num_workers=self.pool.num_workers,
            # a run fails as soon as one is lost, and none is left when it has ended
            workers_alive=0 if ended else self.pool.num_workers,
            **{key: value for key, value in changes.items() if value is not None},
            **others,
        )

    def _summary(self) -> RunSummary:
        return RunSummary(
            iterations=self.iteration,
            env_steps=self.env_steps,
            workers=self.pool.num_workers,
            transport=self.config.simulators.transport,
            slot_mismatches=self.pool.slot_mismatches,
            success=self.episodes.success,
            evaluation_success=self._evaluation_success,
            checkpoint=self.control.status.checkpoint,
            run_dir=str(self.folder),
            seconds={name: round(value, 3) for name, value in self._stopwatch.seconds.items()},
        )


def pool_spec(
    config: RunConfig, folder: Path | None, groups: tuple[str, ...], run_id: str = ""
) -> PoolSpec:
    """The simulators that a run config asks for, writing the given observation groups.

    Their logs go to the run folder; without one they vanish with the run.
    """
    simulators = config.simulators
    return PoolSpec(
        kind="grasp",
        config=to_dict(config.task),
        groups=groups,
        horizon=config.training.horizon,
        num_envs=simulators.num_envs,
        num_workers=simulators.num_workers,
        threads_per_worker=simulators.threads_per_worker,
        seed=config.seed,
        transport=simulators.transport,
        sim_python=simulators.python,
        log_dir=folder / "logs" if folder else None,
        timeout_s=simulators.timeout_s,
        spin_us=simulators.spin_us,
        run_id=run_id,
    )
