"""Markers at the robot: joints that are near their limits, fingertips and what they touch."""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from visualization_msgs.msg import Marker

from dexgrasp_sim.nodes.display.markers import Rgb, ball, passing
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot

LIMITS, CONTACTS = "joint_limits", "contacts"
_NEAR, _AT = 0.05, 0.01
"""Distance from a limit, as a share of the joint's range, at which the joint is marked."""
_NEAR_RGB: Rgb = (1.0, 0.7, 0.0)
_AT_RGB: Rgb = (0.9, 0.1, 0.1)
_CONTACT_RGB: Rgb = (0.95, 0.2, 0.5)
_ARM_DIAMETER_M = 0.19
_FINGER_DIAMETER_M = 0.036
_TIP_DIAMETER_M = 0.034
_OPACITY = 0.45


def limit_levels(
    position: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> NDArray[np.int64]:
    """[J]: 0 for a joint inside of its range, 1 near a limit, 2 at or beyond it; rad."""
    share = np.minimum(position - lower, upper - position) / (upper - lower)
    return (share < _NEAR).astype(np.int64) + (share < _AT)


class RobotMarkers:
    """Markers that follow the measured joints."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        links = [robot.joints[name].child for name in robot.joint_names]
        self._tips = {finger.name: finger.tip for finger in robot.fingers}
        self._frames = [*links, *self._tips.values()]
        self._kinematics = Kinematics(robot, self._frames)

    def at(self, position: NDArray[np.float64], touching: Collection[str]) -> list[Marker]:
        """Namespaces `joint_limits` and `contacts`; a marker vanishes when its reason does.

        Args:
            position: [J] rad in the robot's joint order.
            touching: Names of the fingers that touch something.
        """
        robot = self._robot
        poses = self._kinematics.forward(torch.from_numpy(position).float()[None])
        places = dict(zip(self._frames, poses.position[0].double().tolist(), strict=True))
        markers = []
        levels = limit_levels(position, robot.lower, robot.upper)
        for number in np.flatnonzero(levels).tolist():
            place = places[robot.joints[robot.joint_names[number]].child]
            rgb = _AT_RGB if levels[number] == 2 else _NEAR_RGB
            size_m = _ARM_DIAMETER_M if number < robot.arm.stop else _FINGER_DIAMETER_M
            markers.append(ball(LIMITS, place, size_m, rgb, _OPACITY, number))
        for number, (finger, tip) in enumerate(self._tips.items()):
            if finger in touching:
                place = places[tip]
                markers.append(ball(CONTACTS, place, _TIP_DIAMETER_M, _CONTACT_RGB, 0.9, number))
        return [*map(passing, markers)]
