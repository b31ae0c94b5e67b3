"""Plain values as ROS messages: stamps, joints, images, poses."""

import time
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.time import Time as RosTime
from sensor_msgs.msg import CameraInfo, Image, JointState

BASE_FRAME = "base"


def to_stamp(clock: Clock, monotonic_s: float) -> Time:
    """The ROS stamp of a monotonic time: the current ROS time minus the age."""
    age_ns = round((time.monotonic() - monotonic_s) * 1e9)
    return RosTime(nanoseconds=clock.now().nanoseconds - age_ns).to_msg()


def to_joint_state(
    names: Sequence[str], position: Sequence[float], velocity: Sequence[float], stamp: Time
) -> JointState:
    """Joint positions, rad, and velocities, rad/s; without effort."""
    message = JointState(name=list(names))
    message.position, message.velocity = array("d", position), array("d", velocity)
    message.header.stamp = stamp
    message.header.frame_id = BASE_FRAME
    return message


def to_image(pixels: NDArray[Any], frame: str, stamp: Time) -> Image:
    """Depth [H, W] uint16 mm as 16UC1, colour [H, W, 3] uint8 as rgb8."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], is_bigendian=0)
    message.encoding = "16UC1" if pixels.ndim == 2 else "rgb8"
    message.step = pixels[0].nbytes
    # rclpy takes an array.array as it is, but converts a numpy array element by element
    message.data = array("B", np.ascontiguousarray(pixels).tobytes())
    message.header.stamp = stamp
    message.header.frame_id = frame
    return message


def to_camera_info(image: Image, focal_px: float) -> CameraInfo:
    """Intrinsics of the ideal camera that took an image, principal point at the image centre.

    Args:
        image: Size, frame and stamp.
        focal_px: Focal length, the same in both directions.
    """
    center_u, center_v = (image.width - 1) / 2, (image.height - 1) / 2
    message = CameraInfo(height=image.height, width=image.width, distortion_model="plumb_bob")
    message.header = image.header
    message.d = [0.0] * 5
    message.k = [focal_px, 0.0, center_u, 0.0, focal_px, center_v, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [focal_px, 0.0, center_u, 0.0, 0.0, focal_px, center_v, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def to_pose(pose: Sequence[float]) -> Pose:
    """A pose [7], xyz m and quaternion wxyz, as a message, whose quaternion is xyzw."""
    message = Pose()
    place, turn = message.position, message.orientation
    place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z = pose
    return message
