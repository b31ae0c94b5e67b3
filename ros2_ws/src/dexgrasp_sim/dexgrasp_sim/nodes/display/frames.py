"""Poses of the robot's links and of cameras as transforms on /tf and /tf_static.

They are those that robot_state_publisher makes of the same URDF and joint states: one transform
for each joint, from its parent link to its child link; those of fixed joints on /tf_static.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage

from dexgrasp_sim.nodes.qos import LATCHED
from dexgrasp_sim.robot.model import Joint, RobotModel
from dexgrasp_sim.vision.camera import CameraConfig

COMMANDED = "commanded/"
"""Prefix of the frames of the robot as it is commanded."""
_MOVING = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class FrameTopics:
    """The topics /tf and /tf_static of one node; their names are absolute, as everywhere in ROS.

    Those who join late get all fixed frames, whenever they were added.
    """

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._moving = node.create_publisher(TFMessage, "/tf", _MOVING)
        self._fixed = node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._known: dict[str, TransformStamped] = {}

    @property
    def watched(self) -> bool:
        """Whether somebody reads /tf."""
        return self._moving.get_subscription_count() > 0

    def fix(self, transforms: Iterable[TransformStamped]) -> None:
        """Adds frames that do not move, or replaces those with the same child frame."""
        now = self._clock.now().to_msg()
        for transform in transforms:
            transform.header.stamp = now
            self._known[transform.child_frame_id] = transform
        self._fixed.publish(TFMessage(transforms=[*self._known.values()]))

    def move(self, transforms: list[TransformStamped]) -> None:
        """Publishes the present poses of frames that move."""
        self._moving.publish(TFMessage(transforms=transforms))


class RobotFrames:
    """The transforms of a robot's joints, and of a copy of it whose frames have a prefix."""

    def __init__(self, robot: RobotModel, prefix: str = "") -> None:
        """Prepares the messages.

        Args:
            robot: Its joints and links.
            prefix: Stands before every name of a frame, as the `frame_prefix` of
                robot_state_publisher; with the slash that ends it.
        """
        joints = list(robot.joints.values())
        moving = [joint for joint in joints if joint.kind == "revolute"]
        self.fixed = [_of_joint(joint, prefix) for joint in joints if joint.kind == "fixed"]
        if prefix:
            self.fixed.append(transform(robot.root, prefix + robot.root, np.eye(4)))
        self._names = [joint.name for joint in moving]
        self._messages = [_of_joint(joint, prefix) for joint in moving]
        self._origins = Rotation.from_matrix([joint.origin.matrix[:3, :3] for joint in moving])
        self._axes = np.array([joint.axis for joint in moving])  # [J, 3]

    def moving(self, positions: Mapping[str, float], stamp: Time) -> list[TransformStamped]:
        """Transforms of the joints that are named; they are valid until the next call.

        Args:
            positions: rad by joint name; unknown names are ignored.
            stamp: When they were measured.
        """
        angles = np.array([positions.get(name, np.nan) for name in self._names])
        known = np.isfinite(angles)
        turns = self._origins * Rotation.from_rotvec(
            np.where(known, angles, 0)[:, None] * self._axes
        )
        for message, (x, y, z, w) in zip(self._messages, turns.as_quat().tolist()):
            message.header.stamp = stamp
            turn = message.transform.rotation
            turn.x, turn.y, turn.z, turn.w = x, y, z, w
        return [message for message, given in zip(self._messages, known) if given]


def transform(parent: str, child: str, matrix: NDArray[np.float64]) -> TransformStamped:
    """The pose [4, 4] of a child frame in its parent frame, without a stamp."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    place, rotation = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = matrix[:3, 3].tolist()
    turn = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    rotation.x, rotation.y, rotation.z, rotation.w = turn.tolist()
    return message


def camera_frames(
    base: str, camera: CameraConfig, baseline_m: float, streams: Iterable[str]
) -> list[TransformStamped]:
    """The optical frames of the streams `depth`, `left` and `right` of a task's camera."""
    left, right = camera.stereo_pair(baseline_m)
    return [
        transform(base, optical_frame(name), camera_pose(right if name == "right" else left))
        for name in streams
    ]


def camera_pose(camera: CameraConfig) -> NDArray[np.float64]:
    """[4, 4]: the optical frame (x right, y down, z forward; REP 103) in the base frame."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = camera.rotation_ros, camera.position
    return matrix


def optical_frame(stream: str) -> str:
    """Name of the frame of a camera stream."""
    return f"camera_{stream}_optical_frame"


def pose_matrix(message: TransformStamped) -> NDArray[np.float64]:
    """[4, 4]: the pose of the child frame in the parent frame."""
    place, turn = message.transform.translation, message.transform.rotation
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    matrix[:3, 3] = place.x, place.y, place.z
    return matrix


def _of_joint(joint: Joint, prefix: str) -> TransformStamped:
    """The transform of a joint at angle zero."""
    return transform(prefix + joint.parent, prefix + joint.child, joint.origin.matrix)
