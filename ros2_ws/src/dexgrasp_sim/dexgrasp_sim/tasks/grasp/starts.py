"""Where object and robot are when an episode begins."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.control.decoder import Decoder
from dexgrasp_sim.robot.urdf import RobotModel
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.randomization import Start, draw_start, tilted

CLEARANCE_M = 0.002
"""An object starts this far above the table, so that it does not start in contact."""
_HALVINGS = 6

Generators = Callable[[int, str], np.random.Generator]
"""Gives an environment's generator for a purpose: `spawn` or `start`."""


class Starts(NamedTuple):
    """The starts of K episodes.

    Attributes:
        object_pose: [K, 7] xyz m and quaternion wxyz, base frame.
        joint_position: [K, 23] rad.
        joint_velocity: [K, 23] rad/s; None: at rest.
    """

    object_pose: Tensor
    joint_position: Tensor
    joint_velocity: Tensor | None


class EpisodeStarts:
    """Draws the starts of episodes of N environments.

    Attributes:
        rest_height: [N] m, of the objects' centres above the table when they stand on it.
    """

    def __init__(self, config: GraspConfig, robot: RobotModel, objects: np.ndarray) -> None:
        """Args:
        config: The task.
        robot: For its joint limits.
        objects: [N], index into `config.objects` of each environment.

        Raises:
            ConfigError: `spawn.height_m` has an object in the table, or an object at rest or at
                its start is outside the workspace or not below the goal.
        """
        self._config = config
        chosen = [config.objects[index] for index in objects]
        self.rest_height = torch.tensor([item.solid.rest_height_m for item in chosen])
        extents = torch.tensor([item.extents_m for item in chosen])
        self._half_diagonal = torch.linalg.norm(extents, dim=1) / 2
        limits = np.array([robot.lower, robot.upper])
        self._lower, self._upper = torch.from_numpy(limits).float()
        self._center_height = self._center_heights()
        self._check_heights()

    def draw(
        self, ids: Tensor, difficulty: float, generator: Generators, decoder: Decoder
    ) -> Starts:
        """Draws the starts of environments [K].

        A posture that the decoder refuses, such as one in an obstacle, is moved half the way
        back to the start posture until it is taken, its velocity shrinking with it.

        Args:
            ids: [K] int64.
            difficulty: Where the schedules stand.
            generator: Randomness of each environment.
            decoder: Says where the robot starts and may start.
        """
        starts = [self._draw(env, difficulty, generator) for env in ids.tolist()]
        pose = self._object_pose(ids, starts, generator)
        posture = decoder.start_position.expand(len(ids), -1)
        if not self._config.randomization.changes_starts:
            return Starts(pose, posture, None)
        offset = torch.stack([start.joint_offset for start in starts])
        velocity = torch.stack([start.joint_velocity for start in starts])
        share = torch.ones(len(ids), 1)
        for attempt in range(_HALVINGS + 1):
            moved = (posture + share * offset).clamp(self._lower, self._upper)
            refused = ~decoder.can_start(moved)
            if not refused.any():
                break
            share[refused] *= 0.5 if attempt < _HALVINGS else 0.0
        return Starts(pose, torch.where(share > 0.0, moved, posture), share * velocity)

    def _draw(self, env: int, difficulty: float, generator: Generators) -> Start:
        config = self._config.randomization
        if not config.changes_starts:
            return Start()
        return draw_start(config, difficulty, generator(env, "start"), len(self._lower))

    def _object_pose(self, ids: Tensor, starts: list[Start], generator: Generators) -> Tensor:
        spawn = self._config.spawn
        pose = torch.zeros(len(ids), 7)
        for row, (env, start) in enumerate(zip(ids.tolist(), starts, strict=True)):
            x, y, yaw = generator(env, "spawn").uniform(-1.0, 1.0, 3)
            pose[row, 0] = spawn.center_m[0] + start.width_scale * spawn.half_width_m[0] * x
            pose[row, 1] = spawn.center_m[1] + start.width_scale * spawn.half_width_m[1] * y
            half_yaw = start.yaw_scale * spawn.yaw_rad * yaw / 2
            upright = (np.cos(half_yaw), 0.0, 0.0, np.sin(half_yaw))
            pose[row, 3:] = torch.from_numpy(tilted(upright, start.tilt_rad))
        pose[:, 2] = self._center_height[ids]
        return pose

    def _center_heights(self) -> Tensor:
        """[N] m, base frame, of the objects' centres at the start."""
        config, count = self._config, len(self.rest_height)
        height = self.rest_height
        if not config.randomization.spawn_tilt_rad.is_always(0.0):
            height = self._half_diagonal  # in any attitude clear of the table
        lowest = torch.tensor(config.table.top_m) + height + CLEARANCE_M
        if config.spawn.height_m is None:
            return lowest
        if lowest.max() > config.spawn.height_m:
            raise ConfigError(
                f"task.spawn.height_m {config.spawn.height_m} has an object in the table; "
                f"raise it to {lowest.max():.3f} m or leave it out"
            )
        return torch.full((count,), config.spawn.height_m)

    def _check_heights(self) -> None:
        """Episodes must neither end as they begin nor have a goal that lies in the table."""
        config, rest = self._config, self._config.table.top_m + self.rest_height
        lower_m, upper_m = (corner[2] for corner in config.workspace)
        lowest_m, highest_m = float(rest.min()), float(self._center_height.max())
        if lowest_m < lower_m or highest_m > upper_m:
            raise ConfigError(
                f"task: objects rest as low as {lowest_m:.3f} m and start as high as "
                f"{highest_m:.3f} m, outside the workspace from {lower_m:g} to {upper_m:g} m; "
                "widen `workspace_box_m` or change `spawn.height_m`"
            )
        if config.goal_m is not None and config.goal_m[2] <= rest.max():
            raise ConfigError(
                f"task.goal_m {config.goal_m} is not above {float(rest.max()):.3f} m, where an "
                "object's centre is when it stands on the table; raise it"
            )
