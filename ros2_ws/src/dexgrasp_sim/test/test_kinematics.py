import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_sim.robot.kinematics import Chain, Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.robot.rotation import (
    matrix_to_quaternion,
    matrix_to_zyx_euler,
    quaternion_to_matrix,
    rotation_vector,
    rpy_to_matrix,
    zyx_euler_to_matrix,
)
from dexgrasp_sim.robot.urdf import parse_urdf

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
FABRIC_DEFAULT_POSTURE = ROBOT.postures["relaxed"]
GRASP_CENTER = ROBOT.grasp_center
JOINT_NAMES = ROBOT.joint_names
PALM = ROBOT.palm
RESET_POSTURE = ROBOT.postures["reset"]
TASK_FRAMES = ROBOT.task_frames
URDF_PATH = ROBOT.urdf_path

HAND_OPEN = ROBOT.postures["pregrasp"][ROBOT.hand]
FRAMES = (*TASK_FRAMES, "iiwa7_link_ee", "iiwa7_link_3", "base")
KINEMATICS = Kinematics(ROBOT, FRAMES, dtype=torch.float64)
angle = st.floats(-math.pi, math.pi)
fraction = st.floats(0.0, 1.0)
postures = st.lists(fraction, min_size=23, max_size=23).map(
    lambda u: torch.tensor(ROBOT.lower + np.array(u) * (ROBOT.upper - ROBOT.lower))[None]
)


def pose(posture, frame):
    poses = KINEMATICS.forward(torch.tensor([posture], dtype=torch.float64))
    index = FRAMES.index(frame)
    return poses.position[0, index], poses.rotation[0, index]


def test_palm_at_the_fabric_default_is_the_published_home_pose():
    position, rotation = pose(FABRIC_DEFAULT_POSTURE, PALM)
    assert position.tolist() == pytest.approx([-0.6868, 0.0320, 0.6685], abs=1e-4)
    zyx = matrix_to_zyx_euler(rotation).tolist()
    assert zyx == pytest.approx([-2.3873, -0.0824, 3.1301], abs=1e-4)


def test_palm_at_reset_and_at_zero():
    assert pose(RESET_POSTURE, PALM)[0].tolist() == pytest.approx(
        [-0.5443, -0.1302, 0.8572], abs=1e-4
    )
    zero = (0.0,) * 23
    assert pose(zero, PALM)[0][2].item() == pytest.approx(1.3729, abs=1e-4)
    assert pose(zero, "iiwa7_link_ee")[0].tolist() == pytest.approx([0, 0, 1.292], abs=1e-4)


def test_pregrasp_puts_the_grasp_center_over_the_table_palm_down():
    position, rotation = pose(ARM_PREGRASP + HAND_OPEN, GRASP_CENTER)
    assert position.tolist() == pytest.approx([-0.55, 0.10, 0.42], abs=1e-4)
    wanted = zyx_euler_to_matrix(torch.tensor([-2 * math.pi / 3, 0, math.pi]).double())
    assert torch.allclose(rotation, wanted, atol=1e-4)
    assert rotation[:, 2].tolist() == pytest.approx([0, 0, -1], abs=1e-4)
    jacobian = (
        KINEMATICS.chain(GRASP_CENTER)
        .forward(torch.tensor([ARM_PREGRASP + HAND_OPEN], dtype=torch.float64))
        .jacobian[0]
    )
    assert torch.linalg.det(jacobian @ jacobian.T).sqrt() > 0.1
    assert np.all(np.abs(ARM_PREGRASP) < 0.8 * ROBOT.upper[:7])


def test_thumb_and_fingers_close_on_the_grasp_center():
    closing = (0.0, 0.45, 0.65, 0.6) * 3 + (1.5, 0.3, 0.2, 0.65)
    center, axes = pose(ARM_PREGRASP + closing, GRASP_CENTER)
    middle, thumb = (
        axes.T @ (pose(ARM_PREGRASP + closing, f"{finger}_tip")[0] - center)
        for finger in ("middle", "thumb")
    )
    assert middle[0] > 0.02 and thumb[0] < -0.02  # one on either side
    for tip in (middle, thumb):
        assert abs(tip[1]) < 0.01 and 0.0 < tip[2] < 0.03


def test_open_hand_keeps_its_tips_clear_of_what_lies_below():
    q = ARM_PREGRASP + HAND_OPEN
    center = pose(q, GRASP_CENTER)[0]
    for frame in TASK_FRAMES[2:]:
        assert pose(q, frame)[0][2] > center[2] - 0.03


@settings(max_examples=25, deadline=None)
@given(postures)
def test_jacobian_is_the_derivative_of_the_pose(q):
    step = 1e-6
    shifted = q + step * torch.cat((torch.eye(23), -torch.eye(23))).double()
    poses = KINEMATICS.forward(shifted)
    for frame in ("thumb_tip", GRASP_CENTER, "iiwa7_link_3"):
        index = FRAMES.index(frame)
        position, rotation = poses.position[:, index], poses.rotation[:, index]
        linear = (position[:23] - position[23:]) / (2 * step)
        turn = rotation_vector(rotation[:23] @ rotation[23:].transpose(1, 2)) / (2 * step)
        jacobian = KINEMATICS.jacobian(q, frame)[0]
        assert torch.allclose(jacobian, torch.cat((linear, turn), 1).T, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(postures)
def test_chain_agrees_with_the_tree(q):
    poses = KINEMATICS.forward(q)
    for frame in ("index_tip", PALM):
        state = KINEMATICS.chain(frame).forward(q)
        assert torch.allclose(state.position, poses.position[:, FRAMES.index(frame)])
        assert torch.allclose(state.rotation, poses.rotation[:, FRAMES.index(frame)])
    assert KINEMATICS.chain(PALM).joint_indices == list(range(7))
    assert KINEMATICS.chain("middle_tip").joint_indices == [*range(7), *range(11, 15)]


def test_batch_rows_are_independent_and_single_precision_suffices():
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(64, 23, generator=generator)
    single = Kinematics(ROBOT, TASK_FRAMES)
    batch = single.forward(q)
    assert batch.position.shape == (64, 6, 3) and batch.rotation.shape == (64, 6, 3, 3)
    assert torch.allclose(batch.position[17:18], single.forward(q[17:18]).position, atol=1e-6)
    exact = KINEMATICS.forward(q.double()).position[:, : len(TASK_FRAMES)]
    assert torch.allclose(batch.position.double(), exact, atol=2e-6)


def test_joints_are_taken_by_name():
    order = JOINT_NAMES[::-1]
    reverse = Kinematics(parse_urdf(URDF_PATH.read_text(), order), FRAMES, dtype=torch.float64)
    q = torch.randn(5, 23, generator=torch.Generator().manual_seed(1)).double()
    assert torch.allclose(reverse.forward(q.flip(1)).position, KINEMATICS.forward(q).position)
    assert torch.allclose(
        reverse.jacobian(q.flip(1), "ring_tip").flip(2), KINEMATICS.jacobian(q, "ring_tip")
    )


def test_the_base_stands_still_and_has_no_chain():
    position, rotation = pose(RESET_POSTURE, "base")
    assert position.tolist() == [0, 0, 0] and torch.equal(rotation, torch.eye(3).double())
    with pytest.raises(ValueError, match="fixed to the base"):
        Chain(ROBOT, "base")


def test_unknown_frame_is_named():
    with pytest.raises(ValueError, match="no frame 'elbow'"):
        Kinematics(ROBOT, ("elbow",))


def test_quarter_turns():
    half_sqrt = math.sqrt(0.5)
    about_z = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    quaternion = torch.tensor([half_sqrt, 0.0, 0.0, half_sqrt])
    assert torch.allclose(quaternion_to_matrix(quaternion), about_z, atol=1e-6)
    assert torch.allclose(rpy_to_matrix(torch.tensor([0.0, 0.0, math.pi / 2])), about_z, atol=1e-6)
    assert torch.allclose(rotation_vector(about_z), torch.tensor([0.0, 0.0, math.pi / 2]))


@given(angle, angle, angle)
def test_rotations_survive_a_round_trip(roll, pitch, yaw):
    matrix = rpy_to_matrix(torch.tensor([roll, pitch, yaw]).double())
    assert torch.allclose(matrix @ matrix.T, torch.eye(3).double())
    quaternion = matrix_to_quaternion(matrix)
    assert quaternion[0] >= 0 and quaternion.norm().item() == pytest.approx(1)
    assert torch.allclose(quaternion_to_matrix(quaternion), matrix)
    # near the pole z and x are not determined, their rotation is up to the square root of eps
    assert torch.allclose(zyx_euler_to_matrix(matrix_to_zyx_euler(matrix)), matrix, atol=1e-7)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(1e-9, math.pi - 1e-3))
def test_rotation_vector_is_axis_times_angle(direction, size):
    axis = torch.tensor(direction).double()
    if axis.norm() < 1e-3:
        return
    vector = axis / axis.norm() * size
    skew = torch.zeros(3, 3).double()
    skew[2, 1], skew[0, 2], skew[1, 0] = vector
    matrix = torch.linalg.matrix_exp(skew - skew.T)
    assert torch.allclose(rotation_vector(matrix), vector, atol=1e-7)
