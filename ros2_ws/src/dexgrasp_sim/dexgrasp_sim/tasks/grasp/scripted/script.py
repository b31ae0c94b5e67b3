"""The choice of a scripted policy by the action space."""

from typing import Protocol

from torch import Tensor

from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.scripted.fabric_script import FabricScriptedPolicy
from dexgrasp_sim.tasks.grasp.scripted.velocity_script import ScriptedPolicy


class Script(Protocol):
    """A policy that reads the simulation instead of observations."""

    def act(self) -> Tensor:
        """Actions [N, action_dim] for the current state of the environments."""
        ...


def make_script(env: GraspEnv) -> Script:
    """The scripted policy for the environments' action space."""
    if isinstance(env.config.action, FabricConfig):
        return FabricScriptedPolicy(env)
    return ScriptedPolicy(env)
