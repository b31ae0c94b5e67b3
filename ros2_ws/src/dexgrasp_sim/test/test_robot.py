"""Robots from files: that a robot is what its files say, and how wrong files are refused."""

import re

import numpy as np
import pytest
import torch

from builders import copy_robot, robot_with_fingers
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, load_robot, robot_names
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
URDF = ROBOT.urdf_path.read_text(encoding="utf-8")
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


def refusal(path):
    """The message, which is one line and names a file of the robot's folder."""
    with pytest.raises(ConfigError) as error:
        load_robot(path)
    message = str(error.value)
    assert "\n" not in message
    return message


def at(*keys, value):
    """An edit that sets a value; without a value it removes it."""

    def edit(values):
        *folders, last = keys
        for key in folders:
            values = values[key]
        if value is None:
            del values[last]
        else:
            values[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "file", "needle"),
    [
        (at("arm", 0, value="elbow"), "robot.urdf", "no revolute joint 'elbow'"),
        (at("arm", 0, value="iiwa7_joint_2"), "robot.yaml", "'iiwa7_joint_2' is named twice"),
        (at("arm", 6, value=None), "robot.yaml", "`postures.reset.arm` has 7 numbers for 6"),
        (at("palm", value="wrist"), "robot.urdf", "no link 'wrist', which `palm`"),
        (at("grasp_center", value="middle"), "robot.urdf", "which `grasp_center`"),
        (at("fingers", 1, "tip", value="nail"), "robot.urdf", "`fingers.middle.tip`"),
        (at("thumb", value="toe"), "robot.yaml", "thumb 'toe' is none of `fingers`"),
        (at("touching_links", 0, 1, value="knee"), "robot.urdf", "`touching_links`"),
        (at("postures", "relaxed", value=None), "robot.yaml", "`postures` lacks relaxed"),
        (
            at("postures", "reset", "hand", value=[0.0] * 15),
            "robot.yaml",
            "`postures.reset.hand` has 15 numbers for 16 joints",
        ),
        (
            at("postures", "reset", "arm", 1, value=2.5),
            "robot.yaml",
            "postures.reset has iiwa7_joint_2 at 2.5 rad, outside its limits -2.0944 to 2.0944",
        ),
        (at("postures", "reset", "arm", 1, value=90), "robot.yaml", "at 90 rad, outside"),
        (at("flat_hand", value=[0.0]), "robot.yaml", "`flat_hand` has 1 numbers for 16 joints"),
        (at("gains", "paper", value=None), "robot.yaml", "`gains` lacks paper"),
        (at("gains", "stiff", "arm", "damping", value=[1, 2]), "robot.yaml", "for 7 joints"),
        (at("gains", "stiff", "arm", "damping", value=0), "robot.yaml", "gains.stiff.arm.damping"),
        (at("motion", "hand", value=None), "robot.yaml", "`motion.hand` is missing"),
        (
            at("palm_velocity", "synergies", 0, "joints", "toe_joint", value=0.1),
            "robot.yaml",
            "synergy 'finger_closure' moves 'toe_joint', which is no joint",
        ),
        (
            at("palm_velocity", "synergies", 0, "joints", "index_joint_1", value=3.0),
            "robot.yaml",
            "synergy finger_closure at 1 has index_joint_1 at 3.2 rad, outside its limits",
        ),
        (at("fabric", "spheres", "hand", 0, "frame", value="nose"), "robot.urdf", "'nose'"),
        (at("fabric", "principal_components", value="no.yaml"), "no.yaml", "No such file"),
        (at("urdf", value="no.urdf"), "robot.yaml", "`urdf` = 'no.urdf': cannot be read"),
        (at("colour", value="grey"), "robot.yaml", "unknown key `colour`"),
    ],
)
def test_a_wrong_robot_file_is_refused(tmp_path, edit, file, needle):
    message = refusal(copy_robot(tmp_path, edit))
    assert str(tmp_path / file) in message and needle in message


@pytest.mark.parametrize(
    ("old", "new", "needle"),
    [
        (r"<limit[^>]*/>", "", "'iiwa7_joint_1' has no <limit>"),
        (r' velocity="[^"]*"', "", "<limit> has no 'velocity'"),
        (r'lower="-2.96706"', 'lower="-170"', "look like degrees"),
        (r'upper="2.96706"', 'upper="170"', "look like degrees"),
        (r"<cylinder [^>]*/>", '<mesh filename="link_0.stl"/>', "<mesh>; use one of box"),
        (r'<joint name="iiwa7_joint_4".*?</joint>', "", "no revolute joint 'iiwa7_joint_4'"),
        (r"</robot>", "", "not a URDF"),
    ],
)
def test_a_wrong_urdf_is_refused(tmp_path, old, new, needle):
    text, found = re.subn(old, new, URDF, count=1, flags=re.DOTALL)
    assert found == 1
    message = refusal(copy_robot(tmp_path, urdf=text))
    assert str(tmp_path / "robot.urdf") in message and needle in message


def test_a_robot_that_is_not_there_is_refused(tmp_path):
    message = refusal("kuka")
    assert "'kuka' is not one of" in message and DEFAULT_ROBOT in message
    assert str(tmp_path / "none.yaml") in refusal(tmp_path / "none.yaml")


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
    path = str(copy_robot(tmp_path, at("fabric", value=None)))
    assert parse_config(GraspConfig, {"robot": path}).load_robot().fabric is None
    with pytest.raises(ConfigError, match=r"has no `fabric`.*use kind velocity, or add it"):
        parse_config(GraspConfig, {"robot": path, "action": {"kind": "fabric"}})
