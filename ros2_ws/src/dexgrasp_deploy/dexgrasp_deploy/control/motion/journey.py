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
from dexgrasp_deploy.control.motion.way import Planning, WayPlanner
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_sim.robot.robot import Robot

Vector = NDArray[np.float64]

_NEAR_RAD = 0.01
"""Nearer than this no way is needed."""
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
        self._judged = slice(None)
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
        self._begin(planning, goal, slice(None), now_s)

    def put_down(self, down_m: float, open_hand: Vector, now_s: float) -> None:
        """Begins to lower the palm and then to open the hand as in [J] rad; errors as `home`."""
        if self._commander.shadow:
            return
        start = self._commander.position
        planning = self._planner.down_and_open(start, down_m, open_hand)
        self._begin(planning, start, self._robot.arm, now_s)

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
        error = np.abs(measured.position - self._goal)[self._judged]
        if ended and error.max() <= self._config.approach_tolerance_rad:
            return True
        if waits_s > self._config.approach_timeout_s:
            joint = self._robot.joint_names[int(error.argmax())]
            message = f"{joint} is {error.max():.2f} rad from where it must go"
            raise UnfitInput(Reason.MOTION_TIMEOUT, message)
        return False

    def _begin(self, planning: Planning | None, goal: Vector, judged: slice, now_s: float) -> None:
        self._planning, self._traveller = planning, None
        self._goal, self._judged, self._begun_s = goal, judged, now_s
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
            speed = self._config.approach_speed * self._robot.velocity_limit
            self._planning, self._traveller = None, Traveller(planning.way, speed, now_s)
            self._goal = planning.way.path[-1]
