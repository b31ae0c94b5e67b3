import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_sim import linear_algebra
from dexgrasp_sim.control.fabric.body_points import BodyPoints
from dexgrasp_sim.control.fabric.chains import JointChains
from dexgrasp_sim.control.fabric.fabric import Fabric, FabricGains, Goal
from dexgrasp_sim.control.fabric.motion_limits import MotionLimits
from dexgrasp_sim.control.fabric.obstacles import SURROUNDINGS, nearest
from dexgrasp_sim.control.fabric.terms import (
    AttractorGains,
    LimitGains,
    PostureGains,
    RepulsionGains,
    apply_metric,
    attract,
    limit_barrier,
    posture_pull,
    repel,
)
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
FABRIC_DEFAULT_POSTURE = ROBOT.postures["relaxed"]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
PALM = ROBOT.palm
SPEC = ROBOT.fabric
OBSTACLES = (GraspConfig().table_obstacle, *SURROUNDINGS)

LOWER, UPPER = torch.from_numpy(ROBOT.lower), torch.from_numpy(ROBOT.upper)
SPHERES = [(sphere.frame, sphere.offset_m) for sphere in SPEC.body.spheres]
BODY = BodyPoints(ROBOT, SPHERES, dtype=torch.float64)
KINEMATICS = Kinematics(ROBOT, [frame for frame, _ in SPHERES], dtype=torch.float64)
seeds = st.integers(0, 2**31)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_state(seed, count=3):
    rng = generator(seed)
    q = LOWER + (UPPER - LOWER) * torch.rand(count, 23, generator=rng, dtype=torch.float64)
    return q, torch.randn(count, 23, generator=rng, dtype=torch.float64)


def places(q, points=SPHERES):
    """[N, P, 3] of points given by frame and offset, by the plain kinematics."""
    kinematics = Kinematics(ROBOT, [frame for frame, _ in points], dtype=torch.float64)
    offsets, frames = torch.tensor([offset for _, offset in points]), kinematics.forward(q)
    return (frames.rotation @ offsets.double()[:, :, None]).squeeze(-1) + frames.position


def jacobian_of(q, points=SPHERES):
    """[N, P, 3, 23], by automatic differentiation of the plain kinematics."""
    summed = torch.autograd.functional.jacobian(lambda x: places(x, points).sum(0), q)
    return summed.movedim(2, 0)


def test_body_points_lie_and_move_as_the_kinematics_say():
    q, qd = random_state(0)
    state = BODY.at(q.mT, qd.mT)
    assert torch.allclose(state.position.permute(2, 1, 0), places(q), atol=1e-7)
    jacobian = jacobian_of(q)
    velocity = torch.einsum("npaj,nj->npa", jacobian, qd)
    assert torch.allclose(state.velocity.permute(2, 1, 0), velocity, atol=1e-6)
    step = 1e-6
    change = jacobian_of(q + step * qd) - jacobian_of(q - step * qd)
    curvature = torch.einsum("npaj,nj->npa", change / (2 * step), qd)
    assert torch.allclose(state.curvature.permute(2, 1, 0), curvature, atol=1e-5)


def test_metrics_and_forces_pull_back_with_the_jacobian():
    q, qd = random_state(1)
    state, jacobian = BODY.at(q.mT, qd.mT), jacobian_of(q)
    root = torch.randn(3, 31, 3, 3, dtype=torch.float64, generator=generator(2))
    metric = root @ root.mT
    entries = [metric[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    force = torch.randn(3, 2, 31, 3, dtype=torch.float64, generator=generator(3))
    pulled, forces = BODY.pull_back(
        state, torch.stack(entries).permute(0, 2, 1), force.permute(3, 1, 2, 0)
    )
    expected = torch.einsum("npaj,npab,npbk->jkn", jacobian, metric, jacobian)
    assert torch.allclose(pulled, expected, atol=1e-6)
    expected = torch.einsum("npaj,nfpa->fjn", jacobian, force)
    assert torch.allclose(forces, expected, atol=1e-6)


@st.composite
def trees(draw):
    """Parents of joints, which stand before them, and the carriers of points."""
    joints = draw(st.integers(1, 9))
    parents = [draw(st.sampled_from([None, *range(joint)])) for joint in range(joints)]
    return parents, draw(st.lists(st.integers(0, joints - 1), min_size=1, max_size=12))


@given(trees(), seeds)
def test_sums_along_any_tree_are_products_with_its_matrix(tree, seed):
    parents, carriers = tree
    moved_by = torch.eye(len(parents), dtype=torch.float64)  # 1 where the column moves the row
    for joint, parent in enumerate(parents):
        if parent is not None:
            moved_by[joint] += moved_by[parent]
    rng = generator(seed)
    origins, points, values, loads = (
        torch.randn(len(each), size, generator=rng, dtype=torch.float64)
        for each, size in ((parents, 3), (carriers, 3), (parents, 4), (carriers, 4))
    )
    chains = JointChains(parents, carriers, origins, points)
    order, moves = chains.order, moved_by[carriers]
    summed = chains.accumulate_(values[order].clone())
    assert torch.allclose(summed, (moved_by @ values)[order])
    assert torch.allclose(chains.at_points(summed), moves @ values)
    assert torch.allclose(chains.collect(chains.by_round(loads)), (moves.mT @ loads)[order])
    assert torch.equal(chains.moves(torch.arange(len(carriers))), moves.mT[order])
    some = slice(len(carriers) // 2, None)
    if len(carriers) > 1:
        assert torch.allclose(chains.some(some).at_points(summed), (moves @ values)[some])


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_chain_lengths_bound_the_distance_of_joint_and_sphere(seed):
    q, _ = random_state(seed, count=20)
    children = [ROBOT.joints[name].child for name in ROBOT.joint_names]
    origins = Kinematics(ROBOT, children, dtype=torch.float64).forward(q).position
    distance = (places(q)[:, :, None] - origins[:, None]).norm(dim=-1)
    turns = torch.eye(23, dtype=torch.float64)[BODY.chains.order]  # one joint by one radian each
    bounds = BODY.chains.reach(BODY.chains.accumulate_(turns))  # [31, 23]
    moves = torch.zeros(31, 23, dtype=torch.float64)
    for row, (frame, _) in enumerate(SPHERES):
        moves[row, KINEMATICS.chain(frame).joint_indices] = 1.0
    assert ((distance - bounds) * moves).max() < 1e-6
    assert torch.count_nonzero(bounds[moves == 0]) == 0
    # the nearest joint's bound is exact
    assert torch.allclose(distance[0, 30, 22], bounds[30, 22], atol=1e-6)


def test_there_are_31_spheres_and_the_hand_has_22():
    body = SPEC.body
    assert len(body.spheres) == 31 and len(body.hand) == 22
    assert {body.spheres[i].frame for i in body.upper_arm} == {"iiwa7_link_2"}
    frames = [body.spheres[i].frame for i in body.hand]
    assert frames[0] == PALM and all("_link_" in frame for frame in frames[1:])
    assert not any("iiwa" in frame for frame in frames)


@pytest.mark.parametrize(
    ("point", "distance", "normal"),
    [
        ((0, 0, 5), 3, (0, 0, 1)),
        ((-4, 0.5, 0), 3, (-1, 0, 0)),
        ((4, -5, 0), 5, (0.6, -0.8, 0)),  # edge: 3 and 4 beyond
        ((3, 3, 3), math.sqrt(9), (2 / 3, 2 / 3, 1 / 3)),  # corner: 2, 2 and 1 beyond
        ((0.5, 0.5, 1), 0, (0, 0, 0)),  # inside
    ],
)
def test_nearest_point_of_a_box(point, distance, normal):
    points = torch.tensor(point).double().view(3, 1, 1)
    half = torch.tensor([1.0, 1.0, 2.0]).double().view(3, 1)
    found = nearest(points, torch.zeros(3, 1, 1).double(), half)
    assert found.distance.item() == pytest.approx(distance)
    assert found.normal.flatten().tolist() == pytest.approx(list(normal))


def test_attractor_is_constant_far_away_and_damped_at_the_goal():
    gains = AttractorGains(metric=1.0)
    far = attract(torch.tensor([[3.0], [4.0]]), torch.zeros(2, 1), gains)
    assert far.flatten().tolist() == pytest.approx([-30.0, -40.0])
    near = attract(torch.zeros(2, 1), torch.tensor([[1.0], [0.0]]), gains)
    assert near.flatten().tolist() == pytest.approx([-25.0 * (1 + math.tanh(2.0)), 0.0])
    moving = attract(torch.tensor([[3.0], [4.0]]), torch.ones(2, 1), gains)
    assert torch.allclose(moving, far, atol=1e-4)  # no damping far away


def test_posture_pull_grows_with_the_square_of_the_speed():
    error, velocity = torch.tensor([[0.6], [0.8]]), torch.tensor([[0.1], [0.0]])
    pull = posture_pull(error, velocity, PostureGains(gain=2.0))
    assert pull.flatten().tolist() == pytest.approx([-0.012, -0.016])
    assert torch.allclose(posture_pull(error, 3 * velocity, PostureGains(gain=2.0)), 9 * pull)


def test_limit_barrier_only_acts_on_an_approach():
    lower, upper = torch.tensor([[-1.0]]), torch.tensor([[1.0]])
    gains = LimitGains()
    at_rest = limit_barrier(torch.tensor([[0.99]]), torch.zeros(1, 1), lower, upper, gains)
    assert at_rest.force.item() == at_rest.metric.item() == 0.0
    # leaving the near limit is an approach to the far one, 1.99 away
    leaving = limit_barrier(torch.tensor([[0.99]]), torch.tensor([[-0.5]]), lower, upper, gains)
    gate = math.tanh(2.5)
    assert leaving.metric.item() == pytest.approx(gate * 0.02 / 1.89**2, rel=1e-5)
    term = limit_barrier(torch.tensor([[0.8]]), torch.tensor([[0.5]]), lower, upper, gains)
    assert term.metric.item() == pytest.approx(gate * 0.02 / 0.1**2, rel=1e-5)
    assert term.force.item() == pytest.approx(-gate * 2.0 * (8.0 * gate + 4.0), rel=1e-5)


def test_repulsion_by_one_box():
    gains = RepulsionGains(reach_m=0.4, push_reach_m=0.2)
    half, center = torch.full((3, 1), 0.5), torch.zeros(3, 1, 1)
    point = torch.tensor([0.0, 0.0, 0.7]).view(3, 1, 1)  # gap 0.1 above the box for radius 0.1
    near = nearest(point, center, half)
    clearance = torch.full((1, 1, 1), 0.1)
    velocity = torch.zeros(3, 1, 1)
    strength = 0.01 / 0.1**2 * (1 - 0.1 / 0.4) * 0.5  # half on at rest
    term = repel(near, clearance, velocity, gains)
    assert term.metric.flatten().tolist() == pytest.approx([0, 0, strength, 0, 0, 0])
    assert term.forcing.flatten().tolist() == pytest.approx([0, 0, strength * 0.5])
    assert torch.count_nonzero(term.geometric) == 0
    toward = repel(near, clearance, torch.tensor([0.0, 0.0, -1.0]).view(3, 1, 1), gains)
    assert toward.geometric.flatten().tolist() == pytest.approx([0, 0, 2 * strength * 5.0])
    away = repel(near, clearance, torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1), gains)
    assert away.forcing.abs().max() < 1e-6
    far = repel(near, torch.full((1, 1, 1), -0.3), velocity, gains)  # a gap of 0.5
    ignored = repel(near, torch.full((1, 1, 1), -torch.inf), velocity, gains)
    for term in (far, ignored):
        assert all(torch.count_nonzero(part) == 0 for part in term)


def test_applying_a_metric_is_a_matrix_product():
    entries, vector = torch.randn(6, 2, 3), torch.randn(3, 2, 3)
    xx, yy, zz, xy, xz, yz = entries
    matrix = torch.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz)).view(3, 3, 2, 3)
    expected = torch.einsum("abpn,bpn->apn", matrix, vector)
    assert torch.allclose(apply_metric(entries, vector), expected, atol=1e-6)


def make_limits(dt_s=1 / 60, dtype=torch.float32):
    arm = torch.tensor([7.5, 7.5, 10, 10, 10, 20, 20], dtype=dtype)
    acceleration = torch.cat((arm, torch.full((16,), 22.5, dtype=dtype)))
    jerk = torch.cat((500 * arm, torch.full((16,), 2250.0, dtype=dtype)))
    velocity = torch.from_numpy(ROBOT.velocity_limit).to(dtype)
    return MotionLimits(LOWER.to(dtype), UPPER.to(dtype), velocity, acceleration, jerk, dt_s)


def make_fabric(gains, dtype=torch.float64):
    posture = torch.tensor(FABRIC_DEFAULT_POSTURE, dtype=dtype)
    limits = make_limits(dtype=dtype)
    return Fabric(gains, ROBOT, SPEC, posture, OBSTACLES, 0.001, limits)


def state_near_the_table(seed, count):
    rng = generator(seed)
    q = torch.tensor(ARM_PREGRASP + HAND_REST).double().repeat(count, 1)
    q = q + 0.15 * torch.randn(count, 23, generator=rng, dtype=torch.float64)
    qd = torch.randn(count, 23, generator=rng, dtype=torch.float64)
    return torch.minimum(torch.maximum(q, LOWER), UPPER), qd


def test_acceleration_agrees_with_dense_matrices():
    gains = FabricGains()
    fabric = make_fabric(gains)
    q, qd = state_near_the_table(0, 3)
    target = fabric.palm_points(torch.full((3, 3), -0.4).double(), torch.eye(3).double())
    goal = Goal(target, torch.zeros(3, 5).double(), torch.tensor([10.0, 0.0, 20.0]).double())
    points = [*SPHERES, *((PALM, tuple(row)) for row in (0.25 * palm_points().T).tolist())]
    body = BodyPoints(ROBOT, points, dtype=torch.float64)
    state = body.at(q.mT, qd.mT)
    jacobian = jacobian_of(q, points)
    terms = fabric._point_terms(goal, state, fabric._nearest(state.position[:, :31]))
    xx, yy, zz, xy, xz, yz = terms.metric
    metric = torch.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz)).view(3, 3, 38, 3)
    total = torch.einsum("npaj,abpn,npbk->njk", jacobian, metric, jacobian)
    bend = torch.einsum(
        "npaj,apn->nj", jacobian, terms.geometric - apply_metric(terms.metric, state.curvature)
    )
    pull = torch.einsum("npaj,apn->nj", jacobian, terms.forcing)
    axes = torch.zeros(5, 23).double()
    axes[:, 7:] = SPEC.hand_pca.axes
    total += torch.eye(23) + 8.0 * axes.mT @ axes
    posture = torch.tensor(FABRIC_DEFAULT_POSTURE).double()
    bend += posture_pull((q - posture).mT, qd.mT, gains.posture).mT
    hand = attract(axes @ q.mT, axes @ qd.mT, gains.hand)
    barrier = limit_barrier(q.mT, qd.mT, LOWER[:, None], UPPER[:, None], gains.joint_limits)
    pull += 8.0 * hand.mT @ axes + barrier.force.mT
    total += torch.diag_embed(barrier.metric.mT)
    bend, pull = torch.linalg.solve(total, torch.stack((bend, pull), 2)).unbind(2)
    along = (qd * bend).sum(1, keepdim=True) / (qd.square().sum(1, keepdim=True) + 1e-6)
    expected = bend + pull - (along + goal.damping[:, None]) * qd
    assert torch.allclose(fabric.acceleration(q, qd, goal), expected, rtol=1e-6, atol=1e-6)


def palm_points():
    identity = torch.eye(3)
    return torch.cat((torch.zeros(3, 1), identity, -identity), 1)


def test_geometric_terms_keep_the_speed():
    silent = {"acceleration": 1e-9, "damping_per_s": 0.0}
    gains = FabricGains(
        palm=AttractorGains(metric=1.0, **silent),
        hand=AttractorGains(metric=8.0, **silent),
        joint_limits=LimitGains(metric=0.0),
        repulsion=RepulsionGains(acceleration_m_s2=0.0),
    )
    fabric = make_fabric(gains)
    q, qd = state_near_the_table(1, 8)
    nowhere = torch.zeros(8, 3, 7).double(), torch.zeros(8, 5).double()
    goal = Goal(*nowhere, damping=torch.zeros(8).double())
    qdd = fabric.acceleration(q, qd, goal)
    power = (qd * qdd).sum(1) / (qd.norm(dim=1) * qdd.norm(dim=1))
    assert qdd.norm(dim=1).min() > 0.1  # they do bend the path
    assert power.abs().max() < 1e-4


@pytest.mark.parametrize("ordered", [True, False])
def test_sums_and_cross_products(monkeypatch, ordered):
    monkeypatch.setattr(linear_algebra, "keeps_order", lambda values: ordered)
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4))
    found = linear_algebra.cross(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose(found, np.cross(a, b, axis=0))
    rows = np.random.default_rng(1).normal(size=(2, 23, 4))
    found = linear_algebra.sum_rows(torch.from_numpy(rows), 1).numpy()
    assert np.allclose(found, rows.sum(1))
