"""Position error of the fabric at goals of a pinching palm, as a table."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.fabric.decoder import FabricDecoder
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.robot.rotation import zyx_euler_to_matrix
from dexgrasp_sim.tasks.grasp.scripted.pinch import PALM_PITCH_RAD, find_pinches

ROLLS_RAD = tuple(math.radians(angle) for angle in (-20.0, 0.0, 20.0))
"""Candidate turns about the palm's own x axis; they keep the pinch horizontal."""

_X_M = (-0.80, -0.60, -0.45, -0.30)
_Y_M = (-0.30, -0.10, 0.10, 0.30, 0.50)
_YAW_STEPS = 5
_PINCH_M, _HEIGHT_ABOVE_TABLE_M = 0.09, 0.04
_TIME_S, _DT_S = 2.0, 1.0 / 60.0


class ReachMap(NamedTuple):
    """Position errors at the points of a grid, interpolated between them.

    Attributes:
        axes: Rising coordinates of the grid: x and y in m, base frame, yaw in rad.
        error_m: [X, Y, W, R], by x, y, yaw and roll (`ROLLS_RAD`).
    """

    axes: tuple[Tensor, Tensor, Tensor]
    error_m: Tensor

    def at(self, x_m: Tensor, y_m: Tensor, yaw_rad: Tensor) -> Tensor:
        """Errors [..., R] at coordinates [...], clamped to the grid."""
        cells = [_cell(value, axis) for value, axis in zip((x_m, y_m, yaw_rad), self.axes)]
        total = torch.zeros(*x_m.shape, self.error_m.shape[-1])
        for corner in range(8):
            upper = [bool(corner >> axis & 1) for axis in range(3)]
            x, y, yaw = (left + side for (left, _), side in zip(cells, upper))
            weight = torch.ones_like(x_m)
            for (_, share), side in zip(cells, upper):
                weight = weight * (share if side else 1.0 - share)
            total += weight[..., None] * self.error_m[x, y, yaw]
        return total


def _cell(value: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the grid point below and the fraction of the way to the next, both [...]."""
    inside = value.clamp(float(axis[0]), float(axis[-1]))
    left = (torch.bucketize(inside, axis) - 1).clamp(0, len(axis) - 2)
    return left, (inside - axis[left]) / (axis[left + 1] - axis[left])


@cache
def explore(config: FabricConfig, robot: Robot, table: Obstacle) -> ReachMap:
    """Moves a batch of palms from the start posture to all points of the grid.

    Args:
        config: The fabric.
        robot: The robot.
        table: The pinch is 4 cm above it.
    """
    ranges = config.ranges(robot)
    first_yaw, last_yaw = ranges.low[3], ranges.high[3]
    axes = (
        torch.tensor(_X_M),
        torch.tensor(_Y_M),
        torch.linspace(first_yaw, last_yaw, _YAW_STEPS),
    )
    grid = torch.stack(torch.meshgrid(*axes, torch.tensor(ROLLS_RAD), indexing="ij"), -1)
    points = grid.view(-1, 4)  # [P, 4]: x, y, yaw, roll
    count = len(points)
    components, center = find_pinches(config, robot).at(torch.full((count,), _PINCH_M))
    euler = torch.stack(
        (points[:, 2], torch.full((count,), PALM_PITCH_RAD), math.pi + points[:, 3]), 1
    )
    top_m = table.center_m[2] + table.size_m[2] / 2
    above = torch.full((count, 1), top_m + _HEIGHT_ABOVE_TABLE_M)
    pinch = torch.cat((points[:, :2], above), 1)  # [P, 3]
    palm = pinch - (zyx_euler_to_matrix(euler) @ center[..., None]).squeeze(-1)  # [P, 3]
    decoder = FabricDecoder(config, robot, count, _DT_S, table)
    actions = decoder.actions_for(torch.cat((palm, euler, components), 1))
    for _ in range(round(_TIME_S / _DT_S)):
        decoder.decode(actions)
    reached = Kinematics(robot, [robot.palm]).forward(decoder.target).position[:, 0]
    return ReachMap(axes, torch.linalg.norm(reached - palm, dim=1).view(grid.shape[:-1]))
