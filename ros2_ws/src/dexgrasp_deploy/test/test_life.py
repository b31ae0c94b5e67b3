"""An episode of a robot's life, from home to home, on mock drivers and a clock that is told."""

import numpy as np
import pytest

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason, State, UnfitInput

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

STEPS = 18
LIFE = {"approach_speed": 1.0}


class ClosingPolicy:
    """Stands where a policy runtime does: closes the hand and lifts it, all the time."""

    def __init__(self, manifest):
        self.manifest = manifest
        wanted = ("finger_closure", "thumb_closure", "palm_z")
        action = [float(name in wanted) for name in manifest.action_names]
        self.action = np.array(action, np.float32)

    def reset(self):
        """Remembers nothing."""

    def act(self, observations):
        return self.action, None


class Thing:
    """Something between the fingers: joints that close on it stop 0.1 rad from the open hand."""

    def __init__(self, port, manifest):
        self.there = True
        robot = manifest.robot
        self.open = dict(zip(robot.joint_names, robot.start_position_rad, strict=True))
        self._port, self._send = port, port.send
        port.send = self.send

    def send(self, positions):
        self._send(positions)
        if self.there:
            hand = self._port.drivers[1]
            for name in ("index_joint_1", "thumb_joint_2"):
                hand.write({name: min(positions[name], self.open[name] + 0.1)})


@pytest.fixture
def thing(port, bundle):
    return Thing(port, bundle.manifest)


def make_loop(bundle, robot, port, clock, **changes):
    policy = ClosingPolicy(bundle.manifest)
    return ControlLoop(policy, robot, port, clock, ControlConfig(**{**LIFE, **changes}))


def until(loop, clock, condition, limit_s=60.0):
    """Runs until the condition; a loop that stops before fails the test and says why."""
    end_s = clock.now_s + limit_s
    loop.run(stop=lambda: condition() or not loop.episode.active or clock.now_s > end_s)
    assert condition(), f"{loop.episode.state}: {loop.episode.why}"


def has_ended(loop):
    return lambda: not loop.episode.active


def stands_at_home(port, bundle):
    start = np.array(bundle.manifest.robot.start_position_rad)
    found = np.concatenate([driver.read().position for driver in port.drivers])
    return np.abs(found - start).max() < 0.1


def test_grasp_is_held_with_evidence_and_then_put_down_on_the_way_home(
    bundle, robot, port, clock, thing
):
    loop = make_loop(bundle, robot, port, clock)
    loop.start(lift_height_m=0.05)
    until(loop, clock, lambda: loop.episode.state is State.LIFT)
    until(loop, clock, has_ended(loop))
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.TIME_UP)
    assert loop.progress.success is True
    assert "closed on something" in loop.episode.detail
    lifted_m = loop.progress.evidence.lift_m
    loop.go_home()
    assert loop.episode.state is State.PLACE
    until(loop, clock, lambda: loop.episode.state is State.HOME)
    until(loop, clock, has_ended(loop))
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.AT_HOME)
    assert lifted_m > 0.05 and stands_at_home(port, bundle)


class Wedge:
    """Something that keeps two fingers apart; it falls when they spread further."""

    def __init__(self, port, falls):
        self._port, self._send, self._falls = port, port.send, falls
        self.there = True
        port.drivers[1].write({"index_joint_0": 0.2})
        port.send = self.send

    def send(self, positions):
        self._send(positions)
        self.there = self.there and not (self._falls and positions["index_joint_0"] > 0.3)
        if self.there:
            self._port.drivers[1].write({"index_joint_0": max(positions["index_joint_0"], 0.2)})


def test_what_sticks_between_the_fingers_is_let_go_on_the_way_home(bundle, robot, port, clock):
    loop, wedge = make_loop(bundle, robot, port, clock), Wedge(port, falls=True)
    loop.go_home()
    until(loop, clock, has_ended(loop))
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.AT_HOME)
    assert not wedge.there and stands_at_home(port, bundle)


def test_what_is_put_down_and_sticks_is_let_go_before_the_palm_leaves(
    bundle, robot, port, clock, thing
):
    loop = make_loop(bundle, robot, port, clock, life={"after": "place"})
    loop.start(lift_height_m=0.05)
    until(loop, clock, lambda: loop.episode.state is State.PLACE)
    wedge = Wedge(port, falls=True)
    until(loop, clock, lambda: loop.episode.state is State.HOME)
    assert not wedge.there
    until(loop, clock, has_ended(loop))
    assert loop.episode.reason is Reason.AT_HOME and stands_at_home(port, bundle)


def test_a_finger_that_stays_blocked_is_a_fault_that_names_it(bundle, robot, port, clock):
    loop, _ = make_loop(bundle, robot, port, clock), Wedge(port, falls=False)
    loop.go_home()
    until(loop, clock, has_ended(loop))
    assert (loop.episode.state, loop.episode.reason) == (State.FAULT, Reason.MOTION_TIMEOUT)
    assert loop.episode.detail == "index_joint_0 is 0.20 rad from where it must go"


def test_success_needs_something_in_the_hand(bundle, robot, port, clock):
    loop = make_loop(bundle, robot, port, clock)
    loop.start(lift_height_m=0.05)
    until(loop, clock, has_ended(loop))
    assert (loop.episode.reason, loop.progress.success) == (Reason.TIME_UP, False)
    assert "not closed on anything" in loop.episode.detail


def test_place_ends_at_home(bundle, robot, port, clock, thing):
    loop = make_loop(bundle, robot, port, clock, life={"after": "place"})
    loop.start(lift_height_m=0.05)
    until(loop, clock, lambda: loop.episode.state is State.PLACE)
    until(loop, clock, has_ended(loop))
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.AT_HOME)
    assert loop.progress.success is True and stands_at_home(port, bundle)


@pytest.mark.parametrize("way", ["told", "pulled out", "nobody takes it"])
def test_hand_over(bundle, robot, port, clock, thing, way):
    life = {"after": "hand_over", "hand_over_s": 2.0}
    loop = make_loop(bundle, robot, port, clock, life=life)
    loop.start(lift_height_m=0.05)
    until(loop, clock, lambda: loop.episode.state is State.HAND_OVER)
    for _ in range(5):
        clock.now_s += loop.control_dt_s
        loop.tick()
    assert loop.episode.state is State.HAND_OVER
    if way == "told":
        loop.open_hand()
    thing.there = way != "pulled out"
    until(loop, clock, lambda: loop.episode.state is State.PLACE)
    expected = Reason.TIME_UP if way == "nobody takes it" else Reason.HANDED_OVER
    assert loop.episode.reason is expected
    until(loop, clock, has_ended(loop))
    assert loop.episode.reason is Reason.AT_HOME and stands_at_home(port, bundle)


def test_drop_is_noticed(bundle, robot, port, clock, thing):
    loop = make_loop(bundle, robot, port, clock)
    loop.start(lift_height_m=0.05)
    until(loop, clock, lambda: loop.episode.state is State.LIFT)
    thing.there = False
    until(loop, clock, lambda: loop.episode.state is State.GRASP)
    assert loop.episode.reason is Reason.DROPPED
    until(loop, clock, has_ended(loop))
    assert loop.progress.success is False and loop.progress.evidence.drops == 1


def test_failed_grasp_is_tried_again_from_home(bundle, robot, port, clock):
    loop = make_loop(bundle, robot, port, clock, life={"retries": 1})
    loop.start()
    until(loop, clock, lambda: loop.episode.reason is Reason.TRY_AGAIN)
    until(loop, clock, lambda: loop.episode.state is State.GRASP)
    assert stands_at_home(port, bundle)
    until(loop, clock, has_ended(loop))
    assert (loop.progress.attempts, loop.progress.success) == (2, False)


@pytest.mark.parametrize("state", [State.HOME, State.GRASP, State.HAND_OVER, State.PLACE])
def test_cancel_slows_down_and_holds_in_every_phase(bundle, robot, port, clock, thing, state):
    life = {"after": "place" if state is State.PLACE else "hand_over"}
    loop = make_loop(bundle, robot, port, clock, life=life)
    arm = port.drivers[0]
    arm.write({"iiwa7_joint_1": arm.read().position[0] - 0.3})
    loop.start(lift_height_m=0.05)
    until(loop, clock, lambda: loop.episode.state is state)
    loop.cancel()
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.CANCELLED)
    for _ in range(20):
        clock.now_s += loop.control_dt_s
        loop.tick()
    assert port.sent[-1][1] == port.sent[-2][1]


def test_late_image_is_bridged_for_two_periods(bundle, robot, port, clock, thing):
    loop = make_loop(bundle, robot, port, clock, freshness={"max_image_age_s": 0.05})
    loop.start()
    until(loop, clock, lambda: loop.progress.steps == 3)
    port.frozen_image = port.image()
    loop.tick()  # this image is fresh
    states = []
    for _ in range(4):
        clock.now_s += loop.control_dt_s
        loop.tick()
        states.append(loop.episode.state)
    assert states == [State.GRASP, State.GRASP, State.HOLD, State.HOLD]
    assert (loop.progress.reused, loop.episode.reason) == (2, Reason.STALE_IMAGE)


def test_joints_that_stay_away_become_a_fault(bundle, robot, port, clock):
    loop = make_loop(bundle, robot, port, clock)
    loop.start()
    until(loop, clock, lambda: loop.progress.steps == 3)
    port.frozen_joints = port.joints()
    until(loop, clock, has_ended(loop))
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.STALE_JOINTS)
    for _ in range(30):
        clock.now_s += loop.control_dt_s
        loop.tick()
    assert loop.episode.state is State.FAULT


def test_emergency_stop_is_kept_until_its_cause_is_gone(bundle, robot, port, clock):
    loop = make_loop(bundle, robot, port, clock)
    loop.start()
    until(loop, clock, lambda: loop.progress.steps == 3)
    loop.hinder(Reason.EMERGENCY_STOP, "pressed")
    assert (loop.episode.state, loop.episode.why) == (State.FAULT, "emergency stop: pressed")
    with pytest.raises(UnfitInput, match="pressed"):
        loop.release()
    with pytest.raises(UnfitInput, match="FAULT"):
        loop.start()
    loop.allow(Reason.EMERGENCY_STOP)
    loop.release()
    loop.start()
    until(loop, clock, has_ended(loop))
    assert loop.episode.reason is Reason.TIME_UP


def test_emergency_stop_of_an_idle_robot_sends_nothing(bundle, robot, port, clock):
    loop = make_loop(bundle, robot, port, clock)
    loop.hinder(Reason.EMERGENCY_STOP, "pressed")
    for _ in range(3):
        clock.now_s += loop.control_dt_s
        loop.tick()
    assert loop.episode.state is State.FAULT and not port.sent


def test_reset_begins_where_the_robot_is_measured(bundle, robot, port, clock):
    loop = make_loop(bundle, robot, port, clock)
    loop.start()
    until(loop, clock, lambda: loop.progress.steps == 3)
    loop.cancel()
    loop.release()
    arm = port.drivers[0]
    moved = arm.read().position[0] - 0.25
    arm.write({"iiwa7_joint_1": moved})  # somebody moves the arm meanwhile
    port.sent.clear()
    loop.start()
    loop.tick()
    assert port.sent[0][1]["iiwa7_joint_1"] == pytest.approx(moved, abs=0.01)
    until(loop, clock, lambda: loop.episode.state is State.GRASP)
