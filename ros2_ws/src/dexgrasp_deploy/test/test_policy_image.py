"""A camera's image becomes that of the training camera, or it is said why it cannot."""

import numpy as np
import pytest

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.sensing.policy_image import policy_image
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics
from dexgrasp_sim.vision.camera import CameraConfig

CAMERA = CameraConfig(
    width=8,
    height=6,
    fovy_deg=40.0,
    position_m=(0.0, 0.0, 1.0),
    look_at_m=(1.0, 0.0, 0.0),
    near_m=0.2,
    far_m=0.9,
)
FOCAL_PX = CAMERA.focal_px
NUMBERS = np.arange(48).reshape(6, 8) + 300


def seen(pixels, focal_px=FOCAL_PX, center_px=None):
    """An exposure; the principal point is at the centre by default."""
    height, width = pixels.shape[:2] if pixels.ndim == 2 else pixels.shape[1:3]
    lens = Intrinsics.centered(width, height, focal_px)
    if center_px is not None:
        lens = Intrinsics(width, height, lens.focal_px, center_px)
    return CameraSample(pixels, 0.0, lens)


def test_depth_outside_the_training_cameras_range_is_invalid():
    depth = np.full((6, 8), 500, np.uint16)
    depth[0, :5] = [0, 199, 200, 900, 901]
    depth[1, 0] = 60000
    image = policy_image(seen(depth), CAMERA, "depth", 0.0)
    assert image[0, :5].tolist() == [0, 0, 200, 900, 0]
    assert image[1, 0] == 0
    assert (image[2:] == 500).all()


def test_finer_camera_of_the_same_view_is_resized():
    depth = np.repeat(np.repeat(NUMBERS, 5, 0), 5, 1).astype(np.uint16)
    image = policy_image(seen(depth, 5 * FOCAL_PX), CAMERA, "depth", 0.0)
    np.testing.assert_array_equal(image, NUMBERS)


def test_wider_lens_is_cropped_to_the_training_view():
    # twice the rows and columns at the same focal length: the middle shows the training view
    depth = np.zeros((12, 16), np.uint16)
    depth[3:9, 4:12] = NUMBERS
    np.testing.assert_array_equal(policy_image(seen(depth), CAMERA, "depth", 0.0), NUMBERS)


def test_crop_follows_the_principal_point():
    # two pixels right of the centre and one above it
    depth = np.zeros((12, 16), np.uint16)
    depth[2:8, 6:14] = NUMBERS
    image = policy_image(seen(depth, center_px=(9.5, 4.5)), CAMERA, "depth", 0.0)
    np.testing.assert_array_equal(image, NUMBERS)


def test_stereo_colours_become_planes():
    images = np.zeros((2, 12, 16, 3), np.uint8)
    images[0, ..., 0], images[1, ..., 2] = 200, 100
    planes = policy_image(seen(images, 2 * FOCAL_PX), CAMERA, "stereo_rgb", 0.0)
    assert planes.shape == (2, 3, 6, 8)
    assert (planes[0, 0] == 200).all()
    assert (planes[1, 2] == 100).all()
    assert planes.sum() == (200 + 100) * 48


WIDE = np.full((12, 16), 500, np.uint16)
NAN = float("nan")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (CameraSample(WIDE, 0.0), "no intrinsics"),
        (seen(WIDE, NAN), "not those of a calibrated camera"),
        (seen(WIDE, 0.0), "not those of a calibrated camera"),
        (seen(WIDE, center_px=(NAN, 5.5)), "not those of a calibrated camera"),
        (CameraSample(WIDE, 0.0, Intrinsics.centered(640, 480, FOCAL_PX)), "are for 640x480"),
        (CameraSample(WIDE, 0.0, Intrinsics(16, 12, (8.0, 9.0), (7.5, 5.5))), "not square"),
        (seen(WIDE, center_px=(14.0, 5.5)), r"principal point \(14.0, 5.5\) of 16x12"),
        (seen(WIDE, 2.5 * FOCAL_PX), "shows less than the training camera"),
        (seen(WIDE.T[:, 3:9], FOCAL_PX), "6x16 shows less than the training camera"),
        (seen(WIDE[:3, :4], FOCAL_PX / 3), "in 3x2 pixels, the policy reads 8x6"),
        (seen(WIDE.astype(np.uint8)), "does not fit the group 'depth'"),
    ],
    ids=[
        "no intrinsics",
        "NaN",
        "zero",
        "NaN centre",
        "of another stream",
        "stretched",
        "off centre",
        "narrow",
        "portrait",
        "4x3",
        "grey",
    ],
)
def test_camera_that_cannot_serve_is_refused_with_the_reason(sample, message):
    with pytest.raises(UnfitInput, match=message) as caught:
        policy_image(sample, CAMERA, "depth", 0.0)
    assert caught.value.reason is Reason.BAD_CAMERA
