"""ROS messages to the cores' types and back: stamps, joints, images, poses."""

import time
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.time import Time as RosTime
from sensor_msgs.msg import CameraInfo, Image, JointState

from dexgrasp_deploy.drivers.base import JointSample

BASE_FRAME = "base"
_ENCODINGS = {"16UC1": (np.uint16, ()), "rgb8": (np.uint8, (3,))}


def to_stamp(clock: Clock, monotonic_s: float) -> Time:
    """The ROS stamp of a monotonic time: ROS time now less the age."""
    age_ns = round((time.monotonic() - monotonic_s) * 1e9)
    return RosTime(nanoseconds=clock.now().nanoseconds - age_ns).to_msg()


def from_stamp(clock: Clock, stamp: Time) -> float:
    """The inverse of `to_stamp`, s."""
    age_ns = clock.now().nanoseconds - RosTime.from_msg(stamp).nanoseconds
    return time.monotonic() - age_ns * 1e-9


def to_joint_state(names: Sequence[str], position: Sequence[float], stamp: Time) -> JointState:
    """A JointState without velocity or effort: a command, or part of a measurement."""
    message = JointState(name=list(names), position=array("d", position))
    message.header.stamp = stamp
    message.header.frame_id = BASE_FRAME
    return message


def from_joint_state(clock: Clock, message: JointState) -> JointSample | None:
    """A measurement; None where the message is not one (lengths differ). No velocity means 0."""
    count = len(message.name)
    if len(message.position) != count or len(message.velocity) not in (0, count):
        return None
    position = np.frombuffer(message.position, np.float64).copy()
    velocity = np.frombuffer(message.velocity, np.float64).copy()
    velocity = velocity if len(velocity) else np.zeros(count)
    stamp_s = from_stamp(clock, message.header.stamp)
    return JointSample(tuple(message.name), position, velocity, stamp_s)


def to_image(pixels: NDArray[Any], frame: str, stamp: Time) -> Image:
    """Depth [H, W] uint16 mm as 16UC1, colour [H, W, 3] uint8 as rgb8."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], is_bigendian=0)
    message.encoding = "16UC1" if pixels.ndim == 2 else "rgb8"
    message.step = pixels[0].nbytes
    # an array is taken over as it is; a numpy array would be converted element by element
    message.data = array("B", np.ascontiguousarray(pixels).tobytes())
    message.header.stamp = stamp
    message.header.frame_id = frame
    return message


def from_image(message: Image) -> NDArray[Any] | None:
    """The inverse of `to_image`; None for another encoding or a short message."""
    if message.encoding not in _ENCODINGS:
        return None
    kind, channels = _ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    data = np.frombuffer(message.data, np.uint8)
    row_bytes = message.width * dtype.itemsize * int(np.prod(channels))
    if message.step < row_bytes or data.size < message.step * message.height:
        return None
    rows = data[: message.step * message.height].reshape(message.height, message.step)
    pixels = np.ascontiguousarray(rows[:, :row_bytes]).view(dtype).astype(kind)
    return pixels.reshape(message.height, message.width, *channels)


def to_camera_info(image: Image, focal_px: float, baseline_m: float = 0.0) -> CameraInfo:
    """Intrinsics of an ideal camera with the principal point at the image centre.

    Args:
        image: Its image: size, frame and stamp.
        focal_px: Focal length, the same in both directions.
        baseline_m: Distance from the left camera; P[3] of the right one of a pair is
            -focal_px * baseline_m (REP 104).
    """
    center_u, center_v = (image.width - 1) / 2, (image.height - 1) / 2
    message = CameraInfo(height=image.height, width=image.width, distortion_model="plumb_bob")
    message.header = image.header
    message.d = [0.0] * 5
    message.k = [focal_px, 0.0, center_u, 0.0, focal_px, center_v, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    rows = ([focal_px, 0.0, center_u, -focal_px * baseline_m], [0.0, focal_px, center_v, 0.0])
    message.p = [*rows[0], *rows[1], 0.0, 0.0, 1.0, 0.0]
    return message


def to_pose(pose: NDArray[np.float64], stamp: Time) -> PoseStamped:
    """[7] xyz m and quaternion wxyz, base frame, as a message (whose quaternion is xyzw)."""
    message = PoseStamped()
    message.header.stamp = stamp
    message.header.frame_id = BASE_FRAME
    place, turn = message.pose.position, message.pose.orientation
    place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z = pose.tolist()
    return message


def from_pose(message: PoseStamped) -> NDArray[np.float64]:
    """The inverse of `to_pose`."""
    place, turn = message.pose.position, message.pose.orientation
    return np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
