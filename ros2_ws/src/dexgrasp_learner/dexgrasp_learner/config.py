"""Configuration of a training run: the task, the simulators, the networks and the update."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_learner.algorithms.config import DistillationConfig, PpoConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.run.config import AdrConfig, TrainingConfig
from dexgrasp_sim.config import STRICT, load_config
from dexgrasp_sim.tasks.grasp.config import GraspConfig


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """A training run. Every key has a default here; a YAML file holds what differs.

    Attributes:
        name: Run folders start with it; short and without slashes.
        seed: All random draws of the run come from generators that this seeds.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")] = "run"
    seed: Annotated[int, Field(ge=0)] = 0
    task: GraspConfig = GraspConfig()
    simulators: SimulatorsConfig = SimulatorsConfig()
    network: NetworkConfig = NetworkConfig()
    ppo: PpoConfig = PpoConfig()
    distillation: DistillationConfig = DistillationConfig()
    training: TrainingConfig = TrainingConfig()
    adr: AdrConfig = AdrConfig()

    @property
    def groups(self) -> tuple[str, ...]:
        """Observation groups that the simulators must write: the nets' inputs and targets."""
        network = self.network
        auxiliary = (network.auxiliary_group,) if network.auxiliary_group else ()
        return tuple(dict.fromkeys((*network.actor_groups, *network.critic_groups, *auxiliary)))

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """Nearest and farthest valid depth of the camera, which the nets scale depth by."""
        return self.task.camera.near_m, self.task.camera.far_m


def load_run_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Reads a run's config; arguments and errors as for `dexgrasp_sim.config.load_config`."""
    return load_config(RunConfig, path, overrides)
