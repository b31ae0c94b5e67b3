"""The start-up self-test: one joint after the other moves by half a degree.

That joint must follow, in that direction, and no other. A driver that has mixed up two joints, a
sign or a unit shows here, while nothing can be hit yet.
"""

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.motion.commander import Commander
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_sim.robot.robot import Robot

Vector = NDArray[np.float64]

_STEP_RAD = float(np.deg2rad(0.5))
_MOVE_S, _SETTLE_S, _AVERAGE_S = 0.3, 0.2, 0.2
"""Times in which a joint moves, comes to rest, and is measured."""
_SHARE = 0.5
"""A joint follows that moves by at least this share of its command; another that moves by as much
of a step moves with it."""


class JointCheck:
    """Moves the joints one by one from where the robot stands, and back, in 1.4 s for each.

    Attributes:
        passed: Whether all joints have followed.
    """

    def __init__(self, robot: Robot, commander: Commander) -> None:
        """Args:
        robot: The robot.
        commander: What commands it.
        """
        self._names, self._commander = robot.joint_names, commander
        self._middle: Vector = (np.array(robot.lower) + np.array(robot.upper)) / 2
        self.passed = False

    def begin(self, now_s: float) -> None:
        """Begins anew, at the present command."""
        self._start = self._commander.position
        self._offset = np.zeros_like(self._start)  # of the stage before
        self._stage = 0
        self._at_rest: tuple[Vector, Vector] | None = None
        self._begin_stage(now_s)

    def advance(self, measured: Measurement, now_s: float) -> bool:
        """One period; returns whether the robot stands where it did and all joints have followed.

        Raises:
            UnfitInput: A joint does not follow, or another moves; or as `Commander.command`.
        """
        time_s = now_s - self._begun_s
        offset = self._stage_offset()
        done = min(1.0, time_s / _MOVE_S)
        smooth = done**3 * (10 - 15 * done + 6 * done**2)
        target = self._start + self._offset + smooth * (offset - self._offset)
        self._commander.command(target, measured, now_s)
        if time_s > _MOVE_S + _SETTLE_S:
            self._seen.append((measured.position, self._commander.position))
        if time_s < _MOVE_S + _SETTLE_S + _AVERAGE_S or not self._seen:
            return False
        self._judge()
        self._offset = offset
        self._stage += 1
        self.passed = self._stage > 2 * len(self._names)
        self._begin_stage(now_s)
        return self.passed

    def _begin_stage(self, now_s: float) -> None:
        self._begun_s = now_s
        self._seen: list[tuple[Vector, Vector]] = []

    def _stage_offset(self) -> Vector:
        """[J] rad from the start: every second stage moves a joint, the others none."""
        offset = np.zeros_like(self._start)
        joint, moves = divmod(self._stage, 2)
        if moves:
            inward = np.sign(self._middle - self._start)[joint]
            offset[joint] = _STEP_RAD * (inward or 1.0)
        return offset

    def _judge(self) -> None:
        positions, commands = (np.mean(values, axis=0) for values in zip(*self._seen, strict=True))
        joint, moves = divmod(self._stage, 2)
        if not moves or self._at_rest is None:
            self._at_rest = positions, commands
            return
        moved, wanted = positions - self._at_rest[0], (commands - self._at_rest[1])[joint]
        name, did = self._names[joint], f"{1e3 * moved[joint]:+.1f} mrad"
        said = f"for a command of {1e3 * wanted:+.1f} mrad"
        if abs(wanted) < _SHARE * _STEP_RAD:
            _refuse(f"{name} may not move here; move the robot out of its limits and obstacles")
        others = np.abs(np.delete(moved, joint))
        if others.max(initial=0.0) > _SHARE * _STEP_RAD:
            other = np.delete(np.array(self._names), joint)[int(others.argmax())]
            _refuse(f"{other} moved when {name} was commanded; check the driver's joint names")
        if moved[joint] * np.sign(wanted) < -_SHARE * abs(wanted):
            _refuse(f"{name} moved by {did} {said}; check the sign")
        if not _SHARE < moved[joint] / wanted < 1 / _SHARE:
            _refuse(f"{name} moved by {did} {said}; check unit, brakes and enabling")


def _refuse(message: str) -> None:
    raise UnfitInput(Reason.WRONG_JOINT, message)
