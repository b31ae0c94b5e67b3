"""Cameras on topics: real names, encodings and quality of service, and what goes wrong there."""

import time

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy

from dexgrasp_deploy.drivers.base import DriverContext, Level
from dexgrasp_deploy.drivers.registry import make_driver, profiles
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot
from test_support.camera_peer import HEIGHT, WIDTH, CameraPeer, compressed, image, later
from test_support.rigs import write_camera_info
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

RELIABLE = QoSProfile(depth=10)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
BASELINE_M = 0.05


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node("camera_node")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def start(node, clock):
    def start(name, manifest=None, **parameters):
        driver = make_driver("camera", name)
        context = DriverContext(load_robot(), clock, manifest, node=node)
        driver.configure(context, {"connect_timeout_s": 60.0} | parameters)
        return driver

    return start


def newest(node, driver):
    return wait_until(
        driver.read,
        lambda: driver.health().message,
        meanwhile=lambda: rclpy.spin_once(node, timeout_sec=0.05),
    )


def until_told(node, driver, text):
    wait_until(
        lambda: text in driver.health().message,
        lambda: driver.health().message,
        meanwhile=lambda: rclpy.spin_once(node, timeout_sec=0.05),
    )


def ramp(number, shift=0):
    """[H, W] uint8 that tells its moment and its side."""
    pixels = np.broadcast_to(np.arange(WIDTH, dtype=np.uint8) * 3 + shift, (HEIGHT, WIDTH)).copy()
    pixels[0, 0] = number % 256
    return pixels


def bgra(grey):
    return np.dstack((grey // 4, grey // 2, grey, np.full_like(grey, 255)))


def infrared(peer, baseline_m=BASELINE_M):
    for index, shift in ((1, 0), (2, 30)):
        name = f"/camera/camera/infra{index}"
        peer.add(f"{name}/image_rect_raw", lambda n, s=shift: image(ramp(n, s), "mono8"))
        peer.add_info(f"{name}/camera_info", baseline_m if index == 2 else 0.0)


def test_realsense_node_depth(node, start):
    depth = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    with CameraPeer(RELIABLE) as peer:
        peer.add("/camera/camera/depth/image_rect_raw", lambda n: image(depth, "16UC1"))
        peer.add_info("/camera/camera/depth/camera_info")
        driver = start("realsense_node")
        sample = newest(node, driver)
        np.testing.assert_array_equal(sample.image, depth)
        assert sample.intrinsics.focal_px == (60.0, 60.0)
        assert sample.stamp_s <= sample.arrival_s <= time.monotonic()
        assert driver.health().level is Level.OK


def test_realsense_node_pair_is_of_one_moment(node, start):
    with CameraPeer(BEST_EFFORT) as peer:
        infrared(peer)
        driver = start("realsense_node_stereo")
        for _ in range(4):
            left, right = newest(node, driver).image
            number = int(left[0, 0, 0])
            np.testing.assert_array_equal(left[..., 0], ramp(number))
            np.testing.assert_array_equal(right[..., 2], ramp(number, 30))


def test_zed_pair_is_bgra(node, start):
    with CameraPeer(RELIABLE) as peer:
        for side, baseline_m in (("left", 0.0), ("right", BASELINE_M)):
            name = f"/zed/zed_node/{side}/color/rect"
            peer.add(f"{name}/image", lambda n: image(bgra(ramp(0)), "bgra8"))
            peer.add_info(f"{name}/camera_info", baseline_m)
        left = newest(node, start("zed")).image[0]
        assert left[5, 20].tolist() == [60, 30, 15]


def test_dextrah_pair_is_rectified_and_turned(node, start, tmp_path):
    files = {
        f"calibration.{side}": write_camera_info(
            tmp_path / f"{side}.yaml", WIDTH, HEIGHT, 60.0, baseline_m
        )
        for side, baseline_m in (("left", 0.0), ("right", BASELINE_M))
    }
    colour = bgra(ramp(7))[..., 2::-1].copy()
    with CameraPeer(QoSProfile(depth=10)) as peer:
        peer.add("/robot2/camera2/color/image_raw", lambda n: image(colour, "rgb8"))
        turned = colour[::-1, ::-1].copy()
        peer.add("/robot3/camera3/color/image_raw", lambda n: image(turned, "rgb8"))
        left, right = newest(node, start("dextrah", **files)).image
        np.testing.assert_array_equal(left, colour)
        np.testing.assert_array_equal(right, colour)
        with pytest.raises(ConfigError, match=r"camera.left.info is empty; .* camera.calibration"):
            start("dextrah")


def test_every_profile_of_cameras_is_tested():
    found = {profile.name for profile in profiles() if profile.kind == "camera"}
    assert found == {"realsense_node", "realsense_node_stereo", "zed", "dextrah"}


def test_compressed_images_and_metres(node, start):
    depth_m = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    with CameraPeer(BEST_EFFORT) as peer:
        peer.add("/depth/image", lambda n: image(depth_m, "32FC1"))
        peer.add_info("/depth/camera_info")
        topics = {"depth.image": "/depth/image", "depth.info": "/depth/camera_info"}
        assert (newest(node, start("ros_topics", **topics)).image == 500).all()
        png = cv2.imencode(".png", np.full((HEIGHT, WIDTH), 700, np.uint16))[1]
        head = np.zeros(12, np.uint8)
        data = np.concatenate((head, png))
        name = "/packed/compressedDepth"
        peer.add(name, lambda n: compressed(data, "16UC1; compressedDepth png"))
        topics["depth.image"] = name
        assert (newest(node, start("ros_topics", **topics)).image == 700).all()


def test_a_skewed_or_missing_side_is_told(node, start):
    with CameraPeer(RELIABLE) as peer:
        infrared(peer)
        driver = start("realsense_node_stereo", timeout_s=1.0)
        newest(node, driver)
        peer.change = lambda topic, message: later(message, 0.01 if "infra2" in topic else 0)
        until_told(node, driver, "left and right exposure are at least 0.010 s apart")
        peer.change = lambda topic, message: None if "infra2" in topic else message
        until_told(node, driver, "the right exposures ended")
        driver.read()
        assert driver.read() is None


def test_what_cannot_be_read_is_told(node, start):
    with CameraPeer(RELIABLE) as peer:
        infrared(peer)
        driver = start("realsense_node_stereo", timeout_s=0.5)

        def other_encoding(topic, message):
            message.encoding = "yuv422"
            return message

        peer.change = other_encoding
        until_told(node, driver, "infra1/image_rect_raw: encoding 'yuv422' is not understood")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "realsense_node",
            {"connect_timeout_s": 1.0},
            "no images on /camera/camera/depth/image_rect_raw: nobody publ",
        ),
        ("ros_topics", {}, "image topics are given for no camera; give `depth.image`"),
        ("ros_topics", {"left.image": "/l"}, "image topics are given for left; give"),
        (
            "ros_topics",
            {"depth.image": "camera/depth/image_raw"},
            "dexgrasp publishes its own images there",
        ),
        (
            "realsense_node_stereo",
            {"qos.durability": "transient_local"},
            "quality of service of camera_peer",
        ),
        (
            "realsense_node",
            {"depth.image": "/camera/camera/infra1/image_rect_raw"},
            "a colour image, where a depth image is needed",
        ),
        (
            "realsense_node_stereo",
            {"left.info": "/nowhere", "connect_timeout_s": 10.0},
            "no camera info on /nowhere",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(node, start, name, parameters, message):
    with CameraPeer(RELIABLE) as peer:
        infrared(peer)
        with pytest.raises(ConfigError, match=message) as caught:
            start(name, **parameters)
    assert "\n" not in str(caught.value)


def test_a_baseline_unlike_that_of_training_is_refused(node, start, bundle):
    wrong_m = 2 * bundle.manifest.task.stereo_baseline_m
    with CameraPeer(RELIABLE) as peer:
        infrared(peer, wrong_m)
        with pytest.raises(ConfigError, match="camera_info: camera: the baseline is"):
            start("realsense_node_stereo", bundle.manifest)
