"""The self-test of joints before the first motion, on mock drivers and a clock that is told."""

import re

import numpy as np
import pytest

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason, State


class Idle:
    """Stands where a policy runtime does; is never asked."""

    def __init__(self, manifest):
        self.manifest = manifest


def go_home(bundle, robot, port, clock):
    config = ControlConfig(life={"self_test": True})
    loop = ControlLoop(Idle(bundle.manifest), robot, port, clock, config)
    loop.go_home()
    end_s = clock.now_s + 60.0
    loop.run(stop=lambda: not loop.episode.active or clock.now_s > end_s)
    return loop


def test_every_joint_moves_once_by_half_a_degree_and_alone(bundle, robot, port, clock):
    loop = go_home(bundle, robot, port, clock)
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.AT_HOME)
    sent = np.array([[command[name] for name in robot.joint_names] for _, command in port.sent])
    moved = np.abs(sent - sent[0])
    np.testing.assert_allclose(moved.max(axis=0), np.deg2rad(0.5), atol=1e-6)
    assert ((moved > 1e-6).sum(axis=1) <= 1).all(), "never two at a time"
    np.testing.assert_allclose(sent[-1], sent[0], atol=1e-6)
    count = len(port.sent)
    loop.go_home()
    loop.run(stop=lambda: not loop.episode.active)
    assert len(port.sent) - count < 10, "one test is enough"


def swap(positions, one, other):
    return positions | {one: positions[other], other: positions[one]}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("sign", "index_joint_1 moved by .* mrad for a command of .* mrad; check the sign"),
        ("swapped", "thumb_joint_3 moved when index_joint_1 was commanded"),
        ("dead", r"index_joint_1 moved by \+0.0 mrad .* check unit, brakes and enabling"),
        ("degrees", "index_joint_1 moved by .* check unit"),
    ],
)
def test_joint_that_does_not_follow_is_a_fault_and_named(
    bundle, robot, port, clock, fault, message
):
    start = {name: value for each in port.drivers for name, value in each._position.items()}
    send = port.send

    def miswired(positions):
        name, moved = "index_joint_1", dict(positions)
        if fault == "swapped":
            delta = {each: moved[each] - start[each] for each in moved}
            delta = swap(delta, name, "thumb_joint_3")
            moved = {each: start[each] + delta[each] for each in moved}
        else:
            factor = {"sign": -1.0, "dead": 0.0, "degrees": np.pi / 180}[fault]
            moved[name] = start[name] + factor * (moved[name] - start[name])
        send(moved)

    port.send = miswired
    loop = go_home(bundle, robot, port, clock)
    assert (loop.episode.state, loop.episode.reason) == (State.FAULT, Reason.WRONG_JOINT)
    assert re.search(message, loop.episode.detail), loop.episode.detail
