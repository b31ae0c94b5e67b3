import cv2
import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.vision.camera import CameraConfig

coordinate = st.floats(-2.0, 2.0)
vector = st.tuples(coordinate, coordinate, coordinate)


def make_camera(**changes):
    values = {
        "width": 64,
        "height": 48,
        "fovy_deg": 90.0,
        "position_m": (1.0, 2.0, 3.0),
        "look_at_m": (1.0, 2.0, 0.0),
        "up": (1.0, 0.0, 0.0),
    }
    return CameraConfig(**{**values, **changes})


@st.composite
def cameras(draw):
    quaternion = np.array(draw(st.tuples(*[st.floats(-1.0, 1.0)] * 4)))
    if np.linalg.norm(quaternion) < 0.1:
        quaternion = np.array([1.0, 0.0, 0.0, 0.0])
    return make_camera(
        fovy_deg=draw(st.floats(10.0, 120.0)),
        position_m=draw(vector),
        look_at_m=None,
        quaternion_wxyz=tuple(quaternion / np.linalg.norm(quaternion)),
    )


def test_intrinsics_by_hand():
    # 90 degrees over 48 rows: the focal length is half the height
    expected = [[24.0, 0.0, 31.5], [0.0, 24.0, 23.5], [0.0, 0.0, 1.0]]
    np.testing.assert_allclose(make_camera().intrinsics, expected, atol=1e-12)


def test_axes_of_a_camera_that_looks_down():
    camera = make_camera()
    right, up, backward = camera.rotation.T
    np.testing.assert_allclose(up, [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(backward, [0.0, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(right, [0.0, -1.0, 0.0], atol=1e-12)
    _, down, forward = camera.rotation_ros.T
    np.testing.assert_allclose(down, -up)
    np.testing.assert_allclose(forward, -backward)


def test_projection_by_hand():
    # 0.5 m to the image's right and 0.25 m to its top, seen from 2 m
    pixel, depth = make_camera().project(np.array([1.25, 1.5, 1.0]))
    np.testing.assert_allclose(pixel, [31.5 + 24 * 0.25, 23.5 - 24 * 0.125])
    assert depth == pytest.approx(2.0)


@given(cameras(), st.lists(vector, min_size=1, max_size=5))
def test_projection_matches_opencv(camera, points):
    points = np.array(points)
    pixels, depth = camera.project(points)
    off_center = np.abs(pixels - [31.5, 23.5]).max(axis=-1)
    in_view = (depth > 0.05) & (off_center < 2 * camera.focal_px)
    rotation = camera.rotation_ros.T
    expected, _ = cv2.projectPoints(
        points, cv2.Rodrigues(rotation)[0], -rotation @ camera.position, camera.intrinsics, None
    )
    # OpenCV takes a rotation vector, which loses half a microradian near 180 degrees
    np.testing.assert_allclose(pixels[in_view], expected[:, 0][in_view], atol=2e-3)


@given(cameras())
def test_projection_of_tensors_matches_arrays(camera):
    points = np.array([[[0.3, -0.2, 0.1], [2.0, 1.0, -1.0]]])
    pixels, depth = camera.project(points)
    tensor_pixels, tensor_depth = camera.project(torch.from_numpy(points))
    assert tensor_pixels.shape == (1, 2, 2)
    np.testing.assert_allclose(tensor_depth.numpy(), depth, rtol=1e-12, atol=1e-12)
    in_front = np.abs(depth) > 1e-3  # a pixel's coordinates magnify the rounding of small depths
    np.testing.assert_allclose(
        tensor_pixels.numpy()[in_front], pixels[in_front], rtol=1e-9, atol=1e-6
    )


@settings(max_examples=30)
@given(cameras())
def test_rotation_matches_mujoco(camera):
    spec = mujoco.MjSpec()
    spec.worldbody.add_camera(pos=camera.position_m, quat=camera.quaternion_wxyz)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(camera.rotation, data.cam_xmat[0].reshape(3, 3), atol=1e-9)


@given(vector, vector)
def test_look_at_point_is_at_the_centre_and_up_is_up(position, target):
    direction = np.subtract(target, position)
    if np.linalg.norm(np.cross(direction, [0.0, 0.0, 1.0])) < 1e-2:
        return
    camera = make_camera(position_m=position, look_at_m=target, up=(0.0, 0.0, 1.0))
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(camera.rotation) == pytest.approx(1.0)
    pixel, depth = camera.project(np.array(target))
    np.testing.assert_allclose(pixel, [31.5, 23.5], atol=1e-6)
    assert depth == pytest.approx(np.linalg.norm(direction))
    higher, _ = camera.project(np.add(target, (0.0, 0.0, 1e-3)))
    assert higher[1] < pixel[1]
    assert higher[0] == pytest.approx(pixel[0], abs=1e-6)


@given(cameras(), st.floats(-0.3, 0.3))
def test_stereo_disparity(camera, baseline):
    point = camera.position + camera.rotation @ [0.1, -0.2, -0.8]
    left, right = camera.stereo_pair(baseline)
    assert left == camera
    (left_pixel, depth), (right_pixel, right_depth) = left.project(point), right.project(point)
    np.testing.assert_allclose([depth, right_depth], 0.8)
    disparity = camera.focal_px * baseline / 0.8
    np.testing.assert_allclose(left_pixel - right_pixel, [disparity, 0.0], atol=1e-6)


def test_stereo_pair_of_a_look_at_camera_has_one_orientation():
    left, right = make_camera().stereo_pair(0.06)
    np.testing.assert_allclose(right.position_m, [1.0, 1.94, 3.0])
    np.testing.assert_allclose(right.rotation, left.rotation, atol=1e-12)


def test_config_survives_plain_values():
    camera = make_camera(look_at_m=None, quaternion_wxyz=(0.6, 0.8, 0.0, 0.0))
    assert parse_config(CameraConfig, to_dict(camera)) == camera


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"width": 0}, "`width` = 0"),
        ({"fovy_deg": 180.0}, "`fovy_deg` = 180.0"),
        ({"far_m": 40.0}, "32.767"),
        ({"near_m": 0.0}, "`near_m` = 0.0"),
        ({"near_m": 2.0, "far_m": 1.0}, "near_m 2.0 must be below far_m 1.0"),
        ({"look_at_m": None}, "give exactly one"),
        ({"quaternion_wxyz": (1.0, 0.0, 0.0, 0.0)}, "give exactly one"),
        ({"look_at_m": (1.0, 2.0, 3.0)}, "must differ from position_m"),
        ({"up": (0.0, 0.0, 1.0)}, "parallel"),
        ({"up": (0.0, 0.0, 0.0)}, "must not be zero"),
        ({"look_at_m": None, "quaternion_wxyz": (1.0, 1.0, 0.0, 0.0)}, "normalise"),
        ({"fov": 30.0}, "unknown key `fov`"),
    ],
)
def test_errors_name_the_value_and_the_remedy(changes, named):
    values = {**to_dict(make_camera()), **changes}
    with pytest.raises(ConfigError) as error:
        parse_config(CameraConfig, values)
    assert named in str(error.value)
