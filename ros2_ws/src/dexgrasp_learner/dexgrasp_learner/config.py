"""Configuration of a training run: the task, the simulators, the networks and the update."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_learner.algorithms.config import DistillationConfig, PpoConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.run.config import AdrConfig, TrainingConfig
from dexgrasp_sim.config import STRICT, ConfigError, Seed, load_config
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import all_specs
from dexgrasp_sim.vision.table_view import TableView


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """A training run. Every key has a default here; a YAML file holds what differs.

    Attributes:
        name: Run folders start with it; short and without slashes.
        seed: All random draws of the run come from generators that this seeds.
        task: The task of the policy and its simulation.
        simulators: Worker processes, their devices, and how tensors get to the learner.
        network: Inputs and sizes of actor and critic.
        ppo: The update of `dexgrasp train`.
        distillation: The update of `dexgrasp distill`.
        training: Length of the run, its checkpoints and evaluations.
        adr: When the task gets harder.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")] = "run"
    seed: Seed = 0
    task: GraspConfig = GraspConfig()
    simulators: SimulatorsConfig = SimulatorsConfig()
    network: NetworkConfig = NetworkConfig()
    ppo: PpoConfig = PpoConfig()
    distillation: DistillationConfig = DistillationConfig()
    training: TrainingConfig = TrainingConfig()
    adr: AdrConfig = AdrConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        specs = all_specs(self.task)
        if any(len(specs[name].shape) > 1 for name in self.groups if name in specs):
            self.task.check_view()
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """Observation groups that the simulators must write: the nets' inputs and targets."""
        network = self.network
        auxiliary = (network.auxiliary_group,) if network.auxiliary_group else ()
        return tuple(dict.fromkeys((*network.actor_groups, *network.critic_groups, *auxiliary)))

    @property
    def table_view(self) -> TableView:
        """What the camera sees of the empty table, which the nets compare depth images with."""
        return TableView(self.task.camera, self.task.table.top_m)


def load_run_config(path: str | Path, overrides: Sequence[str] | None = None) -> RunConfig:
    """Reads a run's config; arguments and errors as for `dexgrasp_sim.config.load_config`."""
    return load_config(RunConfig, path, overrides)


def task_of(path: str | Path | None, overrides: Sequence[str]) -> GraspConfig:
    """The task of a run's config, or the default one where `path` is None.

    Raises:
        ConfigError: As for `load_run_config`, or there are overrides without a file.
    """
    if path:
        return load_run_config(path, overrides).task
    if overrides:
        raise ConfigError(f"--set {overrides[0]}: changes a value of --config; give one")
    return RunConfig().task
