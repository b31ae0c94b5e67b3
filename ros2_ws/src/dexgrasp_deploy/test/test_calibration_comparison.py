"""A calibrated camera against the camera of a policy's training."""

import json
import math
from datetime import datetime, timezone

import numpy as np
import pytest
import torch

from dexgrasp_deploy.calibration.quality import Grade
from dexgrasp_deploy.calibration.results.camera_info import (
    CameraInfo,
    unrectified,
    write_camera_info,
)
from dexgrasp_deploy.calibration.results.comparison import (
    compare_lens,
    compare_pair,
    compare_pose,
)
from dexgrasp_deploy.calibration.results.extrinsics import (
    Extrinsics,
    ros_quaternion,
    stamp_of,
    write_extrinsics,
)
from dexgrasp_deploy.calibration.transforms import transform
from dexgrasp_deploy.commands.cli import main
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.robot.rotation import rpy_to_matrix
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.image_config import CameraJitterConfig, ImageConfig

JITTER = CameraJitterConfig(position_m=0.02, rotation_rad=0.05, stereo_position_m=0.002)
TASK = GraspConfig(image=ImageConfig(camera_jitter=JITTER))
HALF_PIXEL_RAD = 0.5 / TASK.camera.focal_px


def placed(moved_m=(0, 0, 0), turned_rad=(0, 0, 0), **changes):
    """Extrinsics of the training camera, moved in the base and turned about its own axes."""
    turn = rpy_to_matrix(torch.tensor(turned_rad, dtype=torch.float64)).numpy()
    camera = TASK.camera
    matrix = transform(camera.rotation_ros @ turn, camera.position + moved_m)
    values = {
        "parent": "base",
        "child": "camera_optical_frame",
        "xyz_m": tuple(matrix[:3, 3].tolist()),
        "quaternion_xyzw": ros_quaternion(matrix),
        "stamp": stamp_of(datetime.now(timezone.utc)),
        "setup": "eye-to-base",
        "rms_px": 0.3,
        "samples": 15,
        "samples_sha256": "",
        "robot": "kuka_allegro",
        "robot_sha256": "",
        "position_std_mm": 0.8,
        "rotation_std_deg": 0.05,
        "verdict": Grade.OK,
    }
    return Extrinsics(**{**values, **changes})


def lens(width=640, height=480, fovy_deg=40.0, center_px=(0, 0), distortion=(0,) * 5):
    focal = 0.5 * height / math.tan(math.radians(fovy_deg) / 2)
    u, v = (width - 1) / 2 + center_px[0], (height - 1) / 2 + center_px[1]
    matrix = np.array([[focal, 0, u], [0, focal, v], [0, 0, 1.0]])
    return unrectified("camera", (width, height), matrix, np.array(distortion, dtype=float))


def outside(deviations):
    return [each.name for each in deviations if not each.is_inside]


def test_the_training_pose_itself_is_inside():
    deviations = compare_pose(placed(), TASK)
    assert outside(deviations) == []
    assert [each.value for each in deviations] == pytest.approx([0] * 6, abs=1e-9)


def test_the_range_is_that_of_the_training_and_half_a_pixel():
    """32 x 24 pixels of 36 degrees: half a pixel is 0.78 degrees, and 9.2 mm at 0.68 m."""
    assert math.degrees(HALF_PIXEL_RAD) == pytest.approx(0.776, abs=1e-3)
    deviations = compare_pose(placed(), TASK)
    distance = np.linalg.norm([-0.55 + 1.07, 0.10 - 0.40, 0.25 - 0.61])
    assert deviations[0].allowed == pytest.approx(20 + 1e3 * distance * HALF_PIXEL_RAD)
    assert deviations[3].allowed == pytest.approx(math.degrees(0.05 + HALF_PIXEL_RAD))


@pytest.mark.parametrize(
    ("moved_m", "turned_rad", "named"),
    [
        ((0.028, 0, 0), (0, 0, 0), []),
        ((0.031, 0, 0), (0, 0, 0), ["position x in mm"]),
        ((0, 0, -0.1), (0, 0, 0), ["position z in mm"]),
        ((0, 0, 0), (0.06, 0, 0), []),
        ((0, 0, 0), (0, -0.07, 0), ["rotation about the camera's y in degrees"]),
        ((0, 0, 0), (0, 0, math.pi), ["rotation about the camera's z in degrees"]),
    ],
)
def test_a_camera_beyond_the_range_is_named(moved_m, turned_rad, named):
    assert outside(compare_pose(placed(moved_m, turned_rad), TASK)) == named


def test_rectification_turns_the_camera_that_the_policy_sees_through():
    turn = 0.1
    about_y = np.array(
        [[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]]
    )
    info = lens()
    rectified = CameraInfo(
        "left", 640, 480, info.matrix, info.distortion, info.model, about_y.T, info.projection
    )
    assert outside(compare_pose(placed(), TASK, rectified)) == [
        "rotation about the camera's y in degrees"
    ]
    assert outside(compare_pose(placed(turned_rad=(0, -turn, 0)), TASK, rectified)) == []


def test_a_camera_on_the_hand_is_refused():
    with pytest.raises(ConfigError, match="stands still in 'base'"):
        compare_pose(placed(parent="palm_link", setup="eye-in-hand"), TASK)


@pytest.mark.parametrize(
    ("info", "named"),
    [
        (lens(), []),
        (lens(fovy_deg=35.5), []),
        (
            lens(fovy_deg=30.0),
            [
                "missing width of the field of view in %",
                "missing height of the field of view in %",
            ],
        ),
        (lens(480, 480), ["missing width of the field of view in %"]),
        (lens(center_px=(0, 10)), []),
        (
            lens(center_px=(60, 0)),
            ["offset u of the principal point from the image centre in degrees"],
        ),
        (lens(distortion=(0.02, 0, 0, 0, 0)), []),
        (lens(distortion=(-0.35, 0.1, 0, 0, 0)), ["shift by distortion in px of the policy"]),
    ],
)
def test_a_lens_is_compared_with_the_training_camera(info, named):
    assert outside(compare_lens(info, TASK)) == named


def test_pixels_that_are_not_square_stretch_the_image():
    info = lens()
    stretched = replace_matrix(info, info.matrix @ np.diag([1.0, 1.05, 1.0]))
    assert outside(compare_lens(stretched, TASK)) == ["stretch at the edge in px of the policy"]


def replace_matrix(info, matrix):
    return unrectified(info.name, info.size, matrix, info.distortion)


@pytest.mark.parametrize(("baseline_m", "inside"), [(0.06, True), (0.07, True), (0.08, False)])
def test_the_baseline_is_compared(baseline_m, inside):
    info = lens()
    projection = info.projection.copy()
    projection[0, 3] = -projection[0, 0] * baseline_m
    right = CameraInfo(
        "right", 640, 480, info.matrix, info.distortion, info.model, np.eye(3), projection
    )
    (deviation,) = compare_pair(right, TASK)
    assert deviation.value == pytest.approx(1e3 * (baseline_m - 0.06))
    assert deviation.is_inside is inside


def test_a_right_camera_without_baseline_is_refused():
    with pytest.raises(ConfigError, match="no baseline"):
        compare_pair(lens(), TASK)


@pytest.fixture
def files(tmp_path, bundle_folder):
    """Arguments of `compare` for a camera at its place, without jitter in training."""
    write_camera_info(tmp_path / "left.yaml", lens())
    write_extrinsics(tmp_path / "inside.yaml", placed())
    write_extrinsics(tmp_path / "outside.yaml", placed((0, 0.05, 0)))
    old = stamp_of(datetime(2020, 1, 1, tzinfo=timezone.utc))
    write_extrinsics(tmp_path / "old.yaml", replace(placed(), stamp=old))

    def arguments(name):
        return [
            *("calibrate", "compare", "--bundle", str(bundle_folder)),
            *("--extrinsics", str(tmp_path / name)),
            *("--camera-info", str(tmp_path / "left.yaml"), "--json"),
        ]

    return arguments


def test_the_command_accepts_the_camera_of_the_training(files, capsys):
    assert main(files("inside.yaml")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["inside"] and 0 <= report["age_days"] < 1


def test_the_command_refuses_another_camera_unless_told(files, capsys):
    assert main(files("outside.yaml")) == 2
    shown = capsys.readouterr()
    assert not json.loads(shown.out)["inside"]
    assert shown.err.count("\n") == 1 and "position y in mm +50" in shown.err
    assert main([*files("outside.yaml"), "--allow-outside"]) == 0


def test_the_command_refuses_an_old_calibration(files, capsys):
    assert main(files("old.yaml")) == 2
    assert "days old, at most 30.0 are allowed" in capsys.readouterr().err
