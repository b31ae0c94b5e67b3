"""Ways of the robot to a posture or a palm pose, planned before anything moves.

A way is driven by the geometric fabric that policies act through, with the same limits of joints
and the same obstacles, so that it bends around them: the fabric is run ahead in memory, and the
robot moves only when it has arrived there without touching anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.motion.clearance import Clearances
from dexgrasp_sim.control.fabric.fabric import Fabric, FabricGains, Goal
from dexgrasp_sim.control.fabric.motion_limits import MotionLimits
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.control.fabric.terms import AttractorGains
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import FabricSpec, Robot

Vector = NDArray[np.float64]

_DT_S = 1 / 60
_DAMPING_PER_S = 10.0
_MARGIN_M = 0.001
_MAX_INSIDE_M = 0.03
"""A start this deep in an obstacle is not one that the robot can have reached."""
_LEG_S = 5.0
_STUCK_RAD_S, _STUCK_STEPS = 1e-3, 20
"""A robot that is slower than this for so many steps goes no further."""
_ARRIVED_RAD, _NEAR_RAD, _ARRIVED_M = 0.01, 0.15, 0.005
_STILL_RAD_S = 0.05
_SMOOTH_STEPS = 10
_NO_PULL = AttractorGains(metric=1e-6)
_PALM_ONLY = FabricGains()
_JOINTS_ONLY = FabricGains(palm=_NO_PULL, hand=_NO_PULL)


@dataclass(frozen=True, eq=False)
class Leg:
    """A part of a way: to a joint position, straight up with the palm, or along a given path.

    Attributes:
        joints: [J] rad, where to; None: `rise_m` says it.
        rise_m: How far the palm moves up, keeping its orientation; the hand stays as it is.
        passes: The next leg may begin when this one's goal is near.
        path: [T, J] rad, at the planner's steps, which the robot has been on before.
    """

    joints: Vector | None = None
    rise_m: float = 0.0
    passes: bool = False
    path: Vector | None = None


@dataclass(frozen=True, eq=False)
class Way:
    """Joint positions along a way, at equal steps of the planner's time.

    Attributes:
        path: [T, J] rad.
        step_s: Duration of a step at full speed.
    """

    path: Vector
    step_s: float = _DT_S

    @property
    def duration_s(self) -> float:
        """At full speed."""
        return (len(self.path) - 1) * self.step_s

    def at(self, time_s: float) -> Vector:
        """[J] rad at a time of the planner, between its beginning and its end."""
        place = min(max(time_s / self.step_s, 0.0), len(self.path) - 1.0)
        first = min(int(place), max(len(self.path) - 2, 0))
        rest = place - first
        return (1 - rest) * self.path[first] + rest * self.path[min(first + 1, len(self.path) - 1)]

    def rates(self, velocity_limit: Vector) -> Vector:
        """How fast the planner's time may pass in each step, at most 1, to stay below [J] rad/s.

        [max(1, T - 1)]. The rate changes over a third of a second, so that joints need not brake
        hard; it is a mean of values none of which is above what its own step allows.
        """
        if len(self.path) < 2:
            return np.ones(1)
        speed = np.abs(np.diff(self.path, axis=0)) / self.step_s  # [T - 1, J]
        allowed = 1.0 / np.maximum(1.0, (speed / velocity_limit).max(axis=1))
        least = _windows(allowed).min(axis=1)
        return _windows(least).mean(axis=1)


def at_steps(path: Vector, period_s: float) -> Vector:
    """A path [T, J] with one position in each period, at the planner's steps instead."""
    times_s = period_s * np.arange(len(path))
    at_s = np.append(np.arange(0.0, times_s[-1], _DT_S), times_s[-1])
    return np.stack([np.interp(at_s, times_s, column) for column in path.T], axis=1)


def _windows(values: Vector) -> Vector:
    """[T, 2 * _SMOOTH_STEPS + 1], the values around each; beyond the ends, those at the ends."""
    padded = np.pad(values, _SMOOTH_STEPS, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * _SMOOTH_STEPS + 1)


class WayPlanner:
    """Plans ways of one robot in one cell."""

    def __init__(
        self, robot: Robot, obstacles: tuple[Obstacle, ...], clearances: Clearances
    ) -> None:
        """Args:
        robot: The robot.
        obstacles: What the fabric keeps off, the table first.
        clearances: What a way must keep to besides.
        """
        self._robot, self._obstacles, self._clearances = robot, obstacles, clearances
        self._palm = Kinematics(robot, [robot.palm])
        self._postures = [np.array(posture) for posture in robot.postures.values()]

    def home(self, start: Vector, home: Vector, lift_m: float) -> "Planning":
        """The way home: first up by `lift_m` where the palm is low, then to the posture.

        Where the direct way is not free, it leads over another posture of the robot.
        """
        legs = [Leg(rise_m=lift_m)] if lift_m > 0 else []
        inside = self.hindrance(np.stack((start, home)))
        if inside:
            return Planning(self, start, [], failure=f"no way is free: it would end in {inside}")
        direct = (*legs, Leg(home))
        around = [(*legs, Leg(via, passes=True), Leg(home)) for via in self._postures]
        return Planning(self, start, [direct, *around])

    def back_and_open(self, path: Vector, open_hand: Vector) -> "Planning":
        """The way to put something down: back to where it was grasped, then the hand opens.

        Straight down is not always possible: an arm that has carried something to where its elbow
        is folded cannot go down there. On the way that it came nothing is hit.

        Args:
            path: [T, J] rad at the planner's steps, where the robot stands first; if nothing
                leads back, only that.
            open_hand: [J] rad; only its hand is used.
        """
        opened = Leg(open_hand)
        ways = [(Leg(path=path), opened)] if len(path) > 1 else []
        return Planning(self, path[0], [*ways, (opened,)], opens_hand=True)

    def palm_height(self, position: Vector) -> float:
        """Height of the palm's frame in m at [J] rad, base frame."""
        return float(self._palm.forward(_tensor(position)).position[0, 0, 2])

    def fabric(self, start: Vector, gains: FabricGains, posture: Vector) -> Fabric:
        """The fabric for a start [J] rad.

        Raises:
            UnfitInput: The robot has no fabric, or stands deep in an obstacle.
        """
        spec = self._robot.fabric
        if spec is None:
            raise UnfitInput(
                Reason.NO_WAY,
                f"{self._robot.path} has no `fabric`, which ways are planned with; move the robot "
                "to its start posture by hand, or add it",
            )
        fabric = self._fabric(spec, gains, posture, self._obstacles)
        gaps = fabric.gaps(_tensor(start))[0].tolist()
        inside = [max(0.0, _MARGIN_M - gap) for gap in gaps]
        if max(inside, default=0.0) == 0.0:
            return fabric
        shrunk = [_shrunk(box, depth) for box, depth in zip(self._obstacles, inside, strict=True)]
        fabric, worst = self._fabric(spec, gains, posture, tuple(shrunk)), int(np.argmax(inside))
        if inside[worst] > _MAX_INSIDE_M or fabric.gaps(_tensor(start)).min() < 0:
            raise UnfitInput(
                Reason.IN_OBSTACLE,
                f"the robot stands {1e3 * inside[worst]:.0f} mm or more inside "
                f"{self._obstacles[worst].name!r}; move it out by hand, or correct the obstacle",
            )
        return fabric

    def _fabric(
        self,
        spec: FabricSpec,
        gains: FabricGains,
        posture: Vector,
        obstacles: tuple[Obstacle, ...],
    ) -> Fabric:
        robot = self._robot
        limits = MotionLimits(
            *(
                torch.as_tensor(values).float()
                for values in (
                    robot.lower,
                    robot.upper,
                    robot.velocity_limit,
                    robot.max_acceleration,
                    robot.max_jerk,
                )
            ),
            dt_s=_DT_S,
        )
        at = torch.from_numpy(posture).float()
        return Fabric(gains, robot, spec, at, obstacles, _MARGIN_M, limits)

    def goal(self, fabric: Fabric, leg: Leg, start: Vector) -> tuple[Goal, Tensor]:
        """The fabric's goal of a leg that begins at [J] rad, and the palm's place [3] m in it."""
        robot, spec = self._robot, self._robot.fabric
        assert spec is not None
        palm = self._palm.forward(_tensor(start))
        place = palm.position[:, 0] + torch.tensor([0.0, 0.0, leg.rise_m])
        joints = None if leg.joints is None else _tensor(leg.joints)
        hand = _tensor(start)[:, robot.hand] @ spec.hand_pca.axes.float().mT
        points = fabric.palm_points(place, palm.rotation[:, 0])
        return Goal(points, hand, torch.tensor([_DAMPING_PER_S]), joints), place[0]

    def arrived(self, leg: Leg, place: Tensor, q: Tensor, qd: Tensor) -> bool:
        """Whether a leg ends at [1, J] rad and rad/s."""
        still = qd.abs().max().item() < _STILL_RAD_S
        if leg.joints is None:
            palm = self._palm.forward(q).position[0, 0]
            return bool((palm - place).norm() < _ARRIVED_M) and still
        error = float((q - _tensor(leg.joints)).abs().max())
        return error < _NEAR_RAD if leg.passes else error < _ARRIVED_RAD and still

    def hindrance(self, path: Vector) -> str:
        """What a path [T, J] touches that it did not touch at its beginning; "" for nothing."""
        values = self._clearances.of(path)
        if not values.shape[1]:
            return ""
        lack = np.minimum(0.0, values[0]) - values  # [T, C]
        worst = int(lack.max(axis=0).argmax())
        return self._clearances.names[worst] if lack[:, worst].max() > 1e-6 else ""

    @property
    def hand(self) -> slice:
        """The hand's joints in [J]."""
        return self._robot.hand


class Planning:
    """A way that is being planned a few steps at a time, so that the robot is held meanwhile.

    Attributes:
        way: The way, once found.
        failure: Why there is none, once all alternatives have failed; "" before.
    """

    def __init__(
        self,
        planner: WayPlanner,
        start: Vector,
        alternatives: Sequence[Sequence[Leg]],
        opens_hand: bool = False,
        failure: str = "",
    ) -> None:
        """Args:
        planner: The planner.
        start: [J] rad, where the robot stands.
        alternatives: Legs of possible ways; the first that is free is taken.
        opens_hand: A leg to joints moves the hand only.
        failure: Why none needs to be tried.
        """
        self._planner, self._start = planner, np.array(start, dtype=np.float64)
        self._alternatives, self._opens_hand = list(alternatives), opens_hand
        self.way: Way | None = None
        self.failure = failure
        if not failure:
            self._begin_way()

    @property
    def finished(self) -> bool:
        """Whether there is a way, or none can be found."""
        return self.way is not None or bool(self.failure)

    def advance(self, steps: int) -> None:
        """Plans on for some steps of the fabric, of about 1.5 ms computing time each."""
        for _ in range(steps):
            if self.finished:
                return
            self._step()

    def _begin_way(self) -> None:
        self._legs = list(self._alternatives.pop(0))
        self._path = [self._start]
        self._qd = torch.zeros(1, len(self._start))
        self._begin_leg()

    def _begin_leg(self) -> None:
        leg, start = self._legs[0], self._path[-1]
        if leg.path is not None:
            self._path += list(leg.path[1:])
            self._end_leg()
            return
        if leg.joints is not None and self._opens_hand:
            goal = start.copy()
            goal[self._planner.hand] = leg.joints[self._planner.hand]
            leg = replace(leg, joints=goal)
        self._leg, self._leg_start, self._leg_steps = leg, start, 0
        self._still_steps = 0
        gains = _PALM_ONLY if leg.joints is None else _JOINTS_ONLY
        posture = start if leg.joints is None else leg.joints
        self._fabric = self._planner.fabric(start, gains, posture)
        self._goal, self._place = self._planner.goal(self._fabric, leg, start)

    def _step(self) -> None:
        q, self._qd = self._fabric.step(_tensor(self._path[-1]), self._qd, self._goal)
        hand = self._planner.hand
        if self._leg.joints is None:
            q[:, hand], self._qd[:, hand] = _tensor(self._leg_start)[:, hand], 0.0
        self._path.append(q[0].double().numpy())
        self._leg_steps += 1
        still = self._qd.abs().max().item() < _STUCK_RAD_S
        self._still_steps = self._still_steps + 1 if still else 0
        if self._planner.arrived(self._leg, self._place, q, self._qd):
            self._end_leg()
        elif self._leg_steps * _DT_S > _LEG_S or self._still_steps > _STUCK_STEPS:
            # a palm that cannot go straight up or down any further has done its leg
            self._end_leg() if self._leg.joints is None else self._fail("it does not arrive")

    def _end_leg(self) -> None:
        self._legs.pop(0)
        if self._legs:
            self._begin_leg()
            return
        path = np.array(self._path)
        touched = self._planner.hindrance(path)
        if touched:
            self._fail(f"it leads into {touched}")
        else:
            self.way = Way(path)

    def _fail(self, why: str) -> None:
        if self._alternatives:
            self._begin_way()
        else:
            self.failure = f"no way is free; of the last one tried, {why}"


def _shrunk(box: Obstacle, depth_m: float) -> Obstacle:
    """A box whose top is lower and whose sides are nearer to its centre by a depth."""
    if depth_m == 0.0:
        return box
    x, y, z = box.size_m
    sides = (max(x - 2 * depth_m, 1e-3), max(y - 2 * depth_m, 1e-3), z)
    return replace(box, center_m=(*box.center_m[:2], box.center_m[2] - depth_m), size_m=sides)


def _tensor(vector: Vector) -> Tensor:
    """[1, J] float32."""
    return torch.from_numpy(vector).float()[None]
