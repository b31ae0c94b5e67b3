"""In shadow mode everything is computed and nothing is commanded, whatever is asked for."""

import pytest

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason, State
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime

pytestmark = pytest.mark.slow


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.starts, self.steps = [], []

    def begun(self, start):
        self.starts.append(start)

    def stepped(self, step, progress):
        self.steps.append((step, progress))


def run_until_rest(loop, clock, limit_s=30.0):
    end_s = clock.now_s + limit_s
    loop.run(stop=lambda: not loop.episode.active or clock.now_s > end_s)
    assert not loop.episode.active, loop.episode.why


def test_no_command_leaves_in_any_part_of_an_episodes_life(bundle, robot, port, clock):
    loop = ControlLoop(PolicyRuntime(bundle), robot, port, clock, ControlConfig(shadow=True))
    loop.steps.listener = listener = Listener()
    assert loop.shadow
    arm = port.drivers[0]
    sample = arm.read()
    arm.write(dict(zip(sample.names, (sample.position - 0.1).tolist(), strict=True)))
    stands_at = arm.read().position
    loop.start(shadow=False)
    run_until_rest(loop, clock)
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.TIME_UP)
    assert loop.progress.steps == len(listener.steps) == 18
    # it is shown what would be sent, from where the robot stands
    (start,) = listener.starts
    assert start[robot.arm] == pytest.approx(stands_at)
    for step, _ in listener.steps:
        assert step.safe.shape == step.decoded.shape == (len(robot.joint_names),)
    loop.go_home()
    run_until_rest(loop, clock)
    loop.open_hand()
    run_until_rest(loop, clock)
    loop.start()
    loop.tick()
    loop.cancel()
    loop.tick()
    loop.start()
    loop.tick()
    loop.hinder(Reason.EMERGENCY_STOP, "pressed")
    loop.tick()
    assert loop.episode.state is State.FAULT
    assert port.sent == []


def test_a_listener_is_told_what_was_sent(bundle, robot, port, clock):
    loop = ControlLoop(PolicyRuntime(bundle), robot, port, clock, ControlConfig())
    loop.steps.listener = listener = Listener()
    loop.start()
    run_until_rest(loop, clock)
    sent = dict(port.sent)
    assert len(listener.steps) == 18
    for number, (step, progress) in enumerate(listener.steps, 1):
        assert progress.steps == number
        assert list(sent[step.now_s].values()) == step.safe.tolist()
        assert step.sample is not None and step.sample.stamp_s <= step.now_s
