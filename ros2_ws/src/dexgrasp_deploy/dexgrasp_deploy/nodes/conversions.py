"""ROS messages as plain values; the other direction is dexgrasp_sim.nodes.conversions."""

import time

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.time import Time as RosTime
from sensor_msgs.msg import CameraInfo, Image, JointState

from dexgrasp_deploy.drivers.base import Intrinsics, JointSample
from dexgrasp_sim.nodes.conversions import to_camera_info as to_ideal_camera_info


def from_stamp(clock: Clock, stamp: Time) -> float:
    """The monotonic time, s, of a ROS stamp: the present time minus the stamp's age."""
    age_ns = clock.now().nanoseconds - RosTime.from_msg(stamp).nanoseconds
    return time.monotonic() - age_ns * 1e-9


def from_joint_state(
    clock: Clock, message: JointState, arrival_s: float | None = None
) -> JointSample:
    """A measurement that arrived at a monotonic time, s; None: now.

    Missing velocities are 0, missing efforts None. Lengths are as in the message; see
    `JointSample.consistent`.
    """
    count = len(message.name)
    velocity = np.array(message.velocity, dtype=np.float64)
    effort = np.array(message.effort, dtype=np.float64)
    return JointSample(
        tuple(message.name),
        np.array(message.position, dtype=np.float64),
        velocity if len(velocity) else np.zeros(count),
        from_stamp(clock, message.header.stamp),
        effort if len(effort) else None,
        arrival_s=time.monotonic() if arrival_s is None else arrival_s,
    )


def to_camera_info(image: Image, intrinsics: Intrinsics) -> CameraInfo:
    """Intrinsics of a camera without distortion that took an image."""
    (fx, fy), (cx, cy) = intrinsics.focal_px, intrinsics.center_px
    message = to_ideal_camera_info(image, fx)
    message.width, message.height = intrinsics.width, intrinsics.height
    message.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    message.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def from_pose(pose: Pose) -> NDArray[np.float64]:
    """[7] xyz m and quaternion wxyz."""
    place, turn = pose.position, pose.orientation
    return np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
