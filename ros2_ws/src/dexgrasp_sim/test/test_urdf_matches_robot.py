"""The URDFs against independent tables, and what a URDF must be."""

import math
import random
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.model import UrdfError
from dexgrasp_sim.robot.robot import load_robot, robot_names
from dexgrasp_sim.robot.urdf import parse_urdf

ROBOTS = {name: load_robot(name) for name in robot_names()}
KUKA = ROBOTS["kuka_allegro"]
FRANKA = ROBOTS["franka_leap"]
TEXT = KUKA.urdf_path.read_text(encoding="utf-8")
BODIES = [
    (robot, link)
    for robot in ROBOTS.values()
    for link in sorted(robot.links)
    if robot.links[link].inertial
]
BODY_IDS = [f"{robot.name}-{link}" for robot, link in BODIES]

every_robot = pytest.mark.parametrize("robot", ROBOTS.values(), ids=ROBOTS)
every_body = pytest.mark.parametrize(("robot", "name"), BODIES, ids=BODY_IDS)


def without_joint(name):
    return re.sub(rf'<joint name="{name}".*?</joint>', "", TEXT, flags=re.S)


def limits(robot, joints):
    """Lower, upper, velocity and effort by joint."""
    columns = (robot.lower, robot.upper, robot.velocity_limit, robot.effort_limit)
    return np.stack(columns, axis=1)[robot.joint_indices(joints)].tolist()


def test_both_robots_are_there():
    assert set(ROBOTS) == {"kuka_allegro", "franka_leap"}
    assert all(robot.name == name for name, robot in ROBOTS.items())


@every_robot
def test_order_is_arm_then_index_middle_ring_thumb(robot):
    assert robot.joint_names == robot.arm_joints + robot.hand_joints
    assert [finger.name for finger in robot.fingers] == ["index", "middle", "ring", "thumb"]
    assert robot.hand_joints == sum((finger.joints for finger in robot.fingers), start=())
    for finger in robot.fingers:
        assert all(joint.startswith(f"{finger.name}_") for joint in finger.joints)


def test_joint_names_are_those_of_the_real_robots():
    assert KUKA.arm_joints == tuple(f"iiwa7_joint_{i}" for i in range(1, 8))
    assert KUKA.hand_joints[0] == "index_joint_0" and KUKA.hand_joints[-1] == "thumb_joint_3"
    assert FRANKA.arm_joints == tuple(f"fr3_joint{i}" for i in range(1, 8))
    assert FRANKA.hand_joints[0] == "index_mcp" and FRANKA.hand_joints[-1] == "thumb_ipl"


def test_limits_are_those_of_the_iiwa_and_the_allegro_hand():
    arm = [2.96706, 2.0944, 2.96706, 2.0944, 2.96706, 2.0944, 3.05433]
    assert KUKA.upper[:7].tolist() == arm and KUKA.lower[:7].tolist() == [-x for x in arm]
    assert KUKA.velocity_limit[:7].tolist() == [
        1.7104, 1.7104, 1.7453, 2.2689, 2.4435, 3.1416, 3.1416,
    ]  # fmt: skip
    assert KUKA.effort_limit[:7].tolist() == [176, 176, 110, 110, 110, 40, 40]
    assert KUKA.upper[7:11].tolist() == [0.558489, 1.727825, 1.727825, 1.727825]
    assert KUKA.lower[19:].tolist() == [0.279244, -0.331603, -0.279244, -0.279244]
    assert set(KUKA.effort_limit[7:]) == {0.7} and set(KUKA.velocity_limit[7:]) == {6.283}


def test_limits_are_those_of_the_franka_research_3():
    """Franka's documentation of the control interface, limits for Franka Research 3."""
    assert limits(FRANKA, FRANKA.arm_joints) == [
        [-2.7437, 2.7437, 2.62, 87],
        [-1.7837, 1.7837, 2.62, 87],
        [-2.9007, 2.9007, 2.62, 87],
        [-3.0421, -0.1518, 2.62, 87],
        [-2.8065, 2.8065, 5.26, 12],
        [0.5445, 4.5169, 4.18, 12],
        [-3.0159, 3.0159, 5.26, 12],
    ]
    assert FRANKA.max_acceleration[:7] == (10.0,) * 7 and FRANKA.max_jerk[:7] == (5000.0,) * 7


def test_limits_are_those_of_the_leap_hand():
    """LEAP_Hand_Sim numbers its joints: 1, 0, 2, 3 of the index finger, ..., 12 to 15 of thumb."""
    finger = [[-0.314, 2.23], [-1.047, 1.047], [-0.506, 1.885], [-0.366, 2.042]]
    thumb = [[-0.349, 2.094], [-0.47, 2.443], [-1.20, 1.90], [-1.34, 1.88]]
    expected = [[*angles, 8.48, 0.95] for angles in (*finger * 3, *thumb)]
    assert limits(FRANKA, FRANKA.hand_joints) == expected


def denavit_hartenberg(theta, rows):
    """Product of Craig's transforms for rows of (a, d, alpha)."""
    pose = np.eye(4)
    for angle, (a, d, alpha) in zip((*theta, 0.0), rows, strict=True):
        c, s, ca, sa = math.cos(angle), math.sin(angle), math.cos(alpha), math.sin(alpha)
        pose = pose @ [
            [c, -s, 0, a],
            [s * ca, c * ca, -sa, -d * sa],
            [s * sa, c * sa, ca, d * ca],
            [0, 0, 0, 1],
        ]
    return pose


def test_the_franka_has_its_makers_denavit_hartenberg_parameters():
    turn = math.pi / 2
    rows = [
        (0, 0.333, 0), (0, 0, -turn), (0, 0.316, turn), (0.0825, 0, turn), (-0.0825, 0.384, -turn),
        (0, 0, turn), (0.088, 0, turn), (0, 0.107, 0),
    ]  # fmt: skip
    kinematics = Kinematics(FRANKA, ["fr3_link0", "fr3_link8"], dtype=torch.float64)
    random_share = np.random.default_rng(0).uniform(size=(20, FRANKA.num_joints))
    q = FRANKA.lower + random_share * (FRANKA.upper - FRANKA.lower)
    poses = kinematics.forward(torch.from_numpy(q))
    for row in range(len(q)):
        base, flange = np.eye(4), np.eye(4)
        base[:3, :3], base[:3, 3] = poses.rotation[row, 0], poses.position[row, 0]
        flange[:3, :3], flange[:3, 3] = poses.rotation[row, 1], poses.position[row, 1]
        expected = base @ denavit_hartenberg(q[row, :7], rows)
        np.testing.assert_allclose(flange, expected, atol=1e-9)


def test_masses_are_those_of_the_makers():
    """Franka's franka_description of the FR3; LEAP_Hand_Sim. Without the mount: an own part."""
    bodies = {name: link.inertial for name, link in FRANKA.links.items()}
    masses = {name: inertial.mass for name, inertial in bodies.items() if inertial}
    arm = [2.3966, 2.92747, 2.93554, 2.2449, 2.6156, 2.32712, 1.81704, 0.627143]
    assert [masses[f"fr3_link{i}"] for i in range(8)] == pytest.approx(arm, rel=1e-5)
    hand = sum(mass for name, mass in masses.items() if not name.startswith(("fr3", "leap_mount")))
    finger, thumb = 0.044 + 0.032 + 0.037 + 0.016, 0.032 + 0.003 + 0.038 + 0.049
    assert hand == pytest.approx(0.237 + 3 * finger + thumb)


@every_robot
def test_gains_name_every_joint(robot):
    assert {"stiff", "paper"} <= set(robot.gains)
    for gains in robot.gains.values():
        for values in (gains.stiffness, gains.damping, gains.armature):
            assert len(values) == robot.num_joints and min(values) > 0


@every_body
def test_inertia_is_physical(robot, name):
    inertial = robot.links[name].inertial
    assert inertial is not None and inertial.mass > 0
    smallest, middle, largest = np.linalg.eigvalsh(inertial.matrix)
    assert smallest > 0
    # no mass distribution has a principal moment above the sum of the other two
    assert largest <= (smallest + middle) * (1 + 1e-5)


@every_body
def test_every_body_shows_what_it_collides_with(robot, name):
    link = robot.links[name]
    assert link.collisions
    assert [(s.kind, s.size, s.origin) for s in link.visuals] == [
        (s.kind, s.size, s.origin) for s in link.collisions
    ]


@pytest.mark.parametrize(
    ("robot", "frames"),
    [(KUKA, {"iiwa7_link_ee", "allegro_mount"}), (FRANKA, {"fr3_link8", "leap_mount"})],
    ids=["kuka_allegro", "franka_leap"],
)
def test_few_primitives_and_all_task_frames(robot, frames):
    assert sum(len(link.collisions) for link in robot.links.values()) <= 40
    assert {*robot.task_frames, *frames, "base"} <= set(robot.frames)
    assert robot.root == "base"


@every_robot
@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_urdf_gives_the_same_model(robot, seed):
    text = robot.urdf_path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    elements = list(root)
    random.Random(seed).shuffle(elements)
    root[:] = elements
    permuted = ElementTree.tostring(root, encoding="unicode")
    assert parse_urdf(permuted, robot.joint_names) == parse_urdf(text, robot.joint_names)


def test_another_joint_order_permutes_the_vectors_only():
    reverse = parse_urdf(TEXT, KUKA.joint_names[::-1])
    assert np.array_equal(reverse.upper[::-1], KUKA.upper)
    assert reverse.joint_indices(["iiwa7_joint_1"]) == [22]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (without_joint("ring_joint_2"), "'ring_joint_2'; add it"),
        (without_joint("palm_joint"), "one tree"),
        (re.sub(r"<limit[^>]*/>", "", TEXT, count=1), "'iiwa7_joint_1' has no <limit>"),
        (TEXT.replace(' velocity="1.7104"', "", 1), "'iiwa7_joint_1': <limit> has no 'velocity'"),
        (TEXT.replace("<sphere radius", "<capsule radius", 1), "<capsule>; use one of box"),
        (TEXT.replace('type="revolute"', 'type="prismatic"', 1), "'prismatic' is not supported"),
        (TEXT.replace('child link="index_tip"', 'child link="tip"'), "names link 'tip'"),
        (TEXT.replace('lower="-2.96706"', 'lower="3"', 1), "'iiwa7_joint_1': limits"),
        (TEXT.replace('lower="-2.96706"', 'lower="nan"', 1), "lower 'nan'; give 1 finite number"),
        (TEXT.replace('lower="-2.96706"', 'lower="low"', 1), "lower 'low'; give 1 finite number"),
        (TEXT.replace('effort="176"', 'effort="inf"', 1), "effort 'inf'; give 1 finite number"),
        (TEXT.replace('<sphere radius="0.075"', "<sphere", 1), "sphere of size ()"),
        (TEXT.replace('xyz="0 0 0.1575"', 'xyz="0 0"', 1), "xyz '0 0'; give 3 finite number"),
        (TEXT.replace('<axis xyz="0 0 1"', '<axis xyz="0 0 0"', 1), "<axis> is 0 0 0; give"),
        (TEXT.replace('mass value="2.7025"', 'mass value="0"'), "'iiwa7_link_1': mass and"),
        (TEXT.replace('ixx="0.0171"', 'ixx="-1"'), "'iiwa7_link_1': mass and principal moments"),
        (TEXT.replace('<link name="iiwa7_link_2"', "<link"), "<link> has no 'name'; add it"),
        (TEXT.replace('<link name="iiwa7_link_2"', '<link name="base"'), "two <link> 'base'"),
        (TEXT.replace('<parent link="base"', "<parent"), "'base_joint': <parent> has no 'link'"),
        (TEXT.replace('rpy="0 0 0"', 'rpy="0 0 90"', 1), "looks like degrees"),
        ("<robot", "not a URDF"),
    ],
)
def test_defects_are_named(text, message):
    assert text != TEXT
    with pytest.raises(UrdfError, match=re.escape(message)) as error:
        parse_urdf(text, KUKA.joint_names)
    assert "\n" not in str(error.value)


def test_a_joint_left_out_of_the_order_is_named():
    with pytest.raises(UrdfError, match="thumb_joint_3"):
        parse_urdf(TEXT, KUKA.joint_names[:-1])
    with pytest.raises(UrdfError, match="no movable joint 'elbow'"):
        KUKA.joint_indices(["elbow"])
