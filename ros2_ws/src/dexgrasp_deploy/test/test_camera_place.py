"""A camera that stands elsewhere than in training shows the policy the table that it knows."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dexgrasp_deploy.calibration.results.mounted_camera import place_of
from dexgrasp_deploy.control.episode import UnfitInput
from dexgrasp_deploy.control.sensing.camera_place import depth_of_training, placed
from dexgrasp_deploy.control.sensing.scene_check import SceneCheck, table_depth
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.table_view import TableView

TASK = GraspConfig()
CAMERA, TOP_M = TASK.camera, TASK.table.top_m
SIZE = (CAMERA.height, CAMERA.width)
TRAINED = place_of(TASK).pose


def shifted(pose, metres=(0, 0, 0), degrees=(0, 0, 0)):
    turn = Rotation.from_quat(pose[3:], scalar_first=True)
    turn = turn * Rotation.from_euler("xyz", degrees, degrees=True)
    return np.concatenate((pose[:3] + metres, turn.as_quat(scalar_first=True)))


ELSEWHERE = shifted(TRAINED, (0.02, -0.01, 0.05), (1.0, -1.5, 2.0))


def empty_table_mm(camera):
    return np.round(1000 * TableView(camera, TOP_M).depth_m(*SIZE).numpy()).astype(np.int16)


def test_a_pose_of_optical_axes_is_that_of_the_camera():
    same = placed(CAMERA, TRAINED)
    np.testing.assert_allclose(same.rotation, CAMERA.rotation, atol=1e-12)
    assert same.position_m == CAMERA.position_m
    assert placed(CAMERA, None) is CAMERA
    # it looks down and its image's x axis is the base's x axis
    down = placed(CAMERA, np.array([0.1, 0.2, 0.9, 0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(down.rotation_ros, np.diag([1.0, -1.0, -1.0]), atol=1e-12)


def test_the_empty_table_becomes_that_of_training():
    trained, real = empty_table_mm(CAMERA), empty_table_mm(placed(CAMERA, ELSEWHERE))
    assert np.abs(real - trained).max() > 50
    found = depth_of_training(real, CAMERA, ELSEWHERE, TOP_M)
    assert np.abs(found - trained).max() <= 1


def test_what_stands_on_the_table_stays_as_far_before_it():
    camera = CameraConfig(
        width=4,
        height=4,
        fovy_deg=30.0,
        position_m=(0.0, 0.0, 0.9),
        look_at_m=(0.0, 0.0, 0.0),
        up=(1, 0, 0),
    )
    real = np.full((4, 4), 920, np.int16)  # 0.92 m above a table at 0; things are 50 mm high
    real[1:3, 1:3] = 870
    real[0, 0] = 0
    pose = shifted(place_of_camera(camera), (0, 0, 0.02))
    found = depth_of_training(real, camera, pose, 0.0)
    expected = np.full((4, 4), 900)
    expected[1:3, 1:3] = 850
    expected[0, 0] = 0
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(depth_of_training(real, camera, None, 0.0), real)


def place_of_camera(camera):
    turn = Rotation.from_matrix(camera.rotation_ros).as_quat(scalar_first=True)
    return np.concatenate((camera.position, turn))


def test_the_scene_is_judged_from_where_the_camera_stands():
    """Half as far above the table, every depth is far from that of training."""
    near = shifted(TRAINED, (0.25, -0.12, -0.18))
    seen = np.round(1000 * table_depth(placed(CAMERA, near), TASK.table)).astype(np.uint16)
    lens = Intrinsics.centered(*SIZE[::-1], CAMERA.focal_px)
    check = SceneCheck(CAMERA, TASK.table)
    check.judge(CameraSample(seen, 0.0, lens, pose=near), "depth")
    with pytest.raises(UnfitInput, match="does not stand where"):
        check.judge(CameraSample(seen, 0.0, lens), "depth")
