"""The joints as they were measured and commanded last."""

import numpy as np
import torch
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from dexgrasp_deploy.control.evidence import EvidenceConfig
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot

_STALL_RAD = EvidenceConfig().stall_rad


class RobotState:
    """Collects joint states, whether arm and hand come in one message or in two.

    Attributes:
        measured: rad by joint name.
        commanded: rad by joint name.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self.measured: dict[str, float] = {}
        self.commanded: dict[str, float] = {}
        self._measured_at: Time | None = None
        self._commanded_at: Time | None = None
        self._kinematics: dict[str, Kinematics] = {}

    def measure(self, message: JointState) -> None:
        """Takes a message of `joint_states`."""
        self.measured.update(zip(message.name, message.position))
        self._measured_at = message.header.stamp

    def command(self, message: JointState) -> None:
        """Takes a message of `joint_command`."""
        self.commanded.update(zip(message.name, message.position))
        self._commanded_at = message.header.stamp

    def take_measured(self) -> Time | None:
        """The stamp of measurements that came since the last call; None without any."""
        stamp, self._measured_at = self._measured_at, None
        return stamp

    def take_commanded(self) -> Time | None:
        """As `take_measured`, of commands."""
        stamp, self._commanded_at = self._commanded_at, None
        return stamp

    @property
    def position(self) -> NDArray[np.float64] | None:
        """[J] rad in the robot's joint order; None until every joint was measured."""
        names = self._robot.joint_names
        if not all(np.isfinite(self.measured.get(name, np.nan)) for name in names):
            return None
        return np.array([self.measured[name] for name in names])

    def pose_of(self, frame: str) -> NDArray[np.float64] | None:
        """[4, 4]: a link of the robot in its base; None until every joint was measured."""
        position = self.position
        if position is None:
            return None
        if frame not in self._kinematics:
            self._kinematics[frame] = Kinematics(self._robot, [frame])
        poses = self._kinematics[frame].forward(torch.from_numpy(position).float()[None])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = poses.rotation[0, 0], poses.position[0, 0]
        return matrix

    def touching(self) -> list[str]:
        """Fingers of which a joint stands short of its command, as it does at an object."""
        return [
            finger.name
            for finger in self._robot.fingers
            if any(
                abs(self.commanded.get(name, np.nan) - self.measured.get(name, np.nan))
                > _STALL_RAD
                for name in finger.joints
            )
        ]
