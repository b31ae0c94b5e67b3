"""Images of lenses become those of the training camera, with OpenCV and the policy as oracles."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dexgrasp_deploy.calibration.results.camera_info import read_camera_info
from dexgrasp_deploy.drivers.base import Intrinsics
from dexgrasp_deploy.drivers.camera_config import CalibrationConfig
from dexgrasp_deploy.drivers.rectification import Rectifier, make_rectifiers
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.vision.preprocess import resize_depth, resize_rgb
from test_support.rigs import write_camera_info


def lens_of(folder, *args, **changes):
    return read_camera_info(Path(write_camera_info(folder / "c.yaml", *args, **changes)))


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_without_distortion_it_is_the_resize_of_training(tmp_path, factor):
    width, height, rng = 32, 24, np.random.default_rng(0)
    size = (factor * height, factor * width)
    info = lens_of(tmp_path, size[1], size[0], factor * 40.0)
    rectify = Rectifier(info, Intrinsics.centered(width, height, 40.0), "c.yaml")
    depth = rng.integers(0, 3000, size, dtype=np.uint16)
    wanted = resize_depth(torch.from_numpy(depth.astype(np.int16)), height, width)
    np.testing.assert_array_equal(rectify(depth), wanted.numpy())
    colour = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = resize_rgb(torch.from_numpy(colour).permute(2, 0, 1), height, width)
    difference = rectify(colour).astype(int) - wanted.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]),
        ("rational_polynomial", [-0.2, 0.05, 0.001, -0.001, 0.0, 0.01, 0.0, 0.0]),
        ("equidistant", [0.05, -0.01, 0.0, 0.0]),
    ],
)
def test_a_point_appears_where_an_ideal_camera_shows_it(tmp_path, model, coefficients):
    """The oracle is OpenCV's projection of points, not its undistortion."""
    lens = {"rows": 1, "cols": len(coefficients), "data": coefficients}
    changes = {"distortion_model": model, "distortion_coefficients": lens}
    info = lens_of(tmp_path, 640, 480, 300.0, **changes)
    point = np.array([[[0.3, -0.2, 1.0]]])
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    matrix, zero = info.matrix, np.zeros(3)
    seen, _ = project(point, zero, zero, matrix, np.array(coefficients))
    image = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(image, tuple(np.round(seen.ravel()).astype(int).tolist()), 6, (255, 255, 255), -1)
    target = Intrinsics.centered(160, 120, 100.0)
    found = Rectifier(info, target, "c.yaml")(image)[..., 0].astype(float)
    rows, columns = np.mgrid[0:120, 0:160]
    centre = [(found * axis).sum() / found.sum() for axis in (columns, rows)]
    expected = [100 * 0.3 + target.center_px[0], 100 * -0.2 + target.center_px[1]]
    np.testing.assert_allclose(centre, expected, atol=0.35)


def test_a_camera_that_sees_less_is_refused(tmp_path):
    info = lens_of(tmp_path, 640, 480, 900.0)
    with pytest.raises(ConfigError, match="the camera sees 11% of what the training camera sees"):
        Rectifier(info, Intrinsics.centered(160, 120, 75.0), "c.yaml")


def test_an_image_of_another_size_is_refused(tmp_path):
    info = lens_of(tmp_path, 64, 48, 60.0)
    rectify = Rectifier(info, Intrinsics.centered(32, 24, 30.0), "c.yaml")
    with pytest.raises(ConfigError, match=r"the image is 32x48, .* is for 64x48"):
        rectify(np.zeros((48, 32), np.uint16))


def test_the_rig_is_compared_with_training(tmp_path, bundle):
    task = bundle.manifest.task
    size, focal = (4 * task.camera.width, 4 * task.camera.height), 4 * task.camera.focal_px
    left = write_camera_info(tmp_path / "left.yaml", *size, focal)
    right = write_camera_info(tmp_path / "right.yaml", *size, focal, task.stereo_baseline_m)
    config = CalibrationConfig(left=left, right=right)
    rectifiers = make_rectifiers(config, bundle.manifest, pair=True)
    camera = task.camera
    ideal = Intrinsics.centered(camera.width, camera.height, camera.focal_px)
    assert [one.target for one in rectifiers] == [ideal, ideal]
    swapped = CalibrationConfig(left=right, right=left)
    with pytest.raises(ConfigError, match=r"the baseline is 0\.0000 m, that of training"):
        make_rectifiers(swapped, bundle.manifest, pair=True)
    with pytest.raises(ConfigError, match="give both files of a pair"):
        make_rectifiers(CalibrationConfig(left=left), bundle.manifest, pair=True)
    assert make_rectifiers(CalibrationConfig(), bundle.manifest, pair=True) == ()
