"""Whatever comes in, what goes out stays inside the limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dexgrasp_deploy.control.motion.clearance import Cell
from dexgrasp_deploy.control.safety import SafetyConfig, SafetyFilter
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.robot.robot import load_robot

pytestmark = pytest.mark.usefixtures("one_thread")

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
VECTORS = arrays(np.float64, JOINTS, elements=FLOATS, fill=FLOATS)
"""A few joints with values of their own and one value for the rest; that is drawn fast."""
STEPS = st.lists(st.tuples(VECTORS, VECTORS), min_size=1, max_size=12)


@pytest.mark.slow
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


SMOOTH = {control_hz: make_filter(1 / control_hz) for control_hz in (15, 60)}
"""Making a filter takes as long as 75 of its steps."""


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    amplitude=st.floats(0.0, 0.2),
    period_s=st.floats(1.5, 5.0),
    control_hz=st.sampled_from([*SMOOTH]),
)
def test_smooth_motion_passes_unchanged(amplitude, period_s, control_hz):
    safety, measured = SMOOTH[control_hz], START
    safety.reset(START)
    for step in range(control_hz * 2):
        phase = 2 * np.pi * step / (control_hz * period_s)
        target = START + amplitude * (1 - np.cos(phase)) * (np.arange(JOINTS) < len(ARM_JOINTS))
        command = safety.filter(target, measured)
        np.testing.assert_array_equal(command.clamped, False)
        measured = command.position


TABLE = Obstacle("table", (-0.5725, 0.088, 0.235), (0.725, 1.16, 0.03))
PREGRASP = np.array(ROBOT.postures["pregrasp"])
GAPS = {"obstacle_gap_m": 0.0, "self_gap_m": 0.0}


def filter_at(posture, control_hz=60, cell=Cell((TABLE,)), **changes):  # noqa: B008
    safety = SafetyFilter(ROBOT, SafetyConfig(**{**GAPS, **changes}), 1 / control_hz, cell)
    safety.reset(posture)
    return safety


def drive(safety, target, periods, measured=None):
    """Commands that follow a target, of an obedient robot."""
    sent = []
    for _ in range(periods):
        at = safety.position if measured is None else measured
        sent.append(safety.filter(target, at))
    return sent


def test_fingertip_stops_at_the_table_and_the_table_is_named():
    safety = filter_at(PREGRASP)
    low = PREGRASP.copy()
    low[1] -= 1.0  # the whole arm leans down
    sent = drive(safety, low, 240)
    gaps = [safety.clearances.worst(command.position)[0] for command in sent]
    assert min(gaps) >= -1e-9
    assert gaps[-1] < 0.02, "it comes near"
    stopped = next(command for command in sent if "clearance" in command.reasons)
    assert stopped.detail.endswith("and table")


def test_hand_stops_at_the_upper_arm():
    folded = PREGRASP.copy()
    folded[:7] = [0.0, -1.0, 0.0, 2.0, 0.0, 1.9, 0.0]
    safety = filter_at(PREGRASP, cell=Cell())
    sent = drive(safety, folded, 400)
    assert min(safety.clearances.worst(command.position)[0] for command in sent) >= -1e-9


def test_palm_and_fingertips_stay_in_the_workspace():
    box = ((-0.7, -0.3, 0.27), (-0.3, 0.4, 0.75))
    safety = filter_at(PREGRASP, cell=Cell((), box))
    turned = PREGRASP.copy()
    turned[0] += 1.5
    sent = drive(safety, turned, 240)
    assert min(safety.clearances.worst(command.position)[0] for command in sent) >= -1e-9
    assert any("workspace" in command.detail for command in sent)


def test_robot_that_begins_too_near_may_leave_and_comes_no_nearer():
    near = PREGRASP.copy()
    near[1] -= 0.34
    depth = filter_at(PREGRASP).clearances.worst(near)[0]
    assert -0.03 < depth < 0, "it begins inside by a little"
    safety = filter_at(near)
    lower = near.copy()
    lower[1] -= 0.3
    sent = drive(safety, lower, 60)
    assert safety.clearances.worst(sent[-1].position)[0] >= depth - 1e-9
    sent = drive(safety, PREGRASP, 120)
    np.testing.assert_allclose(sent[-1].position, PREGRASP, atol=1e-3)


def test_overloaded_arm_stops_and_overloaded_finger_closes_no_further():
    safety = filter_at(PREGRASP, cell=Cell(), max_arm_effort=0.5, max_hand_effort=1.0)
    target, effort = PREGRASP + 0.2 * (np.arange(23) < 20), np.full(23, np.nan)
    effort[1] = 0.6 * ROBOT.joints["iiwa7_joint_2"].effort
    effort[8] = 1.1 * ROBOT.joints["index_joint_1"].effort
    for _ in range(30):
        command = safety.filter(target, PREGRASP, effort)
    np.testing.assert_allclose(command.position[:7], PREGRASP[:7], atol=1e-9)
    assert command.position[8] == pytest.approx(PREGRASP[8], abs=1e-9)
    assert command.position[9] == pytest.approx(target[9], abs=1e-3)
    assert "effort" in command.reasons


def test_speed_is_lowered_at_once_as_fast_as_the_joint_can_brake():
    # iiwa7_joint_1 from 1.7104 rad/s, 17.104 rad/s2: 0.285 rad/s less in each period of 1/60 s
    safety = filter_at(PREGRASP, cell=Cell(), max_arm_tracking_rad=9.0)
    target = PREGRASP.copy()
    target[0] += 3.0
    drive(safety, target, 20)
    safety.speed_scale = 0.25
    speeds = [safety.position[0]]
    for _ in range(8):
        speeds.append(safety.filter(target, safety.position).position[0])
    speeds = np.diff(speeds) * 60
    expected = np.maximum(1.7104 - 0.285067 * np.arange(8), 0.25 * 1.7104)
    np.testing.assert_allclose(speeds, expected, atol=1e-3)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        safety.speed_scale = 0.0


def test_policy_takes_over_from_where_the_robot_stands():
    safety = filter_at(PREGRASP, cell=Cell(), blend_s=0.5)
    first = PREGRASP + 0.05
    safety.blend_from(first)
    sent = [safety.filter(first, safety.position).position[0] for _ in range(40)]
    assert sent[0] - PREGRASP[0] < 1e-3, "no jump"
    assert np.all(np.diff(sent) >= -1e-12)
    assert sent[-1] == pytest.approx(first[0], abs=1e-6)


def test_measurement_beyond_a_limit_starts_on_the_limit():
    start = PREGRASP.copy()
    start[[0, 8]] = 1e6, -81.0
    safety = filter_at(start, cell=Cell())
    assert safety.position[0] == ROBOT.upper[0]
    assert safety.position[8] == ROBOT.lower[8]


def test_braking_needs_no_measurement_and_ends_at_rest():
    safety = filter_at(PREGRASP, cell=Cell())
    drive(safety, PREGRASP + 0.3, 10)
    periods = 0
    while not safety.at_rest:
        safety.brake()
        periods += 1
    assert 0 < periods <= 8


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(VECTORS, VECTORS, VECTORS), min_size=1, max_size=8),
    start=arrays(np.float64, JOINTS, elements=st.floats(-0.4, 0.4)),
    control_hz=st.sampled_from([15.0, 60.0]),
    scales=st.lists(st.floats(0.05, 1.0), min_size=8, max_size=8),
)
def test_no_command_leaves_limits_or_touches_anything_whatever_is_measured(
    steps, start, control_hz, scales
):
    """Starts anywhere, also in obstacles: then nothing may come nearer than it was."""
    measured = PREGRASP + start
    safety = filter_at(measured, control_hz)
    least = np.minimum(0.0, safety.clearances.of(safety.position[np.newaxis])[0])
    jerk = np.array(ROBOT.max_jerk) * (1 + 2e-3) / control_hz + 1e-3
    position, velocity, before = safety.position, np.zeros(JOINTS), np.zeros(JOINTS)
    for (target, joints, effort), scale in zip(steps, scales, strict=False):
        safety.speed_scale = scale
        command = safety.filter(target, joints, effort)
        assert np.isfinite(command.position).all()
        assert (command.position >= ROBOT.lower).all() and (command.position <= ROBOT.upper).all()
        assert (safety.clearances.of(command.position[np.newaxis])[0] >= least - 1e-6).all()
        new_velocity = (command.position - position) * control_hz
        acceleration = (new_velocity - velocity) * control_hz
        assert (np.abs(acceleration - before) <= jerk).all()
        position, velocity, before = command.position, new_velocity, acceleration
