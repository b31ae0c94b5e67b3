"""Another robot by files: what is wrong in them is named in one line."""

import re
import shutil

import pytest

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot, robot_names

FOLDER = load_robot("franka_leap").path.parent


def copied(folder, name="", pattern=r"\Z", replacement=""):
    """The second robot's files in `folder`, the first match in one of them replaced."""
    for file in FOLDER.iterdir():
        shutil.copy(file, folder)
    if name:
        path = folder / name
        text, count = re.subn(pattern, replacement, path.read_text("utf-8"), count=1)
        assert count == 1
        path.write_text(text, "utf-8")
    return folder / "robot.yaml"


def test_a_robot_is_found_by_the_path_of_its_file(tmp_path):
    robot = load_robot(copied(tmp_path))
    inside = load_robot("franka_leap")
    assert robot.sha256 == inside.sha256 and robot.path == tmp_path / "robot.yaml"
    assert robot.joint_names == inside.joint_names and robot.gains == inside.gains


def test_a_robot_is_loaded_once():
    assert load_robot("franka_leap") is load_robot("franka_leap")
    assert load_robot() is load_robot("kuka_allegro")


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"<limit[^>]*/>", "", "'fr3_joint1' has no <limit>; add lower, upper, effort, velocity"),
        (r'lower="-2.7437"', "", "'fr3_joint1': <limit> has no 'lower'; add it"),
        (r"<cylinder[^>]*/>", '<mesh filename="link1.stl"/>', "<mesh>; use one of box, cylinder"),
        (r'lower="-2.7437" upper="2.7437"', 'lower="-157" upper="157"', "look like degrees"),
        (r'upper="2.7437"', 'upper="7.01"', "look like degrees"),
        (r'name="index_mcp"', 'name="index_knuckle"', "no revolute joint 'index_mcp'; add it"),
        (r'name="palm_link"', 'name="hand"', "names link 'palm_link', which the URDF does not"),
        (r"</robot>", "", "not a URDF"),
    ],
)
def test_a_wrong_urdf_is_refused(tmp_path, pattern, replacement, message):
    path = copied(tmp_path, "robot.urdf", pattern, replacement)
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_robot(path)
    assert str(tmp_path / "robot.urdf") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        ("fr3_joint7]", "fr3_joint8]", "no revolute joint 'fr3_joint8'; add it, or correct"),
        (", ring_dip]", "]", "`postures.reset.hand` has 16 numbers for 15 joints; give one"),
        ("ring_mcp, ring_rot", "middle_mcp, ring_rot", "joint 'middle_mcp' is named twice"),
        ("arm: .0.0, -0.785398,", "arm: [0.0,", "`postures.reset.arm` has 6 numbers for 7 joints"),
        (", -0.50, 0.50]", ", -0.50]", "`postures.reset.hand` has 15 numbers for 16 joints"),
        ("flat_hand: .0.0,", "flat_hand: [", "`flat_hand` has 15 numbers for 16 joints"),
        ("-0.785398", "-45", "postures.reset has fr3_joint2 at -45 rad, outside its limits"),
        ("flat_hand: .0.0,", "flat_hand: [9.0,", "flat_hand has index_mcp at 9 rad, outside"),
        ("  reset:", "  rest:", "`postures` lacks reset; add it"),
        ("  paper:", "  soft:", "`gains` lacks paper; add it"),
        ("  stiff:", "  hard:", "`gains` lacks stiff; add it"),
        ("600, 600, 600, 600", "600, 600", "has 5 numbers for 7 joints; give one for each"),
        ("stiffness: 3.0", "stiffness: 0", "Input should be greater than 0"),
        ("thumb: thumb", "thumb: toe", "thumb 'toe' is none of `fingers`"),
        ("palm: palm_link", "palm: hand", "has no link 'hand', which `palm` of the robot file"),
        ("tip: ring_tip", "tip: nail", "has no link 'nail', which `fingers.ring.tip` of the"),
        (r"\[\[index_base", "[[knuckle", "has no link 'knuckle', which `touching_links` of the"),
        ("thumb_mcp: 0.95", "thumb_mcp: 54", "synergy thumb_closure at 1 has thumb_mcp at 53.5"),
        ("thumb_mcp: 0.95", "thumb_pip: 0.95", "synergy 'thumb_closure' moves 'thumb_pip'"),
        ("name: thumb_closure", "name: finger_closure", "synergy 'finger_closure' is named twice"),
        (r"range: \[0, 1\]", "range: [1, 2]", "range [1, 2] must hold 0"),
        (r"workspace_m: \[\[-0.70", "workspace_m: [[0.70", "not below the upper one"),
        ("urdf: robot.urdf", "urdf: arm.urdf", "`urdf` = 'arm.urdf': cannot be read"),
        ("motion:", "motions:", "`motion` is missing; add it; unknown key `motions`"),
        ("palm_velocity:", "palm_velocity: {", "not valid YAML"),
    ],
)
def test_a_wrong_robot_file_is_refused(tmp_path, pattern, replacement, message):
    path = copied(tmp_path, "robot.yaml", pattern, replacement)
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_robot(path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_robot_is_refused_with_the_choices(tmp_path):
    with pytest.raises(ConfigError, match="'ur5' is not one of franka_leap, kuka_allegro; give"):
        load_robot("ur5")
    with pytest.raises(ConfigError, match="No such file"):
        load_robot(tmp_path / "robot.yaml")
    assert robot_names() == ("franka_leap", "kuka_allegro")
