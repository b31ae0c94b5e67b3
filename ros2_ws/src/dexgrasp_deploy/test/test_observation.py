"""Samples become the observation of the training; what must not be acted on is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.control.episode import Reason
from dexgrasp_deploy.control.observation import (
    FreshnessConfig,
    PolicyObserver,
    UnfitInput,
    policy_image,
)
from dexgrasp_deploy.drivers.base import CameraSample, JointSample
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.control.palm_velocity.decoder import ActionDecoder
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.vision.camera import CameraConfig

NAMES = load_robot().joint_names
NOW_S = 50.0
CAMERA = CameraConfig(
    width=8,
    height=6,
    fovy_deg=40.0,
    position_m=(0.0, 0.0, 1.0),
    look_at_m=(1.0, 0.0, 0.0),
    near_m=0.2,
    far_m=0.9,
)


@pytest.fixture
def observer(bundle, robot):
    return PolicyObserver(bundle.manifest, robot, FreshnessConfig())


def joint_sample(names=NAMES, stamp_s=NOW_S):
    """Joint i of the robot's order stands at i / 100 rad and moves at -i / 10 rad/s."""
    number = np.array([NAMES.index(name) if name in NAMES else 99 for name in names], float)
    return JointSample(tuple(names), number / 100, -number / 10, stamp_s)


@given(st.permutations([*NAMES, "lift_joint"]))
def test_joints_are_taken_by_name(names):
    from dexgrasp_deploy.control import observation

    order = observation._order(names, NAMES)
    sample = joint_sample(names)
    np.testing.assert_array_equal(sample.position[order], np.arange(23) / 100)
    np.testing.assert_array_equal(sample.velocity[order], -np.arange(23) / 10)


def test_permuted_robot_gives_the_same_observation(observer, bundle, robot):
    decoder = ActionDecoder(bundle.manifest.task.action, robot, 1, 1 / 15)
    image = CameraSample(np.full((24, 32), 500, np.uint16), NOW_S)
    action = np.zeros(len(bundle.manifest.action_names), np.float32)
    results = []
    for names in (NAMES, NAMES[::-1]):
        position, velocity = observer.joints(joint_sample(names), NOW_S)
        results.append(observer.observe(position, velocity, image, decoder, action, 0.25, NOW_S))
    np.testing.assert_array_equal(results[0]["proprio"], results[1]["proprio"])
    np.testing.assert_allclose(results[0]["proprio"][:23], np.arange(23) / 100, atol=1e-7)
    assert results[0]["proprio"][-1] == 0.25
    assert results[0]["depth"].dtype == np.int16


@pytest.mark.parametrize(
    ("sample", "reason", "message"),
    [
        (None, Reason.STALE_JOINTS, "none arrived"),
        (joint_sample(stamp_s=NOW_S - 0.21), Reason.STALE_JOINTS, "0.210 s old, allowed 0.2"),
        (joint_sample(NAMES[1:]), Reason.BAD_MEASUREMENT, "iiwa7_joint_1 not measured"),
    ],
)
def test_unfit_joints_are_refused(observer, sample, reason, message):
    with pytest.raises(UnfitInput, match=message) as caught:
        observer.joints(sample, NOW_S)
    assert caught.value.reason is reason


@pytest.mark.parametrize("field", ["position", "velocity"])
def test_joint_value_that_is_not_finite_is_refused(observer, field):
    sample = joint_sample()
    getattr(sample, field)[4] = np.nan
    with pytest.raises(UnfitInput, match="not finite"):
        observer.joints(sample, NOW_S)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (None, Reason.STALE_IMAGE),
        (CameraSample(np.zeros((24, 32), np.uint16), NOW_S - 0.31), Reason.STALE_IMAGE),
        (CameraSample(np.zeros((24, 32), np.uint8), NOW_S), Reason.BAD_MEASUREMENT),
        (CameraSample(np.zeros((2, 24, 32, 3), np.uint8), NOW_S), Reason.BAD_MEASUREMENT),
    ],
)
def test_unfit_image_is_refused(observer, bundle, robot, image, reason):
    decoder = ActionDecoder(bundle.manifest.task.action, robot, 1, 1 / 15)
    position, velocity = observer.joints(joint_sample(), NOW_S)
    action = np.zeros(len(bundle.manifest.action_names), np.float32)
    with pytest.raises(UnfitInput) as caught:
        observer.observe(position, velocity, image, decoder, action, 0.0, NOW_S)
    assert caught.value.reason is reason


def test_policy_of_another_robot_or_of_simulation_is_refused(bundle, robot):
    manifest = bundle.manifest
    other = replace(manifest.robot, joint_names=tuple(reversed(manifest.robot.joint_names)))
    with pytest.raises(ConfigError, match="use a bundle for this robot"):
        PolicyObserver(replace(manifest, robot=other), robot, FreshnessConfig())
    groups = (*manifest.groups, TensorSpec("state", (27,)))
    with pytest.raises(ConfigError, match="reads state, which no sensor"):
        PolicyObserver(replace(manifest, groups=groups), robot, FreshnessConfig())


def test_depth_outside_the_training_cameras_range_is_invalid():
    depth = np.full((6, 8), 500, np.uint16)
    depth[0, :5] = [0, 199, 200, 900, 901]
    depth[1, 0] = 60000
    image = policy_image(depth, None, CAMERA, "depth")
    assert image[0, :5].tolist() == [0, 0, 200, 900, 0]
    assert image[1, 0] == 0
    assert (image[2:] == 500).all()


def test_finer_camera_of_the_same_view_is_resized():
    depth = np.repeat(np.repeat(np.arange(48).reshape(6, 8) + 300, 5, 0), 5, 1).astype(np.uint16)
    expected = np.arange(48).reshape(6, 8) + 300
    np.testing.assert_array_equal(policy_image(depth, None, CAMERA, "depth"), expected)
    focal_px = 5 * CAMERA.focal_px
    np.testing.assert_array_equal(policy_image(depth, focal_px, CAMERA, "depth"), expected)


def test_wider_lens_is_cropped_to_the_training_view():
    # twice the rows and columns at the same focal length: the middle shows the training view
    depth = np.zeros((12, 16), np.uint16)
    depth[3:9, 4:12] = np.arange(48).reshape(6, 8) + 300
    image = policy_image(depth, CAMERA.focal_px, CAMERA, "depth")
    np.testing.assert_array_equal(image, np.arange(48).reshape(6, 8) + 300)


def test_lens_that_sees_less_is_refused():
    depth = np.full((6, 8), 500, np.uint16)
    with pytest.raises(UnfitInput, match="shows less than the training camera"):
        policy_image(depth, 1.5 * CAMERA.focal_px, CAMERA, "depth")


def test_stereo_colours_become_planes():
    images = np.zeros((2, 12, 16, 3), np.uint8)
    images[0, ..., 0], images[1, ..., 2] = 200, 100
    planes = policy_image(images, None, CAMERA, "stereo_rgb")
    assert planes.shape == (2, 3, 6, 8)
    assert (planes[0, 0] == 200).all()
    assert (planes[1, 2] == 100).all()
    assert planes.sum() == (200 + 100) * 48
