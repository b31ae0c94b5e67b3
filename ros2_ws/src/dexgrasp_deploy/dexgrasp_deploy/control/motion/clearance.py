"""Distances of the robot from what it must not touch, by forward kinematics.

The robot's body is the spheres of its file (`BodySpheres`); of a robot without them, the palm, the
grasp centre and the fingertips. They are bounds: fingertips of 12 mm radius have spheres of 20 mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_sim.control.fabric.body_points import BodyPoints
from dexgrasp_sim.control.fabric.obstacles import Obstacle, distances
from dexgrasp_sim.robot.robot import Robot

Array = NDArray[np.float64]
Vector3 = tuple[float, float, float]

_STILL_M = 1e-6
"""A sphere that moves less than this stands on the axes of all its joints."""


@dataclass(frozen=True)
class Cell:
    """What is around a robot, base frame.

    Attributes:
        obstacles: Boxes that no part of the robot enters.
        workspace: Lower and upper corner of the box that palm and fingertips stay in; None: none.
    """

    obstacles: tuple[Obstacle, ...] = ()
    workspace: tuple[Vector3, Vector3] | None = None


class Clearances:
    """C distances, each of which must not fall below zero.

    Attributes:
        names: [C], what each is between, for people.
    """

    def __init__(self, robot: Robot, cell: Cell, obstacle_gap_m: float, self_gap_m: float) -> None:
        """Args:
        robot: The robot.
        cell: What is around it.
        obstacle_gap_m: Least gap between a body sphere and an obstacle; negative: how deep a
            sphere may reach into one, since spheres are larger than the body.
        self_gap_m: The same between the hand's spheres and those of the upper arm.
        """
        self._cell, self._workspace = cell, cell.workspace
        self._obstacle_gap_m, self._self_gap_m = obstacle_gap_m, self_gap_m
        spheres, pairs = _body(robot)
        frames = (robot.palm, *robot.fingertips)
        points = [(frame, offset) for frame, offset, _ in spheres]
        points += [(frame, (0.0, 0.0, 0.0)) for frame in frames]
        self._points = BodyPoints(robot, points, dtype=torch.float64)
        radii = np.array([radius for _, _, radius in spheres])
        moving = _moving(robot, self._points, len(spheres))
        self._spheres, self._radii = moving, radii[moving]
        self._ends = slice(len(spheres), len(points))
        self._first = np.array([first for first, _ in pairs], dtype=int)
        self._second = np.array([second for _, second in pairs], dtype=int)
        self._pair_radii = radii[self._first] + radii[self._second]
        self._boxes = _boxes(cell.obstacles)
        self.names = self._names([frame for frame, _, _ in spheres], frames)

    def of(self, positions: Array) -> Array:
        """[K, C] m at joint positions [K, J] rad; NaN where a position is not finite."""
        points = self._points.positions(torch.from_numpy(np.ascontiguousarray(positions.T)))
        places = points.numpy()  # [3, P, K]
        parts = [self._to_obstacles(points), self._to_itself(places), self._to_border(places)]
        return np.concatenate(parts).T

    def worst(self, position: Array) -> tuple[float, str]:
        """The least distance at [J] rad in m, and what it is between."""
        values = self.of(position[np.newaxis])[0]
        if not len(values):
            return np.inf, ""
        index = int(values.argmin())
        return float(values[index]), self.names[index]

    def _to_obstacles(self, points: torch.Tensor) -> Array:
        if not self._cell.obstacles:
            return np.zeros((0, points.shape[2]))
        centers, half_sizes = self._boxes
        spheres = points[:, self._spheres]
        found = distances(spheres, centers.expand(-1, -1, points.shape[2]), half_sizes)
        gaps = found.numpy() - self._radii[:, np.newaxis] - self._obstacle_gap_m  # [B, S, K]
        return gaps.reshape(-1, points.shape[2])

    def _to_itself(self, places: Array) -> Array:
        apart = places[:, self._first] - places[:, self._second]
        distance = np.sqrt(np.square(apart).sum(0))
        return distance - self._pair_radii[:, np.newaxis] - self._self_gap_m

    def _to_border(self, places: Array) -> Array:
        if self._workspace is None:
            return np.zeros((0, places.shape[2]))
        ends = places[:, self._ends]  # [3, E, K]
        lower, upper = (np.array(corner)[:, np.newaxis, np.newaxis] for corner in self._workspace)
        return np.concatenate((ends - lower, upper - ends)).reshape(-1, places.shape[2])

    def _names(self, frames: Sequence[str], ends: Sequence[str]) -> list[str]:
        own = [frames[index] for index in self._spheres]
        names = [f"{frame} and {box.name}" for box in self._cell.obstacles for frame in own]
        names += [
            f"{frames[first]} and {frames[second]}"
            for first, second in zip(self._first, self._second, strict=True)
        ]
        if self._workspace is not None:
            borders = [
                f"{side} border of the workspace in {axis}"
                for side in ("lower", "upper")
                for axis in "xyz"
            ]
            names += [f"{end} and the {border}" for border in borders for end in ends]
        return names


def _body(robot: Robot) -> tuple[list[tuple[str, Vector3, float]], list[tuple[int, int]]]:
    """Frame, offset and radius of each sphere, and the pairs that must not touch."""
    if robot.fabric is None:
        return [(frame, (0.0, 0.0, 0.0), 0.0) for frame in robot.task_frames], []
    body = robot.fabric.body
    spheres = [(each.frame, each.offset_m, each.radius_m) for each in body.spheres]
    return spheres, [(hand, arm) for hand in body.hand for arm in body.upper_arm]


def _moving(robot: Robot, points: BodyPoints, count: int) -> NDArray[np.int64]:
    """Indices of the spheres that the joints move: one on the base's axis may touch the base."""
    lower, upper = np.array(robot.lower), np.array(robot.upper)
    postures = torch.from_numpy(np.stack((lower, upper, 0.3 * upper), axis=1))
    places = points.positions(postures).numpy()[:, :count]  # [3, S, 3]
    spread = np.abs(places - places[..., :1]).max(axis=(0, 2))
    return np.flatnonzero(spread > _STILL_M)


def _boxes(obstacles: Sequence[Obstacle]) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres [3, B, 1] and half sizes [3, B]."""
    boxes = np.array([(box.center_m, box.size_m) for box in obstacles]).reshape(-1, 2, 3)
    centers, sizes = torch.from_numpy(boxes).permute(1, 2, 0)
    return centers[..., None], 0.5 * sizes
