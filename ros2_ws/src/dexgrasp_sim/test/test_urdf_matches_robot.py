import random
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.robot.urdf import UrdfError, parse_urdf

ROBOT = load_robot()
ARM_JOINTS = ROBOT.arm_joints
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
FABRIC_DEFAULT_POSTURE = ROBOT.postures["relaxed"]
GAINS = ROBOT.gains
HAND_CURLED = ROBOT.flat_hand
HAND_JOINTS = ROBOT.hand_joints
JOINT_NAMES = ROBOT.joint_names
RESET_POSTURE = ROBOT.postures["reset"]
TASK_FRAMES = ROBOT.task_frames
URDF_PATH = ROBOT.urdf_path

TEXT = URDF_PATH.read_text(encoding="utf-8")
LINKS = sorted(ROBOT.links)
BODIES = [name for name in LINKS if ROBOT.links[name].inertial]


def without_joint(name):
    return re.sub(rf'<joint name="{name}".*?</joint>', "", TEXT, flags=re.S)


def test_order_is_arm_then_index_middle_ring_thumb():
    assert JOINT_NAMES[:7] == tuple(f"iiwa7_joint_{i}" for i in range(1, 8)) == ARM_JOINTS
    assert JOINT_NAMES[7:] == HAND_JOINTS
    assert HAND_JOINTS[0] == "index_joint_0" and HAND_JOINTS[-1] == "thumb_joint_3"
    assert ROBOT.joint_names == JOINT_NAMES


def test_limits_are_those_of_the_real_robot():
    arm = [2.96706, 2.0944, 2.96706, 2.0944, 2.96706, 2.0944, 3.05433]
    assert ROBOT.upper[:7].tolist() == arm and ROBOT.lower[:7].tolist() == [-x for x in arm]
    assert ROBOT.velocity_limit[:7].tolist() == [
        1.7104, 1.7104, 1.7453, 2.2689, 2.4435, 3.1416, 3.1416,
    ]  # fmt: skip
    assert ROBOT.effort_limit[:7].tolist() == [176, 176, 110, 110, 110, 40, 40]
    assert ROBOT.upper[7:11].tolist() == [0.558489, 1.727825, 1.727825, 1.727825]
    assert ROBOT.lower[19:].tolist() == [0.279244, -0.331603, -0.279244, -0.279244]
    assert set(ROBOT.effort_limit[7:]) == {0.7} and set(ROBOT.velocity_limit[7:]) == {6.283}


@pytest.mark.parametrize(
    "posture",
    [
        RESET_POSTURE,
        FABRIC_DEFAULT_POSTURE,
        RESET_POSTURE[:7] + HAND_CURLED,
        ROBOT.postures["pregrasp"],
        ARM_PREGRASP + (0.0, 1.0, 0.9, 0.8) * 3 + (1.45, 0.2, 0.4, 1.2),  # synergies at 1
    ],
)
def test_postures_are_within_the_limits(posture):
    assert len(posture) == ROBOT.num_joints
    assert np.all(ROBOT.lower <= posture) and np.all(np.array(posture) <= ROBOT.upper)


@pytest.mark.parametrize("gains", GAINS.values(), ids=GAINS)
def test_gains_name_every_joint(gains):
    for values in (gains.stiffness, gains.damping, gains.armature):
        assert len(values) == len(JOINT_NAMES) and min(values) > 0


@pytest.mark.parametrize("name", BODIES)
def test_inertia_is_physical(name):
    inertial = ROBOT.links[name].inertial
    assert inertial is not None and inertial.mass > 0
    smallest, middle, largest = np.linalg.eigvalsh(inertial.matrix)
    assert smallest > 0
    # no mass distribution has a principal moment above the sum of the other two
    assert largest <= (smallest + middle) * (1 + 1e-5)


@pytest.mark.parametrize("name", BODIES)
def test_every_body_shows_what_it_collides_with(name):
    link = ROBOT.links[name]
    assert link.collisions
    assert [(s.kind, s.size, s.origin) for s in link.visuals] == [
        (s.kind, s.size, s.origin) for s in link.collisions
    ]


def test_few_primitives_and_all_task_frames():
    assert sum(len(link.collisions) for link in ROBOT.links.values()) <= 40
    assert set(TASK_FRAMES) | {"base", "iiwa7_link_ee", "allegro_mount"} <= set(ROBOT.frames)
    assert ROBOT.root == "base"


@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_urdf_gives_the_same_model(seed):
    root = ElementTree.fromstring(TEXT)
    elements = list(root)
    random.Random(seed).shuffle(elements)
    root[:] = elements
    shuffled = parse_urdf(ElementTree.tostring(root, encoding="unicode"), JOINT_NAMES)
    assert shuffled == parse_urdf(TEXT, JOINT_NAMES)


def test_another_joint_order_permutes_the_vectors_only():
    reverse = parse_urdf(TEXT, JOINT_NAMES[::-1])
    assert np.array_equal(reverse.upper[::-1], ROBOT.upper)
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
        (TEXT.replace('<sphere radius="0.075"', "<sphere", 1), "sphere of size ()"),
        ("<robot", "not a URDF"),
    ],
)
def test_defects_are_named(text, message):
    with pytest.raises(UrdfError, match=re.escape(message)):
        parse_urdf(text, JOINT_NAMES)


def test_a_joint_left_out_of_the_order_is_named():
    with pytest.raises(UrdfError, match="thumb_joint_3"):
        parse_urdf(TEXT, JOINT_NAMES[:-1])
    with pytest.raises(UrdfError, match="no movable joint 'elbow'"):
        ROBOT.joint_indices(["elbow"])
