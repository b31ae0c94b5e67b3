"""The RealSense driver through real librealsense, with a software device for a camera."""

import time

import numpy as np
import pytest

from dexgrasp_deploy.drivers.base import DriverContext, Level
from dexgrasp_deploy.drivers.realsense import RealSenseCamera
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot
from test_support.software_realsense import HEIGHT, RATE_HZ, WIDTH, SoftwareRealSense, picture
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

SIZE = {"width": WIDTH, "height": HEIGHT, "rate_hz": RATE_HZ, "capture.connect_timeout_s": 60.0}
QUICK = {
    "capture.timeout_s": 0.5,
    "capture.retries": 100000,
    "capture.retry_wait_s": 0.1,
    "max_age_s": 5.0,
}


@pytest.fixture
def camera():
    with SoftwareRealSense() as device:
        yield device


@pytest.fixture
def start(camera):
    started = []

    def start(image, devices=None, **parameters):
        driver = RealSenseCamera(devices or {"SW1": camera.device})
        started.append(driver)
        context = DriverContext(load_robot(), time.monotonic)
        driver.configure(context, {"image": image, **SIZE, **QUICK, **parameters})
        return driver

    yield start
    for driver in started:
        driver.deactivate()


def newest(driver):
    return wait_until(driver.read, lambda: f"an exposure; {driver.health().message}")


def until_told(driver, text):
    wait_until(lambda: text in driver.health().message, lambda: driver.health().message)


def recovered(driver):
    wait_until(lambda: driver.health().level is Level.OK, lambda: driver.health().message)


def test_depth_arrives_as_millimetres_with_stamp_and_intrinsics(camera, start):
    driver = start("depth")
    sample = newest(driver)
    assert sample.image.dtype == np.uint16
    number = int(sample.image[0, 0])
    np.testing.assert_array_equal(sample.image, picture("depth", number))
    assert sample.intrinsics.focal_px == (60.0, 60.0)
    assert sample.intrinsics.center_px == (31.5, 23.5)
    assert 0 <= time.monotonic() - sample.stamp_s < 5
    later = newest(driver)
    moments = int(later.image[0, 0]) - number
    assert moments > 0
    # the device's clock says the time between exposures, whenever they arrive
    assert later.stamp_s - sample.stamp_s == pytest.approx(moments / RATE_HZ, abs=1.0)


def test_infrared_pair_is_of_one_moment(camera, start):
    driver = start("infrared_pair")
    for _ in range(5):
        left, right = newest(driver).image
        assert left.shape == (HEIGHT, WIDTH, 3)
        number = int(left[0, 0, 0])
        np.testing.assert_array_equal(left[..., 0], picture("left", number))
        np.testing.assert_array_equal(right[..., 2], picture("right", number))


def test_images_are_copies(camera, start):
    """Frames that are held would stop librealsense after about 15."""
    driver = start("depth")
    held = [newest(driver) for _ in range(25)]
    assert len({int(sample.image[0, 0]) for sample in held}) == 25


def test_a_pair_is_never_of_two_moments_when_right_frames_are_lost(camera, start):
    camera.change = lambda name, frame: name != "right" or frame["number"] % 5 != 0
    driver = start("infrared_pair")
    for _ in range(12):
        left, right = newest(driver).image
        assert left[0, 0, 0] == right[0, 0, 0]
        assert left[0, 0, 0] % 5 != 0


def test_a_right_camera_that_has_died_is_told_and_not_paired(camera, start):
    driver = start("infrared_pair")
    newest(driver)
    camera.change = lambda name, frame: name != "right"
    until_told(driver, "no good exposure")
    driver.read()
    assert driver.read() is None
    camera.change = lambda name, frame: True
    recovered(driver)
    newest(driver)


def test_a_skewed_right_camera_is_told(camera, start):
    def skew(name, frame):
        frame["stamp_ms"] += 20.0 if name == "right" else 0.0
        return True

    driver = start("infrared_pair")
    newest(driver)
    camera.change = skew
    until_told(driver, "no good exposure")
    assert "left and right exposure are at least 0.0" in driver.health().message


def test_frames_that_stop_are_told_and_the_stream_opened_again(camera, start):
    driver = start("depth")
    newest(driver)
    camera.change = lambda name, frame: False
    until_told(driver, "no frames arrive")
    camera.change = lambda name, frame: True
    recovered(driver)
    assert "opened again" in driver.health().message
    newest(driver)


def test_a_dead_camera_is_given_up_after_the_retries(camera, start):
    driver = start("depth", **{"capture.retries": 2})
    newest(driver)
    camera.change = lambda name, frame: False
    until_told(driver, "given up after 3 tries: no good exposure")


def test_a_frozen_image_with_new_stamps_is_told(camera, start):
    def freeze(name, frame):
        frame["pixels"] = picture(name, 1)
        return True

    driver = start("depth", **{"capture.frozen_s": 0.3, "capture.retries": 2})
    newest(driver)
    camera.change = freeze
    until_told(driver, "the image is the same for 0.3 s")
    until_told(driver, "given up after")


def test_frames_out_of_order_are_dropped(camera, start):
    def swap(name, frame):
        if frame["number"] % 4 == 0:
            frame["pixels"] = picture(name, frame["number"] - 3)
            frame["number"] -= 3
            frame["stamp_ms"] -= 100.0
        return True

    camera.change = swap
    driver = start("depth")
    numbers = [int(newest(driver).image[0, 0]) for _ in range(12)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("domain", ["system_time", "global_time", "hardware_clock"])
def test_stamps_of_another_clock_are_refused(camera, start, domain):
    """Stamps of the device's clock, said to be of the wall clock, are decades old."""

    def other_clock(name, frame):
        frame["domain"] = getattr(camera.rs.timestamp_domain, domain)
        if domain == "hardware_clock":
            frame["stamp_ms"] += 1.7e12
        return True

    driver = start("depth")
    newest(driver)
    camera.change = other_clock
    until_told(driver, "it is of another clock")
    assert f"a stamp of the {domain} is" in driver.health().message


def test_stamps_of_the_wall_clock_keep_their_age(camera, start):
    def wall(name, frame):
        frame["domain"] = camera.rs.timestamp_domain.global_time
        frame["stamp_ms"] = 1000.0 * (time.time() - 2.0)
        return True

    camera.change = wall
    sample = newest(start("depth"))
    assert 2.0 <= time.monotonic() - sample.stamp_s < 5.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"serial": "77"}, "camera.serial 77 is not connected; RealSense .* connected: SW1"),
        ({"width": 1280}, "depth 1280x48 at 30 Hz does not start"),
        ({"file": "/nowhere.db3"}, "no such file"),
        ({"image": "rgb"}, "'depth', 'infrared_pair' or 'color_pair'"),
        ({"image": "color_pair"}, "color_pair needs `serial` and `right_serial`"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(start, parameters, message):
    given = {"capture.retries": 0, **parameters}
    with pytest.raises(ConfigError, match=message) as caught:
        start(given.pop("image", "depth"), **given)
    assert "\n" not in str(caught.value)


def test_lens_distortion_without_calibration_is_refused(start):
    message = r"distortion \[0.1, .*camera.calibration"
    bent = SoftwareRealSense("SW2", coefficients=(0.1, 0, 0, 0, 0))
    with bent, pytest.raises(ConfigError, match=message):
        start("depth", {"SW2": bent.device})


def test_a_missing_focal_length_is_refused(start):
    blind = SoftwareRealSense("SW2", focal_px=0.0)
    with blind, pytest.raises(ConfigError, match="depth stream has no focal length"):
        start("depth", {"SW2": blind.device})


def test_colour_of_two_cameras_is_paired_by_exposure(camera, start):
    def wall(name, frame):
        frame["domain"] = camera.rs.timestamp_domain.global_time
        frame["stamp_ms"] = 1000.0 * int(time.time() * RATE_HZ) / RATE_HZ
        return True

    with SoftwareRealSense("SW2") as other:
        camera.change = other.change = wall
        devices = {"SW1": camera.device, "SW2": other.device}
        driver = start("color_pair", devices, serial="SW1", right_serial="SW2")
        assert newest(driver).image.shape == (2, HEIGHT, WIDTH, 3)
