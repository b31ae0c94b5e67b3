import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from dexgrasp_sim.control.palm_velocity import differential_ik
from dexgrasp_sim.control.palm_velocity.decoder import rotation_about_z
from dexgrasp_sim.control.palm_velocity.differential_ik import DifferentialIk, rotation_error
from dexgrasp_sim.robot.kinematics import Chain
from dexgrasp_sim.robot.robot import load_robot

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
GRASP_CENTER = ROBOT.grasp_center

CHAIN = Chain(ROBOT, GRASP_CENTER)
LOWER, UPPER = (torch.tensor(limit[:7]).float() for limit in (ROBOT.lower, ROBOT.upper))
MAX_STEP = torch.full((7,), 0.15)
IK = DifferentialIk(CHAIN, torch.tensor(ARM_PREGRASP), LOWER, UPPER, MAX_STEP)
START = torch.tensor([ARM_PREGRASP + (0.1,) * 16])
HOME = CHAIN.forward(START)
STEPS = 30  # 2 s at 15 Hz


def target(position, yaw):
    """Pose at a position with the pregrasp orientation turned by yaw about the vertical."""
    return torch.tensor([position]), rotation_about_z(torch.tensor([yaw])) @ HOME.rotation


def solve(ik, position, rotation, steps=STEPS):
    q = START.expand(len(position), -1)
    path = [q]
    for _ in range(steps):
        q = ik.solve(q, position, rotation)
        path.append(q)
    return q, torch.stack(path)


def errors(q, position, rotation):
    """Distance in m and angle in degrees between the reached and the wanted poses."""
    frame = CHAIN.forward(q)
    distance = (frame.position - position).norm(dim=1)
    turn = Rotation.from_matrix(rotation @ frame.rotation.transpose(1, 2)).magnitude()
    return distance.numpy(), np.rad2deg(turn)


def assert_inside_limits(path):
    assert torch.isfinite(path).all()
    assert (path[..., :7] >= LOWER).all() and (path[..., :7] <= UPPER).all()
    assert (path.diff(dim=0)[..., :7].abs() <= MAX_STEP + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.63, -0.50), st.floats(0.07, 0.15), st.floats(0.36, 0.55), st.floats(-0.3, 0.1))
def test_poses_around_the_spawn_centre_are_reached(x, y, z, yaw):
    wanted = target((x, y, z), yaw)
    q, path = solve(IK, *wanted)
    distance, degrees = errors(q, *wanted)
    assert distance[0] < 1e-3 and degrees[0] < 0.5
    assert_inside_limits(path)
    assert torch.equal(q[:, 7:], START[:, 7:])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    st.tuples(*[st.floats(-math.pi, math.pi)] * 3),
)
def test_any_target_leaves_the_arm_finite_inside_limits_and_slow(position, euler):
    rotation = torch.from_numpy(Rotation.from_euler("xyz", euler).as_matrix()).float()[None]
    _, path = solve(IK, torch.tensor([position]), rotation, steps=60)
    assert_inside_limits(path)


def refined(q, position, rotation):
    """Error in m of a bounded nonlinear least-squares solver that starts at `q`."""
    chain = Chain(ROBOT, GRASP_CENTER, dtype=torch.float64)

    def residual(joints):
        full = torch.zeros(1, 23, dtype=torch.float64)
        full[0, :7] = torch.from_numpy(joints)
        frame = chain.forward(full)
        turn = rotation_error(frame.rotation, rotation.double())
        return torch.cat((position.double() - frame.position, turn), dim=1)[0].numpy()

    bounds = ROBOT.lower[:7], ROBOT.upper[:7]
    start = np.clip(q[0, :7].double().numpy(), bounds[0] + 1e-6, bounds[1] - 1e-6)
    return np.linalg.norm(least_squares(residual, start, bounds=bounds).fun)


def test_a_joint_at_its_limit_does_not_keep_a_reachable_pose_from_being_reached():
    """Over the whole workspace, what is missed is out of reach of an optimiser as well."""
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([-0.75, -0.10, 0.27]), torch.tensor([-0.35, 0.30, 0.61])
    position = low + (high - low) * torch.rand(80, 3, generator=generator)
    yaw = 1.6 * torch.rand(80, generator=generator) - 0.8
    rotation = rotation_about_z(yaw) @ HOME.rotation
    q, path = solve(IK, position, rotation, steps=60)
    assert_inside_limits(path)
    distance, degrees = errors(q, position, rotation)
    missed = np.flatnonzero((distance > 4e-3) | (degrees > 2.0))
    assert 0 < len(missed) < 25
    for row in missed.tolist():
        one = slice(row, row + 1)
        assert refined(q[one], position[one], rotation[one]) > 1e-3


def test_the_pose_it_stands_at_is_kept():
    q, path = solve(IK, HOME.position, HOME.rotation)
    assert torch.allclose(q, START, atol=1e-5)
    assert path.std(dim=0).max() < 1e-5


def test_redundancy_returns_to_the_rest_posture():
    """Started with the elbow turned, the arm keeps the pose and turns the elbow back."""
    turned = START.clone()
    turned[0, 2] += 0.3
    for _ in range(20):
        turned = IK.solve(turned, HOME.position, HOME.rotation)
    before = (turned - START).abs().max()
    for _ in range(100):
        turned = IK.solve(turned, HOME.position, HOME.rotation)
        assert (CHAIN.forward(turned).position - HOME.position).norm() < 2e-3
    assert (turned - START).abs().max() < 0.1 * before
    assert before > 0.02


def test_small_steps_follow_the_jacobian():
    """One iteration without rest and damping is the least-norm solution, worked out by numpy."""
    slow = DifferentialIk(
        CHAIN,
        START[0, :7],
        LOWER,
        UPPER,
        MAX_STEP,
        damping_m2=1e-7,
        damping_rad2=1e-7,
        rest_gain=0.0,
        iterations=1,
    )
    offset = torch.tensor([[1e-3, -2e-3, 5e-4]])
    moved = slow.solve(START, HOME.position + offset, HOME.rotation)
    wanted = np.linalg.pinv(HOME.jacobian[0].numpy()) @ np.append(offset.numpy(), [0, 0, 0])
    np.testing.assert_allclose((moved - START)[0, :7], wanted, atol=2e-6)


def test_a_far_target_slows_all_joints_alike():
    far = HOME.position + torch.tensor([[0.0, 0.0, 0.3]])
    args = {"damping_m2": 1e-7, "damping_rad2": 1e-7, "rest_gain": 0.0, "iterations": 1}
    free = DifferentialIk(CHAIN, START[0, :7], LOWER, UPPER, 10 * torch.ones(7), **args)
    slow = DifferentialIk(CHAIN, START[0, :7], LOWER, UPPER, 0.01 * torch.ones(7), **args)
    whole, part = (ik.solve(START, far, HOME.rotation) - START for ik in (free, slow))
    assert part.abs().max().item() == pytest.approx(0.01, rel=1e-3)
    ratio = (part / whole)[0, :7]
    assert torch.allclose(ratio, ratio[0].expand(7), rtol=1e-3)


def test_a_held_joint_leaves_the_rest_of_the_way_to_the_others():
    """With joint 3 pinned where it stands the other six still reach a pose nearby."""
    lower, upper = LOWER.clone(), UPPER.clone()
    lower[2], upper[2] = START[0, 2] - 1e-6, START[0, 2] + 1e-6
    pinned = DifferentialIk(CHAIN, START[0, :7], lower, upper, MAX_STEP)
    wanted = HOME.position + torch.tensor([[0.01, -0.02, 0.01]]), HOME.rotation
    q, _ = solve(pinned, *wanted)
    assert q[0, 2].item() == pytest.approx(START[0, 2].item(), abs=2e-6)
    assert errors(q, *wanted)[0][0] < 2e-3


def test_rows_of_a_batch_do_not_influence_each_other():
    generator = torch.Generator().manual_seed(1)
    position = HOME.position + 0.2 * torch.randn(13, 3, generator=generator)
    rotation = HOME.rotation.expand(13, 3, 3)
    batch, _ = solve(IK, position, rotation)
    for row in range(13):
        single, _ = solve(IK, position[row : row + 1], rotation[row : row + 1])
        assert torch.equal(single[0], batch[row])


def test_a_device_gets_the_same_without_the_host_looking_at_its_results(monkeypatch):
    """On other devices than the CPU all passes are made, also those that change nothing."""
    generator = torch.Generator().manual_seed(2)
    position = HOME.position + 0.3 * torch.randn(40, 3, generator=generator)
    rotation = HOME.rotation.expand(40, 3, 3)
    with_shortcuts, path = solve(IK, position, rotation)
    at_limit = (path[..., :7] == LOWER) | (path[..., :7] == UPPER)
    assert 0 < at_limit.any(dim=0).any(dim=1).sum() < 40
    monkeypatch.setattr(differential_ik, "known_empty", lambda mask: False)
    assert torch.equal(solve(IK, position, rotation)[0], with_shortcuts)


@given(st.tuples(*[st.floats(-1, 1)] * 3), st.floats(0.0, 0.05), st.integers(0, 2**32 - 1))
def test_rotation_error_is_the_rotation_vector_of_small_turns(axis, angle, seed):
    length = np.linalg.norm(axis)
    if length < 1e-3:
        return
    vector = angle * np.array(axis) / length
    rotation = Rotation.random(rng=np.random.default_rng(seed))
    wanted = Rotation.from_rotvec(vector) * rotation
    matrices = (torch.from_numpy(r.as_matrix())[None] for r in (rotation, wanted))
    error = rotation_error(*matrices)[0].numpy()
    # sin(angle) = angle - angle^3 / 6 + ...
    np.testing.assert_allclose(error, vector, atol=angle**3 / 6 + 1e-12)


@pytest.mark.parametrize("degrees", [10, 60, 90, 120])
def test_rotation_error_of_large_turns_is_the_sine_about_the_same_axis(degrees):
    turn = Rotation.from_rotvec([0.0, np.deg2rad(degrees), 0.0]).as_matrix()
    error = rotation_error(torch.eye(3).double()[None], torch.from_numpy(turn)[None])
    np.testing.assert_allclose(error[0], [0, math.sin(math.radians(degrees)), 0], atol=1e-12)
