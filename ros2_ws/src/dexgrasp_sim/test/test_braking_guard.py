import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_sim.control.fabric import braking_guard
from dexgrasp_sim.control.fabric.body_points import BodyPoints
from dexgrasp_sim.control.fabric.braking_guard import BrakingGuard, Gaps
from dexgrasp_sim.control.fabric.motion_limits import MotionLimits
from dexgrasp_sim.control.fabric.obstacles import nearest
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]

LOWER, UPPER = torch.from_numpy(ROBOT.lower), torch.from_numpy(ROBOT.upper)
BODY_SPHERES = ROBOT.fabric.body.spheres
RADII = torch.tensor([sphere.radius_m for sphere in BODY_SPHERES]).double()
SPHERES = [(sphere.frame, sphere.offset_m) for sphere in BODY_SPHERES]
BODY = BodyPoints(ROBOT, SPHERES, dtype=torch.float64)
TABLE = GraspConfig().table
TABLE_CENTER = torch.tensor(TABLE.center_m).double()
TABLE_HALF = 0.5 * torch.tensor(TABLE.size_m).double()
seeds = st.integers(0, 2**31)

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed):
    return torch.Generator().manual_seed(seed)


def make_limits(dt_s=1 / 60, dtype=torch.float32):
    arm = torch.tensor([7.5, 7.5, 10, 10, 10, 20, 20], dtype=dtype)
    acceleration = torch.cat((arm, torch.full((16,), 22.5, dtype=dtype)))
    jerk = torch.cat((500 * arm, torch.full((16,), 2250.0, dtype=dtype)))
    velocity = torch.from_numpy(ROBOT.velocity_limit).to(dtype)
    return MotionLimits(LOWER.to(dtype), UPPER.to(dtype), velocity, acceleration, jerk, dt_s)


def state_near_the_table(seed, count):
    rng = generator(seed)
    q = torch.tensor(ARM_PREGRASP + HAND_REST).double().repeat(count, 1)
    q = q + 0.15 * torch.randn(count, 23, generator=rng, dtype=torch.float64)
    qd = torch.randn(count, 23, generator=rng, dtype=torch.float64)
    return torch.minimum(torch.maximum(q, LOWER), UPPER), qd


@given(seeds, st.floats(1 / 500, 1 / 30), st.floats(0.1, 10.0))
@settings(max_examples=25, deadline=None)
def test_motion_limits_hold_for_any_accelerations(seed, dt_s, pace):
    limits, rng = make_limits(dt_s, torch.float64), generator(seed)
    q = LOWER + (UPPER - LOWER) * torch.rand(16, 23, generator=rng, dtype=torch.float64)
    qd = torch.zeros_like(q)
    path = [q] * 4
    for step in range(60):
        if step % 10 == 0:
            wanted = 1e3 * pace * torch.randn(16, 23, generator=rng, dtype=torch.float64)
            wanted[0, 0] = torch.nan
            wanted[1] = torch.inf
        qd = limits.next_velocity(qd, wanted, limits.bounds(q, qd))
        q = limits.advance(q, qd)
        path.append(q)
    check_limits(torch.stack(path), dt_s)


def check_limits(path, dt_s, slack=1e-6):
    """Backward differences of [T, N, 23] positions against the limits; see `MotionLimits`."""
    velocity, robot = path.diff(dim=0) / dt_s, ROBOT.velocity_limit
    acceleration = velocity.diff(dim=0) / dt_s
    jerk = acceleration.diff(dim=0) / dt_s
    assert (path >= LOWER - slack).all() and (path <= UPPER + slack).all()
    assert (velocity.abs() <= torch.from_numpy(robot) * (1 + slack) + slack).all()
    bound = torch.tensor([7.5, 7.5, 10, 10, 10, 20, 20] + [22.5] * 16)
    assert (acceleration.abs() <= bound * (1 + slack) + slack).all()
    bound = torch.tensor([3750.0, 3750, 5000, 5000, 5000, 10000, 10000] + [2250] * 16)
    assert (jerk.abs() <= bound * (1 + slack) + slack).all()


def test_the_braking_path_is_what_braking_does():
    limits = make_limits(dtype=torch.float64)
    qd = 2.0 * torch.randn(5, 23, dtype=torch.float64, generator=generator(5))
    steps = torch.arange(1.0, 40.0).double().view(1, -1, 1).repeat(5, 1, 1)
    path = limits.braking_path(qd[:, None], steps)
    moved, speed = torch.zeros_like(qd), qd
    for index in range(39):
        moved = moved + limits.dt_s * speed
        assert torch.allclose(path[:, index], moved, atol=1e-9)
        speed = limits.brake(speed)
    assert torch.count_nonzero(speed) == 0
    assert limits.braking_steps(qd).max() < 39
    assert torch.allclose(limits.braking_time(qd) * qd, moved, atol=1e-9)


def test_a_joint_that_moves_at_the_fastest_admissible_speed_stops_at_its_limit():
    limits = make_limits(dtype=torch.float64)
    q, qd = torch.zeros(1, 23).double(), torch.zeros(1, 23).double()
    for _ in range(600):
        wanted = torch.full_like(q, 5.0)
        qd = limits.next_velocity(qd, wanted, limits.bounds(q, qd))
        q = limits.advance(q, qd)
    assert (UPPER - q < 1e-3).all() and (qd.abs() < 1e-2).all()


@given(seeds, st.floats(0.05, 3.0), st.sampled_from([1 / 60, 1 / 240]))
@settings(max_examples=30, deadline=None)
def test_a_certified_velocity_lets_the_robot_stop_above_the_table(seed, pace, dt_s):
    limits = make_limits(dt_s, torch.float64)
    guard = BrakingGuard(limits, BODY.chains)
    q, qd = state_near_the_table(seed, 30)
    qd = torch.minimum(pace * qd, torch.from_numpy(ROBOT.velocity_limit))
    gaps = table_gaps(q)
    safe = ((guard.lack(qd, gaps) <= 0) & (gaps.gap >= 0)).flatten(0, 1).all(0)
    q, qd = q[safe], qd[safe]
    path = [q]
    while len(q) and qd.abs().amax() > 0:
        path += [q + 0.5 * limits.dt_s * qd, q + limits.dt_s * qd]
        q, qd = path[-1], limits.brake(qd)
    assert not len(q) or table_gaps(torch.cat(path)).gap.min() >= 0


@pytest.mark.slow
@given(seeds, st.floats(0.3, 3.0), st.sampled_from([1 / 60, 1 / 240]))
@settings(max_examples=20, deadline=None)
def test_a_few_looks_bound_what_happens_between_them(seed, pace, dt_s):
    """The part of the certificate that is linear in the joints, against every single step."""
    limits = make_limits(dt_s, torch.float64)
    guard = BrakingGuard(limits, BODY.chains)
    q, qd = state_near_the_table(seed, 20)
    qd = pace * qd * (torch.rand(20, 23, generator=generator(seed)) < 0.2)  # some joints only
    gaps = table_gaps(q)
    last = int(limits.braking_steps(qd).max())
    steps = torch.arange(1.0, last + 1).double().view(1, -1, 1)
    path = limits.braking_path(qd[:, None], steps)
    lowest = torch.full_like(gaps.gap, torch.inf)
    for displacement in path.unbind(1):
        moved = BODY.at(q.mT, displacement.mT).velocity
        lowest = torch.minimum(lowest, (moved[:, None] * gaps.normal).sum(0))
    swept = BODY.chains.accumulate_(path[:, -1].abs().mT[BODY.chains.order])
    remainder = 0.5 * BODY.chains.at_points(swept) * BODY.chains.reach(swept)
    bound = remainder - guard.lack(qd, gaps) - gaps.gap
    assert (bound <= lowest + 1e-9).all()


def table_gaps(q):
    state = BODY.at(q.mT, torch.zeros_like(q.mT))
    center = TABLE_CENTER[:, None, None].expand(-1, 1, len(q))
    found = nearest(state.position, center, TABLE_HALF[:, None])
    gap = found.distance - RADII[:, None]
    return Gaps(gap, found.normal, state.position, state.screws)


def test_slow_motions_are_certified():
    limits = make_limits(dtype=torch.float64)
    guard = BrakingGuard(limits, BODY.chains)
    q, qd = state_near_the_table(7, 200)
    gaps = table_gaps(q)
    clear = gaps.gap[0].amin(0) > 0.02
    lack = guard.lack(0.2 * qd, gaps)
    assert clear.sum() > 50 and (lack[..., clear] <= 0).all()


def test_what_the_guard_admits_is_certified_or_braking_and_within_the_bounds():
    limits = make_limits(dtype=torch.float64)
    guard = BrakingGuard(limits, BODY.chains)
    q, qd = state_near_the_table(7, 400)
    gaps, speed = table_gaps(q), torch.from_numpy(ROBOT.velocity_limit)
    qd = torch.minimum(torch.maximum(qd, -speed), speed)
    bounds = limits.bounds(q, qd)
    wanted = bounds.clip(qd)
    unsafe = (guard.lack(wanted, gaps) > 0).flatten(0, 1).any(0)
    admissible = (bounds.lowest <= bounds.highest).all(1) & (gaps.gap > 0).flatten(0, 1).all(0)
    rows = (unsafe & admissible).nonzero().squeeze(1)
    qd, wanted, bounds, gaps = qd[rows], wanted[rows], bounds.rows(rows), gaps.rows(rows)
    admitted = guard.admit(qd, wanted, bounds, gaps)
    assert ((admitted - bounds.clip(admitted)).abs() < 1e-12).all()
    certified = (guard.lack(admitted, gaps) <= 0).flatten(0, 1).all(0)
    braking = (admitted == limits.brake(qd)).all(1)
    assert (certified | braking).all() and len(rows) > 20 and certified.sum() > 10


def test_not_a_number_is_never_certified():
    guard = BrakingGuard(make_limits(dtype=torch.float64), BODY.chains)
    q, qd = state_near_the_table(8, 2)
    gaps = table_gaps(q)
    bad = qd.clone()
    bad[0, 3] = torch.nan
    limits = make_limits(dtype=torch.float64)
    slow = torch.zeros_like(qd)
    admitted = guard.admit(slow, bad, limits.bounds(q, slow), gaps)
    assert torch.count_nonzero(admitted[0]) == 0  # braking


def test_a_device_gets_the_same_without_the_host_looking_at_its_results(monkeypatch):
    """On other devices than the CPU nothing is left out, whatever cannot change the result."""
    limits = make_limits()
    guard = BrakingGuard(limits, BodyPoints(ROBOT, SPHERES).chains)
    q, qd = state_near_the_table(9, 300)
    gaps = Gaps(*(each.float() for each in table_gaps(q)))
    q, qd = q.float(), qd.float()
    bounds = limits.bounds(q, qd)
    wanted = bounds.clip(qd)
    admitted = guard.admit(qd, wanted, bounds, gaps)
    changed = (admitted != wanted).any(dim=1)
    assert changed.any() and not changed.all()
    monkeypatch.setattr(braking_guard, "known_empty", lambda mask: False)
    monkeypatch.setattr(braking_guard, "rows_to_compute", lambda mask: torch.arange(len(mask)))
    assert torch.equal(guard.admit(qd, wanted, bounds, gaps), admitted)
