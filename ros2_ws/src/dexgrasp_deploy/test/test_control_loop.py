"""The control loop on mock drivers and a clock that only moves when somebody waits."""

import numpy as np
import pytest

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason, State, UnfitInput
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime
from dexgrasp_deploy.control.safety import SafetyConfig
from dexgrasp_deploy.drivers.base import JointSample

DT_S = 1 / 15
STEPS = 18  # 1.2 s at 15 Hz


class ConstantPolicy:
    """Stands where a policy runtime does; gives one action, and may take its time."""

    def __init__(self, manifest, action, clock=None, slow_step=-1, slow_s=0.0):
        self.manifest = manifest
        self.action = np.asarray(action, np.float32)
        self.clock, self.slow_step, self.slow_s = clock, slow_step, slow_s
        self.calls = self.resets = 0

    def reset(self):
        self.resets += 1

    def act(self, observations):
        if self.calls == self.slow_step:
            self.clock.now_s += self.slow_s
        self.calls += 1
        return self.action, None


@pytest.fixture
def still(bundle):
    return ConstantPolicy(bundle.manifest, np.zeros(len(bundle.manifest.action_names)))


@pytest.fixture
def sideways(bundle):
    names = bundle.manifest.action_names
    return ConstantPolicy(bundle.manifest, [float(name == "palm_y") for name in names])


def make_loop(policy, robot, port, clock, **changes):
    return ControlLoop(policy, robot, port, clock, ControlConfig(**changes))


def until(loop, clock, condition, limit_s=60.0):
    """Runs until the condition; a loop that stops before fails the test and says why."""
    end_s = clock.now_s + limit_s
    loop.run(stop=lambda: condition() or not loop.episode.active or clock.now_s > end_s)
    assert condition(), f"{loop.episode.state}: {loop.episode.why}"


def run_episode(loop, clock, limit_s=60.0):
    until(loop, clock, lambda: not loop.episode.active, limit_s)


def move_away(port, radians):
    arm = port.drivers[0]
    sample = arm.read()
    moved = (sample.position - radians).tolist()
    arm.write(dict(zip(sample.names, moved, strict=True)))


def joined(samples):
    """One sample of several."""
    return JointSample(
        tuple(name for sample in samples for name in sample.names),
        np.concatenate([sample.position for sample in samples]),
        np.concatenate([sample.velocity for sample in samples]),
        min(sample.stamp_s for sample in samples),
    )


@pytest.mark.slow
def test_episode_of_a_real_policy(bundle, robot, port, clock):
    loop = make_loop(PolicyRuntime(bundle), robot, port, clock)
    assert loop.episode.state is State.IDLE
    loop.start()
    run_episode(loop, clock)
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.TIME_UP)
    progress = loop.progress
    assert progress.steps == STEPS
    assert progress.control_hz == pytest.approx(15.0)
    assert progress.deadline_misses == 0
    assert progress.clamped_commands == 0
    assert np.isfinite(progress.action).all()
    assert progress.predicted_lift_m is not None
    times = np.array([time_s for time_s, _ in port.sent])
    np.testing.assert_allclose(np.diff(times), DT_S, atol=1e-9)
    assert set(port.sent[-1][1]) == set(robot.joint_names)


@pytest.mark.slow
def test_policy_begins_at_the_start_posture_after_a_slow_approach(still, robot, port, clock):
    start = np.array(still.manifest.robot.start_position_rad)
    move_away(port, np.array([-0.3, 0.3, -0.3, -0.3, 0.3, -0.3, -0.3]))
    loop = make_loop(still, robot, port, clock, approach_speed=0.2)
    loop.start()
    until(loop, clock, lambda: loop.episode.state is State.GRASP)
    sent = np.array([[command[name] for name in robot.joint_names] for _, command in port.sent])
    np.testing.assert_allclose(sent[-1], start, atol=1e-3)
    speed = np.abs(np.diff(sent, axis=0)) / DT_S
    assert (speed <= 0.2 * robot.velocity_limit + 1e-6).all()
    assert speed.max() > 0.1
    assert loop.progress.steps == 0
    assert still.resets == 1


def test_hold_repeats_the_last_command_until_released(sideways, robot, port, clock):
    loop = make_loop(sideways, robot, port, clock)
    loop.start()
    run_episode(loop, clock)
    last = port.sent[-1][1]
    for _ in range(5):
        loop.tick()
    assert len(port.sent) >= STEPS + 5
    for name in robot.joint_names:
        assert port.sent[-1][1][name] == pytest.approx(last[name], abs=0.02)
    assert port.sent[-1][1] == port.sent[-2][1]
    count = len(port.sent)
    loop.release()
    loop.tick()
    assert loop.episode.state is State.IDLE
    assert len(port.sent) == count


def test_one_goal_at_a_time_and_the_next_after_hold(still, robot, port, clock):
    loop = make_loop(still, robot, port, clock)
    loop.start()
    with pytest.raises(UnfitInput, match="HOME"):
        loop.start()
    run_episode(loop, clock)
    loop.start(duration_s=0.4)
    run_episode(loop, clock)
    assert loop.progress.steps == 6
    assert still.resets == 2


def test_cancel_holds(still, robot, port, clock):
    loop = make_loop(still, robot, port, clock)
    loop.start()
    until(loop, clock, lambda: loop.progress.steps == 3)
    loop.cancel()
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.CANCELLED)
    loop.cancel()
    assert loop.episode.reason is Reason.CANCELLED


def advance_to_running(loop, clock):
    loop.start()
    until(loop, clock, lambda: loop.progress.steps == 2)


def test_stale_joints_end_the_episode_and_nothing_is_sent(still, robot, port, clock):
    loop = make_loop(still, robot, port, clock)
    advance_to_running(loop, clock)
    port.frozen_joints = port.joints()
    clock.now_s += 0.5
    loop.tick()
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.STALE_JOINTS)
    loop.tick()
    count = len(port.sent)
    loop.tick()
    assert len(port.sent) == count
    port.frozen_joints = None
    loop.tick()
    assert len(port.sent) == count + 1, "the hold goes on when measurements are back"


def test_stale_image_ends_the_episode(still, robot, port, clock):
    loop = make_loop(still, robot, port, clock)
    advance_to_running(loop, clock)
    port.frozen_image = port.image()
    clock.now_s += 0.35
    loop.tick()
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.STALE_IMAGE)


def test_policy_waits_for_fit_images_and_then_says_what_it_lacked(still, robot, port, clock):
    blind = port.image()
    port.frozen_image = blind
    loop = make_loop(still, robot, port, clock, life={"look_timeout_s": 1.0, "look_s": 0.5})
    loop.start()
    run_episode(loop, clock)
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.STALE_IMAGE)
    assert "allowed 0.3 s" in loop.episode.detail
    assert loop.progress.steps == 0


def test_nothing_moves_without_a_fresh_image(still, robot, port, clock):
    port.frozen_image = port.image()
    clock.now_s += 10.0
    loop = make_loop(still, robot, port, clock)
    with pytest.raises(UnfitInput, match=r"10\.000 s ago, allowed 0\.3 s"):
        loop.start()
    loop.tick()
    assert loop.episode.state is State.IDLE and not port.sent
    assert "camera images are too old" in loop.refusal


def test_measurement_that_is_not_finite_is_a_fault_until_released(still, robot, port, clock):
    loop = make_loop(still, robot, port, clock)
    advance_to_running(loop, clock)
    good = joined(port.joints())
    broken = good.position.copy()
    broken[9] = np.nan
    port.frozen_joints = [JointSample(good.names, broken, good.velocity, clock.now_s)]
    loop.tick()
    assert (loop.episode.state, loop.episode.reason) == (State.FAULT, Reason.BAD_MEASUREMENT)
    assert good.names[9] in loop.episode.detail
    port.frozen_joints = None
    with pytest.raises(UnfitInput, match="FAULT"):
        loop.start()
    loop.release()
    loop.start()
    run_episode(loop, clock)
    assert loop.episode.reason is Reason.TIME_UP


def test_action_that_is_not_finite_is_a_fault(still, robot, port, clock):
    still.action = np.full_like(still.action, np.nan)
    loop = make_loop(still, robot, port, clock)
    loop.start()
    run_episode(loop, clock)
    assert (loop.episode.state, loop.episode.reason) == (State.FAULT, Reason.BAD_ACTION)
    assert all(np.isfinite(list(command.values())).all() for _, command in port.sent)


def test_robot_that_does_not_follow_is_a_fault(sideways, robot, port, clock):
    class Stuck:
        """Joints that measure afresh that they did not move."""

        def joints(self):
            return [JointSample(good.names, good.position, good.velocity, clock.now_s)]

    good = joined(port.joints())
    port.joints = Stuck().joints
    safety = SafetyConfig(max_arm_tracking_rad=0.05)
    loop = make_loop(sideways, robot, port, clock, safety=safety, max_tracking_s=0.4)
    loop.start()
    run_episode(loop, clock)
    assert (loop.episode.state, loop.episode.reason) == (State.FAULT, Reason.TRACKING)
    place = {name: index for index, name in enumerate(good.names)}
    for name in robot.joint_names[:7]:
        lead = abs(port.sent[-1][1][name] - good.position[place[name]])
        assert lead <= 0.05 + 0.02
    assert loop.progress.clamped_commands > 0


def test_shadow_infers_and_commands_nothing(sideways, robot, port, clock):
    loop = make_loop(sideways, robot, port, clock)
    loop.start(shadow=True)
    run_episode(loop, clock)
    for _ in range(3):
        loop.tick()
    assert loop.progress.steps == STEPS
    assert sideways.calls == STEPS
    assert not port.sent


def test_late_step_skips_the_slots_it_missed(bundle, robot, port, clock):
    action = np.zeros(len(bundle.manifest.action_names))
    # a step of 2.5 periods: its own deadline and one more are missed, then the grid is kept
    policy = ConstantPolicy(bundle.manifest, action, clock, slow_step=4, slow_s=2.5 * DT_S)
    loop = make_loop(policy, robot, port, clock)
    loop.start()
    begun_s = clock.now_s
    run_episode(loop, clock)
    assert loop.progress.deadline_misses == 2
    assert loop.progress.steps == STEPS
    phases = (np.array([time_s for time_s, _ in port.sent]) - begun_s) / DT_S
    expected = [1.0] * 4 + [3.5, 0.5] + [1.0] * (STEPS - 6)
    np.testing.assert_allclose(np.diff(phases), expected, atol=1e-6)


def test_slightly_late_step_is_followed_at_once(bundle, robot, port, clock):
    action = np.zeros(len(bundle.manifest.action_names))
    policy = ConstantPolicy(bundle.manifest, action, clock, slow_step=4, slow_s=1.2 * DT_S)
    loop = make_loop(policy, robot, port, clock)
    loop.start()
    run_episode(loop, clock)
    assert loop.progress.deadline_misses == 1
    gaps = np.diff([time_s for time_s, _ in port.sent]) / DT_S
    late = np.flatnonzero(np.abs(gaps - 1.0) > 1e-6)
    np.testing.assert_allclose(gaps[late], [2.2, 0.0, 0.8], atol=1e-6)


def test_loop_runs_on_permuted_drivers_as_on_ordered_ones(bundle, robot, clock, port):
    def commands(flip):
        clock.now_s = 100.0
        own = type(port)(bundle.manifest, robot, clock)
        if flip:
            for driver in own.drivers:
                driver.joint_names = driver.joint_names[::-1]
        loop = make_loop(PolicyRuntime(bundle), robot, own, clock)
        loop.start()
        run_episode(loop, clock)
        return own.sent

    assert commands(flip=False) == commands(flip=True)
