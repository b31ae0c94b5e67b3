"""The files that a calibration writes and reads."""

import json
import runpy
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dexgrasp_deploy.calibration.board import BoardConfig
from dexgrasp_deploy.calibration.hand_eye import Setup
from dexgrasp_deploy.calibration.quality import Check, Grade, Verdict
from dexgrasp_deploy.calibration.results.camera_info import (
    CameraInfo,
    project,
    read_camera_info,
    triangulate,
    unrectified,
    write_camera_info,
)
from dexgrasp_deploy.calibration.results.extrinsics import (
    Extrinsics,
    read_extrinsics,
    ros_quaternion,
    stamp_of,
    static_transform_command,
    static_transform_launch,
    write_extrinsics,
)
from dexgrasp_deploy.calibration.samples import (
    FORMAT,
    PalmEntry,
    SampleEntry,
    SampleFile,
    palm_pose,
    read_samples,
    write_samples,
)
from dexgrasp_deploy.calibration.transforms import change_between, from_quaternion, moved
from dexgrasp_sim.config import ConfigError, parse_config, replace, to_dict
from dexgrasp_sim.robot.kinematics import Kinematics

FINITE = st.floats(-10, 10)
NOW = datetime(2026, 11, 26, 18, 40, tzinfo=timezone.utc)


def arrays(*shape):
    count = int(np.prod(shape))
    return st.lists(FINITE, min_size=count, max_size=count).map(lambda v: np.reshape(v, shape))


QUATERNIONS = st.integers(0, 2**32 - 1).map(
    lambda seed: Rotation.random(random_state=seed).as_quat().tolist()
)


def extrinsics(**changes):
    values = {
        "parent": "base",
        "child": "camera_optical_frame",
        "xyz_m": (-1.07, 0.4, 0.61),
        "quaternion_xyzw": (0.6, 0.0, 0.0, 0.8),
        "stamp": stamp_of(NOW),
        "setup": "eye-to-base",
        "rms_px": 0.3,
        "samples": 15,
        "samples_sha256": "ab" * 32,
        "robot": "kuka_allegro",
        "robot_sha256": "cd" * 32,
        "position_std_mm": 0.8,
        "rotation_std_deg": 0.05,
        "verdict": Grade.OK,
    }
    return Extrinsics(**{**values, **changes})


@settings(max_examples=40, deadline=None)
@given(arrays(3, 3), arrays(5), arrays(3, 3), arrays(3, 4), st.floats(1, 5000))
def test_camera_info_comes_back_bit_for_bit(
    tmp_path_factory, matrix, distortion, rectification, projection, focal
):
    matrix[0, 0] = matrix[1, 1] = projection[0, 0] = projection[1, 1] = focal
    matrix[2] = [0, 0, 1]
    info = CameraInfo("left", 640, 480, matrix, distortion, "plumb_bob", rectification, projection)
    path = tmp_path_factory.mktemp("info") / "left.yaml"
    write_camera_info(path, info)
    back = read_camera_info(path)
    assert (back.name, back.size, back.model) == ("left", (640, 480), "plumb_bob")
    for name in ("matrix", "distortion", "rectification", "projection"):
        assert np.array_equal(getattr(back, name), getattr(info, name))


def test_camera_info_has_the_keys_of_camera_info_manager(tmp_path):
    info = unrectified("left", (640, 480), np.diag([600.0, 601.0, 1.0]), np.zeros(5))
    write_camera_info(tmp_path / "left.yaml", info)
    content = yaml.safe_load((tmp_path / "left.yaml").read_text())
    assert list(content) == [
        "image_width",
        "image_height",
        "camera_name",
        "camera_matrix",
        "distortion_model",
        "distortion_coefficients",
        "rectification_matrix",
        "projection_matrix",
    ]
    assert content["projection_matrix"] == {
        "rows": 3,
        "cols": 4,
        "data": [600.0, 0.0, 0.0, 0.0, 0.0, 601.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    assert content["distortion_coefficients"] == {"rows": 1, "cols": 5, "data": [0.0] * 5}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("distortion_model", "magic", "not one of plumb_bob, rational_polynomial, equidistant"),
        ("camera_matrix", {"rows": 1, "cols": 9, "data": [1] * 9}, "is 1x9, not 3x3"),
        ("projection_matrix", {"data": [0] * 12}, "no positive focal lengths"),
        ("distortion_coefficients", {"rows": 1, "cols": 3, "data": [0, 0, 0]}, "4 or 5 numbers"),
        ("camera_matrix", {"rows": 3, "cols": 3, "data": [1, 2]}, "9 finite numbers"),
        ("camera_matrix", {"data": [0, 0, 0, 0, 0, 0, 0, 0, 1]}, "no positive focal lengths"),
        ("camera_matrix", {"data": [float("nan")] * 9}, "9 finite numbers"),
        ("projection_matrix", None, "12 finite numbers"),
        ("image_width", "wide", "positive whole number"),
        ("image_height", 0, "positive whole number"),
    ],
)
def test_a_wrong_camera_info_is_refused_in_one_line(tmp_path, key, value, message):
    path = tmp_path / "left.yaml"
    write_camera_info(path, unrectified("left", (640, 480), np.eye(3), np.zeros(5)))
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), key: value}))
    with pytest.raises(ConfigError, match=message) as error:
        read_camera_info(path)
    assert key in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("plumb_bob", [-0.28, 0.09, 8e-4, -5e-4, -0.01]),
        ("rational_polynomial", [-0.28, 0.09, 8e-4, -5e-4, -0.01, 0.02, 0.0, 0.0]),
        ("equidistant", [0.05, -0.01, 0.002, 0.0]),
    ],
)
def test_pixels_without_distortion_are_the_ideal_ones(model, distortion):
    matrix = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    bent = unrectified("a", (640, 480), matrix, np.array(distortion), model)
    straight = unrectified("a", (640, 480), matrix, np.zeros(5))
    points = np.array([[-0.3, -0.25, 0.7], [0.0, 0.0, 0.5], [0.4, 0.3, 0.8]])
    assert not np.allclose(project(bent, points), project(straight, points), atol=1)
    assert np.allclose(bent.ideal_pixels(project(bent, points)), project(straight, points))


def test_depth_is_focal_length_times_baseline_over_disparity():
    matrix = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    left = unrectified("left", (640, 480), matrix, np.zeros(5))
    projection = left.projection.copy()
    projection[0, 3] = -600 * 0.06
    right = CameraInfo("right", 640, 480, matrix, np.zeros(5), "plumb_bob", np.eye(3), projection)
    point = triangulate(left, right, np.array([[380.0, 270.0]]), np.array([[320.0, 270.0]]))
    assert point == pytest.approx(np.array([[0.06, 0.03, 0.6]]))  # 600 * 0.06 / 60 px


@settings(max_examples=40, deadline=None)
@given(QUATERNIONS, st.lists(FINITE, min_size=3, max_size=3), st.floats(0, 10))
def test_extrinsics_come_back_bit_for_bit(tmp_path_factory, quaternion, xyz, rms):
    written = extrinsics(quaternion_xyzw=tuple(quaternion), xyz_m=tuple(xyz), rms_px=rms)
    path = tmp_path_factory.mktemp("extrinsics") / "extrinsics.yaml"
    write_extrinsics(path, written)
    assert read_extrinsics(path) == written


def test_the_quaternion_is_in_the_order_that_its_name_says():
    """A turn by 90 degrees about x takes y to z."""
    half = np.sqrt(0.5)
    turned = extrinsics(quaternion_xyzw=(half, 0, 0, half)).matrix
    assert turned[:3, :3] @ [0, 1, 0] == pytest.approx([0, 0, 1])
    assert ros_quaternion(turned) == pytest.approx((half, 0, 0, half))


def test_the_static_transform_as_command():
    command = static_transform_command(extrinsics())
    assert command == (
        "ros2 run tf2_ros static_transform_publisher --x -1.070000000 --y 0.400000000 "
        "--z 0.610000000 --qx 0.600000000 --qy 0.000000000 --qz 0.000000000 --qw 0.800000000 "
        "--frame-id base --child-frame-id camera_optical_frame"
    )


def test_the_launch_file_starts_the_same_command(tmp_path, monkeypatch):
    nodes = []
    launch = SimpleNamespace(LaunchDescription=list)
    actions = SimpleNamespace(Node=lambda **values: nodes.append(values))
    monkeypatch.setitem(sys.modules, "launch", launch)
    monkeypatch.setitem(sys.modules, "launch_ros", SimpleNamespace(actions=actions))
    monkeypatch.setitem(sys.modules, "launch_ros.actions", actions)
    path = tmp_path / "static_transform.launch.py"
    path.write_text(static_transform_launch(extrinsics()))
    runpy.run_path(str(path))["generate_launch_description"]()
    words = static_transform_command(extrinsics()).split()
    assert [nodes[0]["package"], nodes[0]["executable"]] == words[2:4]
    assert nodes[0]["arguments"] == words[4:]


def test_the_age_counts_from_the_stamp():
    later = NOW + timedelta(days=3)
    assert extrinsics().age_s(later) == 3 * 86400
    extrinsics().check(later, max_age_s=4 * 86400)
    with pytest.raises(ConfigError, match=r"3\.0 days old, at most 2\.0 are allowed; run `dexg"):
        extrinsics().check(later, max_age_s=2 * 86400)


def test_a_calibration_from_the_future_or_refused_is_not_valid():
    with pytest.raises(ConfigError, match=r"2\.0 h ahead of this computer's clock"):
        extrinsics().check(NOW - timedelta(hours=2), max_age_s=1e9)
    with pytest.raises(ConfigError, match="was refused; calibrate again"):
        extrinsics(verdict=Grade.REFUSE).check(NOW, max_age_s=1e9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quaternion_xyzw": [1, 1, 0, 0]}, "not of unit length"),
        ({"stamp": "yesterday"}, "not of the form"),
        ({"child": "base"}, "both 'base'"),
        ({"child": "my camera"}, "no frame name"),
        ({"samples": 0}, "samples"),
        ({"format": "dexgrasp extrinsics 2"}, "format"),
        ({"rms": 1}, "unknown key `rms`"),
    ],
)
def test_wrong_extrinsics_are_refused_in_one_line(tmp_path, changes, message):
    path = tmp_path / "extrinsics.yaml"
    path.write_text(yaml.safe_dump({**to_dict(extrinsics()), **changes}))
    with pytest.raises(ConfigError, match=message) as error:
        read_extrinsics(path)
    assert "\n" not in str(error.value)


def test_a_missing_calibration_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="make one with `dexgrasp calibrate hand-eye`"):
        read_extrinsics(tmp_path / "extrinsics.yaml")


SAMPLES = st.builds(
    SampleFile,
    st.just(FORMAT),
    st.sampled_from(Setup),
    st.lists(
        st.one_of(
            st.builds(
                SampleEntry,
                st.text("abc01", min_size=1),
                st.dictionaries(st.text("jk12", min_size=1), FINITE),
            ),
            st.builds(
                SampleEntry,
                st.text("abc01", min_size=1),
                st.none(),
                st.builds(PalmEntry, st.tuples(FINITE, FINITE, FINITE), QUATERNIONS.map(tuple)),
            ),
        ),
        max_size=4,
    ).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(SAMPLES)
def test_samples_come_back_as_they_were(tmp_path_factory, file):
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, file)
    content = json.loads((folder / "samples.json").read_text())
    assert parse_config(SampleFile, content) == file


def test_both_quaternion_orders_are_the_same_pose():
    ros = PalmEntry((0.1, 0.2, 0.3), quaternion_xyzw=(0.6, 0.0, 0.0, 0.8))
    ours = PalmEntry((0.1, 0.2, 0.3), quaternion_wxyz=(0.8, 0.6, 0.0, 0.0))
    assert np.array_equal(ros.matrix, ours.matrix)
    assert np.array_equal(ros.matrix, from_quaternion((0.1, 0.2, 0.3), (0.8, 0.6, 0.0, 0.0)))


def test_a_palm_pose_is_the_forward_kinematics(robot):
    posture = dict(zip(robot.joint_names, robot.postures["pregrasp"], strict=True))
    arm = {name: posture[name] for name in robot.arm_joints}
    kinematics = Kinematics(robot, ["palm_link"], dtype=torch.float64)
    expected = kinematics.forward(torch.tensor([robot.postures["pregrasp"]], dtype=torch.float64))
    found = palm_pose(robot, "palm_link", arm)
    assert np.allclose(found[:3, 3], expected.position[0, 0])
    assert np.allclose(found[:3, :3], expected.rotation[0, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iiwa7_joint_2": 57.0}, "iiwa7_joint_2 = 57: outside its limits .* record radians"),
        ({"iiwa7_joint_2": None}, "iiwa7_joint_2 is missing; record all joints of the arm"),
    ],
)
def test_wrong_joints_are_named(robot, changes, message):
    arm = {**dict.fromkeys(robot.arm_joints, 0.5), **changes}
    with pytest.raises(ConfigError, match=message):
        palm_pose(robot, robot.palm, {k: v for k, v in arm.items() if v is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold an object"),
        ("{", "not JSON"),
        ('{"format": "x", "setup": "eye-to-base", "samples": []}', "`format` = 'x'"),
        (
            json.dumps({"format": FORMAT, "setup": "on the wall", "samples": []}),
            "`setup` = 'on the wall'",
        ),
        (
            json.dumps({"format": FORMAT, "setup": "eye-to-base", "samples": [{"image": "a"}]}),
            "a: give exactly one of joints_rad and palm",
        ),
        (json.dumps({"format": FORMAT, "setup": "eye-to-base", "samples": []}), "no images"),
        (
            json.dumps(
                {
                    "format": FORMAT,
                    "setup": "eye-to-base",
                    "samples": [
                        {
                            "image": "a.png",
                            "palm": {"xyz_m": [0, 0, 0], "quaternion_wxyz": [1, 0, 0, 0]},
                        }
                    ],
                }
            ),
            "a.png: cannot be read",
        ),
    ],
)
def test_wrong_samples_are_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "samples.json").write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        read_samples(tmp_path, BoardConfig())
    assert "\n" not in str(error.value)


def test_a_folder_without_samples_says_what_is_needed(tmp_path):
    with pytest.raises(ConfigError, match=r"give a folder with samples\.json"):
        read_samples(tmp_path, BoardConfig())


@given(arrays(6).map(lambda values: values / 5), QUATERNIONS)
def test_a_change_of_a_pose_is_found_again(change, quaternion):
    start = from_quaternion([0.1, 0.2, 0.3], quaternion)
    found = change_between(start, moved(start, change))
    assert np.allclose(moved(start, found), moved(start, change))


@pytest.mark.parametrize(
    ("value", "grade"), [(0.9, Grade.OK), (1.0, Grade.OK), (2.0, Grade.POOR), (3.1, Grade.REFUSE)]
)
def test_a_check_grades_by_its_two_limits(value, grade):
    assert Check("error", value, 1.0, 3.0, "fix it").grade is grade
    assert Check("count", -value, -1.0, -3.0, "record more").grade is grade


def test_what_is_no_number_is_refused():
    assert Check("error", float("nan"), 1.0, 3.0, "fix it").grade is Grade.REFUSE


def test_a_verdict_is_its_worst_check_and_names_it_first():
    verdict = Verdict(
        (
            Check("a", 0.0, 1.0, 3.0, ""),
            Check("b", 2.0, 1.0, 3.0, "do x"),
            Check("c", 9.0, 1.0, 3.0, "do y"),
        )
    )
    assert verdict.grade is Grade.REFUSE
    assert verdict.reasons == ("c 9, at most 1 is good; do y", "b 2, at most 1 is good; do x")


def test_a_changed_field_is_checked_again():
    with pytest.raises(ValueError, match="both 'camera_optical_frame'"):
        replace(extrinsics(), parent="camera_optical_frame")
