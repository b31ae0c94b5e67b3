"""ROS messages as plain values; the other direction is dexgrasp_sim.nodes.conversions."""

import time
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.time import Time as RosTime
from sensor_msgs.msg import Image, JointState

from dexgrasp_deploy.drivers.base import JointSample

_ENCODINGS: dict[str, tuple[type, tuple[int, ...]]] = {
    "16UC1": (np.uint16, ()),
    "rgb8": (np.uint8, (3,)),
}


def from_stamp(clock: Clock, stamp: Time) -> float:
    """The monotonic time, s, of a ROS stamp: the present time minus the stamp's age."""
    age_ns = clock.now().nanoseconds - RosTime.from_msg(stamp).nanoseconds
    return time.monotonic() - age_ns * 1e-9


def from_joint_state(clock: Clock, message: JointState) -> JointSample | None:
    """A measurement; None if the lengths of the message differ. Missing velocities become 0."""
    count = len(message.name)
    if len(message.position) != count or len(message.velocity) not in (0, count):
        return None
    position = np.array(message.position, dtype=np.float64)
    velocity = np.array(message.velocity, dtype=np.float64)
    velocity = velocity if len(velocity) else np.zeros(count)
    stamp_s = from_stamp(clock, message.header.stamp)
    return JointSample(tuple(message.name), position, velocity, stamp_s)


def from_image(message: Image) -> NDArray[Any] | None:
    """Depth [H, W] uint16 mm of 16UC1, colour [H, W, 3] uint8 of rgb8.

    Returns:
        None for another encoding or a message with too little data for its size.
    """
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


def from_pose(pose: Pose) -> NDArray[np.float64]:
    """[7] xyz m and quaternion wxyz."""
    place, turn = pose.position, pose.orientation
    return np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
