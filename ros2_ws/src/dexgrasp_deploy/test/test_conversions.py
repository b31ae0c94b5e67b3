"""What is published comes back as it was, whatever its layout."""

import time
from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image, JointState

from dexgrasp_deploy.nodes.conversions import (
    from_image,
    from_joint_state,
    from_pose,
    from_stamp,
)
from dexgrasp_sim.nodes.conversions import to_image, to_joint_state, to_pose, to_stamp

CLOCK = Clock(clock_type=ClockType.SYSTEM_TIME)


def test_stamp_keeps_the_age():
    taken_s = time.monotonic() - 0.25
    stamp = to_stamp(CLOCK, taken_s)
    assert from_stamp(CLOCK, stamp) == pytest.approx(taken_s, abs=0.01)


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000,
        np.arange(36, dtype=np.uint8).reshape(3, 4, 3),
        np.arange(24, dtype=np.uint16).reshape(4, 6)[::2, ::2],
    ],
    ids=["depth", "colour", "strided"],
)
def test_image(pixels):
    np.testing.assert_array_equal(from_image(to_image(pixels, "camera", Time())), pixels)


def test_padded_rows_and_big_endian_images():
    rows = np.array([[1, 2, 99], [3, 4, 99]], dtype=">u2")
    message = Image(height=2, width=2, step=6, encoding="16UC1", is_bigendian=1)
    message.data = array("B", rows.tobytes())
    np.testing.assert_array_equal(from_image(message), [[1, 2], [3, 4]])


def test_image_that_cannot_be_read():
    message = to_image(np.zeros((3, 4), np.uint16), "camera", Time())
    message.encoding = "32FC1"
    assert from_image(message) is None
    message.encoding, message.height = "16UC1", 5
    assert from_image(message) is None


def test_joint_state():
    stamp = to_stamp(CLOCK, time.monotonic())
    message = to_joint_state(["b", "a"], [0.5, -1.0], [2.0, 3.0], stamp)
    sample = from_joint_state(CLOCK, message)
    assert sample.names == ("b", "a")
    assert sample.position.tolist() == [0.5, -1.0]
    assert sample.velocity.tolist() == [2.0, 3.0]
    without = from_joint_state(CLOCK, to_joint_state(["b"], [0.5], [], stamp))
    assert without.velocity.tolist() == [0.0]


def test_joint_state_whose_lengths_differ():
    assert from_joint_state(CLOCK, JointState(name=["a"], position=[1.0, 2.0])) is None
    message = JointState(name=["a"], position=[1.0], velocity=[1.0, 2.0])
    assert from_joint_state(CLOCK, message) is None


def test_pose():
    pose = [0.1, 0.2, 0.3, 0.5, -0.5, 0.5, -0.5]
    message = to_pose(pose)
    assert (message.orientation.w, message.orientation.x) == (0.5, -0.5)
    np.testing.assert_array_equal(from_pose(message), pose)
