"""The OpenCV driver on films and folders that the test writes."""

import time

import cv2
import numpy as np
import pytest

from dexgrasp_deploy.drivers.base import DriverContext, Level
from dexgrasp_deploy.drivers.opencv import OpenCvCamera
from dexgrasp_sim.config import ConfigError
from test_support.rigs import write_camera_info
from test_support.waiting import wait_until

WIDTH, HEIGHT = 64, 48


@pytest.fixture
def rig(tmp_path):
    """Parameters of the calibration files of a pair."""
    left = write_camera_info(tmp_path / "left.yaml", WIDTH, HEIGHT, 60.0)
    right = write_camera_info(tmp_path / "right.yaml", WIDTH, HEIGHT, 60.0, 0.05)
    return {"calibration.left": left, "calibration.right": right}


@pytest.fixture
def start(robot, rig):
    drivers = []

    def start(source, **parameters):
        driver = OpenCvCamera()
        drivers.append(driver)
        values = {"source": str(source), "rate_hz": 100.0, "capture.connect_timeout_s": 60.0}
        driver.configure(DriverContext(robot, time.monotonic), values | rig | parameters)
        return driver

    yield start
    for driver in drivers:
        driver.deactivate()


def newest(driver):
    return wait_until(driver.read, lambda: driver.health().message)


def scene(number, shift=0):
    """[H, W, 3] RGB with one colour for each channel, so that a swap is seen."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = np.arange(WIDTH) * 2 + shift
    image[..., 1], image[..., 2] = 100, 10 * number
    return image


def write_folder(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        pixels = image[..., ::-1] if image.ndim == 3 else image
        assert cv2.imwrite(str(folder / f"{number:03}.png"), pixels)
    return folder


def test_folder_of_side_by_side_images(tmp_path, start):
    images = [np.hstack((scene(n), scene(n, shift=40))) for n in range(5)]
    driver = start(write_folder(tmp_path / "pairs", images))
    sample = newest(driver)
    assert sample.image.shape == (2, HEIGHT, WIDTH, 3)
    number = sample.image[0, 0, 0, 2] // 10
    np.testing.assert_array_equal(sample.image[0], scene(number))
    np.testing.assert_array_equal(sample.image[1], scene(number, shift=40))
    assert sample.intrinsics.focal_px == (60.0, 60.0)
    assert 0 <= time.monotonic() - sample.stamp_s < 60
    assert newest(driver).stamp_s > sample.stamp_s
    assert driver.health().level is Level.OK


def test_two_folders_with_the_right_camera_upside_down(tmp_path, start):
    left = write_folder(tmp_path / "l", [scene(1)])
    right = write_folder(tmp_path / "r", [scene(1, shift=9)[::-1, ::-1]])
    pair = newest(start(left, right_source=str(right), right_upside_down=True)).image
    np.testing.assert_array_equal(pair[0], scene(1))
    np.testing.assert_array_equal(pair[1], scene(1, shift=9))


def test_folder_of_depth(tmp_path, start):
    depth = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    driver = start(write_folder(tmp_path / "depth", [depth]), image="depth")
    np.testing.assert_array_equal(newest(driver).image, depth)


def test_film(tmp_path, start):
    path = tmp_path / "film.avi"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (2 * WIDTH, HEIGHT))
    for _ in range(4):
        film.write(np.hstack((scene(3), scene(3, shift=40)))[..., ::-1])
    film.release()
    driver = start(path)
    for _ in range(6):  # more than it has: it begins again
        left, right = newest(driver).image.astype(int)
        assert np.abs(left - scene(3)).mean() < 8
        assert np.abs(right - scene(3, shift=40)).mean() < 8


def test_the_end_of_a_recording_is_told(tmp_path, start):
    folder = write_folder(tmp_path / "short", [np.hstack((scene(n), scene(n))) for n in range(2)])
    driver = start(folder, loop=False)
    wait_until(
        lambda: driver.health().message.endswith("has ended"), lambda: driver.health().message
    )
    assert driver.health().level is Level.ERROR


@pytest.mark.parametrize(
    ("source", "parameters", "message"),
    [
        ("/nowhere", {}, "no such device, film or folder"),
        ("/dev/video77", {"capture.retries": 1}, "given up after 2 tries: /dev/video77 does not"),
        ("{empty}", {}, "no .png images in this folder"),
        ("{broken}", {}, "OpenCV cannot read this film"),
        ("{grey}", {"image": "depth"}, r"uint8 \[48, 64\] is no 16 bit depth image"),
        ("{grey}", {}, "the image is 32x48, its calibration .* is for 64x48"),
        ("{grey}", {"calibration.left": "", "calibration.right": ""}, "calibration.left is empty"),
        ("", {}, "`source` is empty"),
        ("{grey}", {"image": "depth", "right_source": "x"}, "`right_source` is of stereo images"),
        ("{grey}", {"fourcc": "MJPEG"}, "fourcc"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tmp_path, start, source, parameters, message):
    write_folder(tmp_path / "empty", [])
    write_folder(tmp_path / "grey", [scene(1)[..., 0]])
    (tmp_path / "broken").write_bytes(b"no film")
    source = source.format(**{name: tmp_path / name for name in ("empty", "grey", "broken")})
    with pytest.raises(ConfigError, match=message) as caught:
        start(source, **parameters)
    assert "\n" not in str(caught.value)
