"""What is published comes back as it was, whatever its layout."""

import time
from array import array

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from dexgrasp_deploy.control.sensing.image_message import (
    ImageError,
    from_camera_info,
    from_compressed,
    from_image,
)
from dexgrasp_deploy.drivers.base import Intrinsics
from dexgrasp_deploy.nodes.conversions import (
    from_joint_state,
    from_pose,
    from_stamp,
    to_camera_info,
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


@pytest.mark.parametrize("big_endian", [0, 1])
def test_metres_with_padded_rows_become_millimetres(big_endian):
    rows = np.array([[0.5, 1.2344, 9], [np.nan, np.inf, 9], [-1.0, 65.6, 9]])
    data = rows.astype(">f4" if big_endian else "<f4").tobytes()
    message = Image(height=3, width=2, step=12, encoding="32FC1", is_bigendian=big_endian)
    message.data = array("B", data)
    depth = from_image(message)
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth, [[500, 1234], [0, 0], [0, 0]])


def test_mono16_is_depth_in_millimetres():
    message = to_image(np.array([[7, 70000 // 2]], np.uint16), "camera", Time())
    message.encoding = "mono16"
    np.testing.assert_array_equal(from_image(message), [[7, 35000]])


@pytest.mark.parametrize(
    ("encoding", "pixel", "expected"),
    [
        ("rgb8", [1, 2, 3], [1, 2, 3]),
        ("bgr8", [1, 2, 3], [3, 2, 1]),
        ("rgba8", [1, 2, 3, 4], [1, 2, 3]),
        ("bgra8", [1, 2, 3, 4], [3, 2, 1]),
        ("mono8", [5], [5, 5, 5]),
    ],
)
def test_colour_encodings(encoding, pixel, expected):
    message = Image(height=1, width=2, step=2 * len(pixel) + 1, encoding=encoding)
    message.data = array("B", [*pixel, *pixel, 99])
    np.testing.assert_array_equal(from_image(message), [[expected, expected]])


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_image_of_one_colour_is_that_colour(order):
    colour = {"r": 200, "g": 100, "b": 50}
    tile = np.array([[colour[order[0]], colour[order[1]]], [colour[order[2]], colour[order[3]]]])
    message = Image(height=8, width=8, step=8, encoding=f"bayer_{order}8")
    message.data = array("B", np.tile(tile, (4, 4)).astype(np.uint8).tobytes())
    np.testing.assert_array_equal(from_image(message), np.full((8, 8, 3), [200, 100, 50]))


def test_compressed_images():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:] = (10, 20, 30)
    png = cv2.imencode(".png", image[..., ::-1])[1]
    message = CompressedImage(format="rgb8; png compressed bgr8", data=array("B", png.tobytes()))
    np.testing.assert_array_equal(from_compressed(message), image)
    depth = np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000
    png = cv2.imencode(".png", depth)[1]
    message = CompressedImage(format="16UC1; png", data=array("B", png.tobytes()))
    np.testing.assert_array_equal(from_compressed(message), depth)
    message.format = "16UC1; compressedDepth png"
    message.data = array("B", bytes(12) + png.tobytes())
    np.testing.assert_array_equal(from_compressed(message), depth)
    message.format = "32FC1; compressedDepth png"
    with pytest.raises(ImageError, match="is not understood; 16UC1 as PNG is"):
        from_compressed(message)
    with pytest.raises(ImageError, match="'jpeg' image of 3 bytes cannot be decoded"):
        from_compressed(CompressedImage(format="jpeg", data=array("B", [1, 2, 3])))


def test_image_that_cannot_be_read_says_why():
    message = to_image(np.zeros((3, 4), np.uint16), "camera", Time())
    message.encoding = "yuv422"
    with pytest.raises(ImageError, match="'yuv422' is not understood; one of 16UC1, mono16"):
        from_image(message)
    message.encoding, message.height = "16UC1", 5
    with pytest.raises(ImageError, match="24 bytes in rows of 8 for 4x5 pixels"):
        from_image(message)
    with pytest.raises(ImageError, match="the image is empty"):
        from_image(Image(encoding="16UC1"))


def test_intrinsics_come_back():
    lens = Intrinsics(640, 480, (600.0, 601.0), (310.5, 245.0))
    image = to_image(np.zeros((480, 640), np.uint16), "camera", Time())
    assert from_camera_info(to_camera_info(image, lens)) == lens
    uncalibrated = from_camera_info(CameraInfo(width=640, height=480))
    assert uncalibrated.focal_px == (0.0, 0.0)


def test_joint_state():
    stamp = to_stamp(CLOCK, time.monotonic())
    message = to_joint_state(["b", "a"], [0.5, -1.0], [2.0, 3.0], stamp)
    sample = from_joint_state(CLOCK, message)
    assert sample.names == ("b", "a")
    assert sample.position.tolist() == [0.5, -1.0]
    assert sample.velocity.tolist() == [2.0, 3.0]
    without = from_joint_state(CLOCK, to_joint_state(["b"], [0.5], [], stamp))
    assert without.velocity.tolist() == [0.0]
    assert without.effort is None
    assert without.arrival_s == pytest.approx(time.monotonic(), abs=10)
    message.effort = array("d", [7.0, 8.0])
    assert from_joint_state(CLOCK, message).effort.tolist() == [7.0, 8.0]


def test_joint_state_whose_lengths_differ():
    wrong = (
        JointState(name=["a"], position=[1.0, 2.0]),
        JointState(name=["a"], position=[1.0], velocity=[1.0, 2.0]),
        JointState(name=["a"], position=[1.0], effort=[1.0, 2.0]),
    )
    assert not any(from_joint_state(CLOCK, message).consistent for message in wrong)
    assert from_joint_state(CLOCK, JointState(name=["a"], position=[1.0])).consistent


def test_pose():
    pose = [0.1, 0.2, 0.3, 0.5, -0.5, 0.5, -0.5]
    message = to_pose(pose)
    assert (message.orientation.w, message.orientation.x) == (0.5, -0.5)
    np.testing.assert_array_equal(from_pose(message), pose)
