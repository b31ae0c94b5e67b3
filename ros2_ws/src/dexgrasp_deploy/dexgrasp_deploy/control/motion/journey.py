"""The motions between episodes: home, and putting down what the hand holds.

Before the first of them, the self-test of all joints where it is wanted.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.motion.commander import Commander, Traveller
from dexgrasp_deploy.control.motion.joint_check import JointCheck
from dexgrasp_deploy.control.motion.way import Planning, Way, WayPlanner, at_steps
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_sim.robot.robot import Robot

Vector = NDArray[np.float64]

_NEAR_RAD = 0.01
"""Nearer than this no way is needed."""
_SETTLE_S = 0.5
"""After this at the end of a way, fingers that are not there are kept by something."""
_PLANNING_STEPS = 64
_PLANNING_SHARE = 0.7
"""Most steps of planning in a period, and most of the period for it."""


class Journey:
    """Plans a way, holding the robot meanwhile, and follows it; one at a time.

    In shadow, where nothing is sent, every way is at its end.
    """

    def __init__(
        self,
        planner: WayPlanner,
        commander: Commander,
        robot: Robot,
        config: ControlConfig,
        period_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Args:
        planner: Plans.
        commander: Commands.
        robot: The robot.
        config: Speed, tolerance and time-out.
        period_s: Control period.
        clock: Monotonic seconds.
        """
        self._planner, self._commander, self._robot = planner, commander, robot
        self._config, self._period_s, self._clock = config, period_s, clock
        self._check = JointCheck(robot, commander)
        self._planning: Planning | None = None
        self._traveller: Traveller | None = None
        self._goal: Vector = commander.position
        self._then: Vector = self._goal
        self._opens = self._wide = self._tried = False
        self._begun_s, self._checks = 0.0, False

    def home(self, goal: Vector, table_m: float, now_s: float) -> None:
        """Begins the way to a posture [J] rad, up first where the palm is low above the table.

        Raises:
            UnfitInput: The robot has no fabric to plan with, or stands in an obstacle.
        """
        if self._commander.shadow:
            return
        start, life = self._commander.position, self._config.life
        planning = None
        if np.abs(start - goal).max() > _NEAR_RAD:
            low = self._planner.palm_height(start) - table_m < life.low_m
            planning = self._planner.home(start, goal, life.lift_m if low else 0.0)
        self._begin(planning, goal, False, now_s)

    def put_down(self, trail: Vector, open_hand: Vector, now_s: float) -> None:
        """Begins to go back along commands [T, J] rad, one in each period, newest first, and then
        to open the hand as in [J] rad; errors as `home`.
        """
        if self._commander.shadow:
            return
        start = self._commander.position
        path = start[np.newaxis]
        if len(trail):
            path = at_steps(np.vstack((start, trail)), self._period_s)
            path[:, self._robot.hand] = start[self._robot.hand]
        planning = self._planner.back_and_open(path, open_hand)
        self._begin(planning, start, True, now_s)

    def advance(self, measured: Measurement, now_s: float) -> bool:
        """One period; returns whether the robot stands at the end of the way.

        Raises:
            UnfitInput: No way is free, the robot does not get on, a joint fails the self-test, or
                as `Commander.command`.
        """
        if self._commander.shadow:
            return True
        if self._checks:
            self._checks = not self._check.advance(measured, now_s)
            self._begun_s = now_s
            return False
        if self._planning is not None:
            self._commander.hold(measured, now_s)
            self._plan(now_s)
            return False
        commander, traveller = self._commander, self._traveller
        if traveller is None:
            target, ended, waits_s = self._goal, True, now_s - self._begun_s
        else:
            scale = commander.safety.speed_scale
            position, arm = commander.position, self._robot.arm
            target = traveller.target(measured.position, position, arm, scale, now_s)
            ended, waits_s = traveller.ended, traveller.waits_s(now_s)
        commander.command(target, measured, now_s)
        error = np.abs(measured.position - self._goal)
        off = error > self._config.approach_tolerance_rad  # [J]
        if ended and not off[self._robot.arm].any():
            if not off.any() and not self._wide:
                return True
            if waits_s > _SETTLE_S and (self._wide or not self._tried):
                return self._let_go(measured.position, off, now_s)
        if waits_s > self._config.approach_timeout_s:
            joint = int(error.argmax())
            message = f"{self._robot.joint_names[joint]} is {error[joint]:.2f} rad from where it "
            raise UnfitInput(Reason.MOTION_TIMEOUT, f"{message}must go")
        return False

    def _let_go(self, measured: Vector, off: NDArray[np.bool_], now_s: float) -> bool:
        """Frees fingers that something keeps from where they must go: what sticks between them.

        First they go as far to the other side, once in a journey; then on to where they must, or,
        where something is put down, not yet: the palm goes away first. Returns whether this ends
        the journey.
        """
        if not self._wide:
            self._tried = self._wide = True
            self._then, beyond = self._goal, 2 * measured - self._goal
            wide = np.where(off, np.clip(beyond, self._robot.lower, self._robot.upper), self._goal)
            self._travel(np.stack((self._commander.position, wide)), now_s)
            return False
        self._wide = False
        if not self._opens:
            self._travel(np.stack((self._commander.position, self._then)), now_s)
        return self._opens

    def _travel(self, path: Vector, now_s: float) -> None:
        """Follows a path [T, J] rad at the planner's steps, no faster than is allowed."""
        speed = self._config.approach_speed * self._robot.velocity_limit
        self._traveller = Traveller(Way(path), speed, now_s)
        self._goal = path[-1]

    def _begin(self, planning: Planning | None, goal: Vector, opens: bool, now_s: float) -> None:
        self._planning, self._traveller = planning, None
        self._goal, self._opens, self._begun_s = goal, opens, now_s
        self._wide = self._tried = False
        self._checks = self._config.life.self_test and not self._check.passed
        if self._checks:
            self._check.begin(now_s)

    def _plan(self, now_s: float) -> None:
        """Plans for a part of the period."""
        planning = self._planning
        assert planning is not None
        for _ in range(_PLANNING_STEPS):
            planning.advance(1)
            if planning.finished or self._clock() - now_s > _PLANNING_SHARE * self._period_s:
                break
        if planning.failure:
            raise UnfitInput(Reason.NO_WAY, planning.failure)
        if planning.way is not None:
            self._planning = None
            self._travel(planning.way.path, now_s)
