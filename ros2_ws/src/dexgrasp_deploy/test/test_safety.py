"""Whatever comes in, what goes out stays inside the limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexgrasp_deploy.control.safety import SafetyConfig, SafetyFilter
from dexgrasp_sim.robot.robot import load_robot

ROBOT = load_robot()
ARM_JOINTS = ROBOT.arm_joints

JOINTS = ROBOT.num_joints
START = (ROBOT.lower + ROBOT.upper) / 2
DT_S = 1 / 15


def make_filter(control_dt_s=DT_S, **changes):
    safety = SafetyFilter(ROBOT, SafetyConfig(**changes), control_dt_s)
    safety.reset(START)
    return safety


def test_feasible_target_is_sent_unchanged():
    safety = make_filter()
    target = START + 0.5 * ROBOT.velocity_limit * DT_S
    command = safety.filter(target, START)
    np.testing.assert_allclose(command.position, target, atol=1e-12)
    assert not command.clamped.any()
    assert command.reasons == ()


def test_speed_and_acceleration_of_one_joint_by_hand():
    # iiwa7_joint_1: 1.7104 rad/s, so 17.104 rad/s^2; in 1/60 s the speed may grow by 0.28507 rad/s
    safety = make_filter(1 / 60)
    target = START.copy()
    target[0] += 1.0
    speeds, previous = [], START
    for _ in range(8):
        command = safety.filter(target, previous)
        speeds.append((command.position[0] - previous[0]) * 60)
        previous = command.position
    expected = np.minimum(0.285066667 * np.arange(1, 9), 1.7104)
    np.testing.assert_allclose(speeds[:6], expected[:6], rtol=1e-6)
    assert max(speeds) <= 1.7104 + 1e-9


def test_far_target_is_overshot_by_less_than_the_stopping_distance():
    safety = make_filter(1 / 60)
    target, measured, positions = START.copy(), START, []
    target[0] += 0.3
    for _ in range(120):
        measured = safety.filter(target, measured).position
        positions.append(measured[0])
    stopping = 1.7104 * 0.1 / 2  # v^2 / (2 a) from full speed
    assert max(positions) < target[0] + stopping
    assert positions[-1] == pytest.approx(target[0], abs=1e-4)


def test_only_the_joint_that_was_changed_is_reported():
    safety = make_filter()
    target = START.copy()
    target[3] = 9.0
    command = safety.filter(target, START)
    assert command.clamped.nonzero()[0].tolist() == [3]
    assert command.reasons == ("position_limit", "tracking", "rate_limit")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["target", "measured"])
def test_value_that_is_not_finite_brakes_and_holds(bad, where):
    safety = make_filter()
    moving = START + 0.3 * ROBOT.velocity_limit * DT_S
    last = safety.filter(moving, START).position
    vectors = {"target": moving.copy(), "measured": START.copy()}
    vectors[where][5] = bad
    command = safety.filter(**vectors)
    np.testing.assert_allclose(command.position, last, atol=1e-12)
    assert command.reasons == ("not_finite",)
    assert command.clamped.all()


def test_arm_command_stays_near_the_measured_position():
    safety = make_filter(max_arm_tracking_rad=0.1, max_hand_tracking_rad=1.0)
    target = START.copy()
    target[0] += 1.0
    for _ in range(60):
        command = safety.filter(target, START)  # the arm is stuck
    assert command.position[0] - START[0] == pytest.approx(0.1, abs=1e-6)
    assert "tracking" in command.reasons


def test_joint_outside_its_limits_moves_inward_only():
    safety = SafetyFilter(ROBOT, SafetyConfig(limit_margin_rad=0.1), DT_S)
    start = START.copy()
    start[6] = ROBOT.upper[6]
    safety.reset(start)
    outside, measured = start.copy(), start
    outside[6] += 0.5
    positions = [start[6]]
    for _ in range(30):
        measured = safety.filter(outside, measured).position
        positions.append(measured[6])
    assert np.all(np.diff(positions) <= 1e-12)
    assert positions[-1] == pytest.approx(ROBOT.upper[6] - 0.1, abs=1e-3)


def test_margin_that_leaves_no_range_is_refused():
    with pytest.raises(ValueError, match="leaves a joint no range"):
        make_filter(limit_margin_rad=0.6)


def test_reset_needs_finite_measurements():
    with pytest.raises(ValueError, match="not finite"):
        make_filter().reset(np.full(JOINTS, np.nan))


FLOATS = st.floats(-20, 20) | st.sampled_from([np.nan, np.inf, -np.inf, 1e300])
VECTORS = st.lists(FLOATS, min_size=JOINTS, max_size=JOINTS).map(np.array)
STEPS = st.lists(st.tuples(VECTORS, VECTORS), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS,
    control_hz=st.sampled_from([10.0, 15.0, 60.0, 200.0]),
    margin=st.floats(0, 0.2),
    scale=st.floats(0.05, 1.0),
    full_speed_time_s=st.floats(0.02, 1.0),
)
def test_no_input_leaves_the_limits(steps, control_hz, margin, scale, full_speed_time_s):
    config = SafetyConfig(
        limit_margin_rad=margin, velocity_scale=scale, full_speed_time_s=full_speed_time_s
    )
    safety = SafetyFilter(ROBOT, config, 1 / control_hz)
    lower, upper = ROBOT.lower + margin, ROBOT.upper - margin
    position = np.clip(START, lower, upper)
    safety.reset(position)
    velocity = np.zeros(JOINTS)
    acceleration = ROBOT.velocity_limit / full_speed_time_s
    for target, measured in steps:
        command = safety.filter(target, measured)
        new_velocity = (command.position - position) * control_hz
        assert np.isfinite(command.position).all()
        assert (command.position >= lower - 1e-9).all()
        assert (command.position <= upper + 1e-9).all()
        assert (np.abs(new_velocity) <= scale * ROBOT.velocity_limit + 1e-6).all()
        change = np.abs(new_velocity - velocity) * control_hz
        assert (change <= acceleration * (1 + 1e-6) + 1e-4).all()
        changed = np.abs(command.position - target) > 1e-5
        assert command.clamped[np.isfinite(target) & changed].all()
        position, velocity = command.position, new_velocity


@settings(max_examples=50, deadline=None)
@given(
    amplitude=st.floats(0.0, 0.2),
    period_s=st.floats(1.5, 5.0),
    control_hz=st.sampled_from([15, 60]),
)
def test_smooth_motion_passes_unchanged(amplitude, period_s, control_hz):
    safety = make_filter(1 / control_hz)
    measured = START
    for step in range(control_hz * 2):
        phase = 2 * np.pi * step / (control_hz * period_s)
        target = START + amplitude * (1 - np.cos(phase)) * (np.arange(JOINTS) < len(ARM_JOINTS))
        command = safety.filter(target, measured)
        np.testing.assert_array_equal(command.clamped, False)
        measured = command.position
