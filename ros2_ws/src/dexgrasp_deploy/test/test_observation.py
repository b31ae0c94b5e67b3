"""Samples become the observation of the training; what must not be acted on is refused."""

import numpy as np
import pytest

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.observation import PolicyObserver
from dexgrasp_deploy.control.sensing.scene_check import table_depth
from dexgrasp_deploy.control.sensing.streams import FreshnessConfig
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics, JointSample
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.control.palm_velocity.decoder import ActionDecoder
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.specs import TensorSpec

NAMES = load_robot().joint_names
NOW_S = 50.0


@pytest.fixture
def observer(bundle, robot):
    return PolicyObserver(bundle.manifest, robot, FreshnessConfig())


def joint_sample(names=NAMES, stamp_s=NOW_S):
    """Joint i of the robot's order stands at 0.3 + i / 100 rad and moves at -i / 10 rad/s."""
    number = np.array([NAMES.index(name) for name in names], float)
    return JointSample(tuple(names), 0.3 + number / 100, -number / 10, stamp_s)


@pytest.fixture
def table(bundle):
    """The empty table as the camera of the policy sees it."""
    task = bundle.manifest.task
    depth = (1000 * table_depth(task.camera, task.table)).astype(np.uint16)
    camera = task.camera
    return depth, Intrinsics.centered(camera.width, camera.height, camera.focal_px)


def test_permuted_robot_gives_the_same_observation(observer, bundle, robot, table):
    decoder = ActionDecoder(bundle.manifest.task.action, robot, 1, 1 / 15)
    action = np.zeros(len(bundle.manifest.action_names), np.float32)
    results = []
    for names in (NAMES, NAMES[::-1]):
        measured = observer.joints([joint_sample(names)], NOW_S)
        image = observer.image(CameraSample(table[0], NOW_S, table[1]), measured.position, NOW_S)
        results.append(observer.observe(measured, image, decoder, action, 0.25))
    np.testing.assert_array_equal(results[0]["proprio"], results[1]["proprio"])
    np.testing.assert_allclose(results[0]["proprio"][:23], joint_sample().position, atol=1e-7)
    assert results[0]["proprio"][-1] == 0.25
    assert results[0]["depth"].dtype == np.int16


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda depth, lens: None, Reason.STALE_IMAGE),
        (lambda depth, lens: CameraSample(depth, NOW_S - 0.31, lens), Reason.STALE_IMAGE),
        (lambda depth, lens: CameraSample(depth, NOW_S + 30, lens), Reason.STAMP_AHEAD),
        (
            lambda depth, lens: CameraSample(depth, NOW_S, lens, arrival_s=NOW_S - 0.31),
            Reason.STALE_IMAGE,
        ),
        (lambda depth, lens: CameraSample(depth, NOW_S), Reason.BAD_CAMERA),
        (lambda depth, lens: CameraSample(0 * depth, NOW_S, lens), Reason.NOT_THE_SCENE),
    ],
)
def test_unfit_image_is_refused(observer, table, change, reason):
    with pytest.raises(UnfitInput) as caught:
        observer.image(change(*table), joint_sample().position, NOW_S)
    assert caught.value.reason is reason


def test_policy_of_another_robot_or_of_simulation_is_refused(bundle, robot):
    manifest = bundle.manifest
    other = replace(manifest.robot, joint_names=tuple(reversed(manifest.robot.joint_names)))
    with pytest.raises(ConfigError, match="use a bundle for this robot"):
        PolicyObserver(replace(manifest, robot=other), robot, FreshnessConfig())
    groups = (*manifest.groups, TensorSpec("state", (27,)))
    with pytest.raises(ConfigError, match="reads state, which no sensor"):
        PolicyObserver(replace(manifest, groups=groups), robot, FreshnessConfig())
