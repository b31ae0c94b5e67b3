"""A robot as a value: what its files say and nothing else, whoever reads them and from where."""

import numpy as np
import pytest
import torch

from builders import copy_robot, robot_with_fingers
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, load_robot, robot_names
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
PLAIN = (
    "name",
    "joint_names",
    "arm_joints",
    "hand_joints",
    "fingers",
    "fingertips",
    "thumb",
    "palm",
    "grasp_center",
    "task_frames",
    "touching_links",
    "postures",
    "flat_hand",
    "gains",
    "max_acceleration",
    "max_jerk",
    "palm_velocity",
    "joints",
    "links",
    "root",
    "sha256",
)
ARRAYS = ("lower", "upper", "velocity_limit", "effort_limit")


def test_a_copied_folder_is_the_same_robot(tmp_path):
    copy = load_robot(copy_robot(tmp_path))
    assert copy is not ROBOT and copy.path == tmp_path / "robot.yaml"
    for name in PLAIN:
        assert getattr(copy, name) == getattr(ROBOT, name), name
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(copy, name), getattr(ROBOT, name), err_msg=name)
    mine, other = ROBOT.fabric, copy.fabric
    assert (mine.palm_m, mine.palm_euler_zyx_rad) == (other.palm_m, other.palm_euler_zyx_rad)
    assert mine.body == other.body
    for name in ("axes", "lower", "upper"):
        assert torch.equal(getattr(mine.hand_pca, name), getattr(other.hand_pca, name)), name


def test_a_robot_is_read_once():
    assert load_robot() is load_robot(DEFAULT_ROBOT) is load_robot(ROBOT.path)
    assert load_robot(str(ROBOT.path)) is ROBOT
    assert hash(load_robot(ROBOT.path)) == hash(ROBOT)


@pytest.mark.parametrize("name", robot_names())
def test_every_robot_of_the_package_loads(name):
    robot = load_robot(name)
    assert robot.joint_names == (*robot.arm_joints, *robot.hand_joints)
    assert robot.joint_names[robot.arm] == robot.arm_joints
    assert robot.joint_names[robot.hand] == robot.hand_joints
    assert set(robot.task_frames) <= set(robot.frames)
    assert robot.task_frames[2:] == robot.fingertips


def test_the_hash_changes_with_every_file(tmp_path):
    path = copy_robot(tmp_path)
    assert load_robot(path).sha256 == ROBOT.sha256
    seen = {ROBOT.sha256}
    for number, name in enumerate(("robot.yaml", "robot.urdf", "hand_pca.yaml")):
        folder = tmp_path / str(number)
        path, file = copy_robot(folder), folder / name
        text = file.read_text(encoding="utf-8")
        comment = "<!-- -->\n" if name.endswith(".urdf") else "# changed\n"
        file.write_text(text + comment, encoding="utf-8")
        seen.add(load_robot(path).sha256)
    assert len(seen) == 4


def test_fingers_may_stand_in_any_order(tmp_path):
    order = ("thumb", "ring", "index", "middle")
    robot = robot_with_fingers(tmp_path, order)
    assert robot.fingertips == tuple(f"{name}_tip" for name in order)
    columns = robot.joint_indices(ROBOT.joint_names)
    assert columns != sorted(columns)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(robot, name)[columns], getattr(ROBOT, name))
    for name, posture in ROBOT.postures.items():
        assert tuple(robot.postures[name][column] for column in columns) == posture
    hand = [column - 7 for column in columns[7:]]
    assert torch.equal(robot.fabric.hand_pca.axes[:, hand], ROBOT.fabric.hand_pca.axes)


def change(*keys, to):
    """An edit that sets a value."""

    def edit(values):
        *folders, last = keys
        for key in folders:
            values = values[key]
        values[last] = to

    return edit


@pytest.mark.parametrize(
    ("edit", "file", "needle"),
    [
        (change("fabric", "palm_m", to=[[0, 0, 0]]), "robot.yaml", "`fabric.palm_m"),
        (
            change("fabric", "spheres", "hand", 0, "frame", to="nose"),
            "robot.urdf",
            "no link 'nose', which `fabric.spheres` of the robot file names",
        ),
        (change("fabric", "spheres", "hand", to=[]), "robot.yaml", "`fabric.spheres.hand`"),
        (change("fabric", "principal_components", to="no.yaml"), "no.yaml", "No such file"),
        (
            change("fabric", "principal_components", to="robot.yaml"),
            "robot.yaml",
            "compute it anew for this hand",
        ),
    ],
)
def test_a_wrong_fabric_is_refused(tmp_path, edit, file, needle):
    with pytest.raises(ConfigError) as error:
        load_robot(copy_robot(tmp_path, edit))
    message = str(error.value)
    assert str(tmp_path / file) in message and needle in message and "\n" not in message


def test_a_task_takes_a_name_or_a_path_that_holds_in_any_folder(tmp_path, monkeypatch):
    copy_robot(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    config = parse_config(GraspConfig, {"robot": "mine/robot.yaml"})
    monkeypatch.chdir("/")
    assert config.robot == str(tmp_path / "mine" / "robot.yaml")
    assert config.scene(1).robot is load_robot(tmp_path / "mine" / "robot.yaml")
    assert GraspConfig().load_robot() is ROBOT
    with pytest.raises(ConfigError, match="'kuka' is not one of") as error:
        parse_config(GraspConfig, {"robot": "kuka"})
    assert "\n" not in str(error.value)


def test_a_robot_without_a_fabric_takes_no_fabric_actions(tmp_path):
    path = str(copy_robot(tmp_path, change("fabric", to=None)))
    assert parse_config(GraspConfig, {"robot": path}).load_robot().fabric is None
    with pytest.raises(ConfigError, match=r"has no `fabric`.*use kind velocity, or add it"):
        parse_config(GraspConfig, {"robot": path, "action": {"kind": "fabric"}})
