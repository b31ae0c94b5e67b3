"""What became of one fault, and whether every command was within the robot's limits."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexgrasp_learner.commands.export import write_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import observation_spec

_ROUNDING_RAD = 1e-6
_ROUNDING_RAD_S = 1e-3
_STEPS = 20


@dataclass(frozen=True)
class Outcome:
    """How the deployment took a fault.

    Attributes:
        fault: Its name.
        where: `core` (control loop on mock devices, time is simulated), `node` (policy node and a
            robot over DDS) or `twin` (all nodes of the simulated robot).
        handled: Whether the reaction was one of those that are right.
        reaction: What was done, in the words of the robot's status.
        reaction_s: Time from the fault to the reaction; None where the robot rightly went on.
        commands: How many were sent.
        out_of_limits: How many of them were not within the robot's limits.
    """

    fault: str
    where: str
    handled: bool
    reaction: str
    reaction_s: float | None
    commands: int
    out_of_limits: int

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


class CommandCount:
    """Counts commands, and those that are not within the limits.

    Attributes:
        commands: All.
        out_of_limits: Not finite, not of every joint, beyond a position limit, or faster than the
            velocity limit.
    """

    def __init__(self, robot: Robot, period_s: float | None = None) -> None:
        """Args:
        robot: The robot.
        period_s: Time between two commands; None: their speed is not judged.
        """
        self._robot, self._period_s = robot, period_s
        self._last: np.ndarray | None = None
        self.commands = self.out_of_limits = 0

    def add(self, positions: Mapping[str, float]) -> None:
        """Adds a command, rad by joint name."""
        robot = self._robot
        self.commands += 1
        if set(positions) != set(robot.joint_names):
            self.out_of_limits += 1
            return
        now = np.array([positions[name] for name in robot.joint_names])
        fits = np.isfinite(now).all() and bool(
            (now >= robot.lower - _ROUNDING_RAD).all()
            and (now <= robot.upper + _ROUNDING_RAD).all()
        )
        if self._last is not None and self._period_s is not None:
            speed = np.abs(now - self._last) / self._period_s
            fits = fits and bool((speed <= robot.velocity_limit + _ROUNDING_RAD_S).all())
        self.out_of_limits += not fits
        self._last = now

    def forget(self) -> None:
        """The next command begins anew: the robot was released and moved meanwhile."""
        self._last = None


def write_small_bundle(folder: Path, control_hz: float, episode_s: float) -> Path:
    """A small random policy that reads depth and remembers; returns its folder."""
    network = NetworkConfig(
        actor_groups=("proprio", "depth"),
        memory="lstm",
        memory_size=64,
        hidden=(64,),
        fused_size=64,
        auxiliary_group="object",
    )
    task = GraspConfig(episode_s=episode_s, control_hz=control_hz)
    config = RunConfig(network=network, task=task)
    specs = {name: observation_spec(task, name) for name in (*config.groups, "object")}
    actor = build_actor(network, specs, len(task.action_names), seed=5, view=config.table_view)
    generator = torch.Generator().manual_seed(0)
    depth = torch.randint(0, 900, (_STEPS, *specs["depth"].shape), generator=generator)
    recorded = {
        "proprio": torch.randn(_STEPS, *specs["proprio"].shape, generator=generator),
        "depth": depth.short(),
    }
    write_bundle(folder, actor.eval(), specs, config, recorded)
    return folder
