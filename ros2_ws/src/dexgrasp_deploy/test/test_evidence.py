"""A grasp is believed only where measurements speak for it."""

import numpy as np
import pytest
import torch

from dexgrasp_deploy.control.evidence import EvidenceConfig, EvidenceTracker
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT, TASK = load_robot(), GraspConfig()
HOME = np.array(ROBOT.postures["pregrasp"])
HIGH = HOME + 0.2 * np.array([0, 0, 0, -1, 0, 0, 0, *[0] * 16])
DT_S = 0.1
GRIP = {"index_joint_1": 0.3, "thumb_joint_2": 0.2}


def center(posture):
    kinematics = Kinematics(ROBOT, [ROBOT.grasp_center])
    frames = kinematics.forward(torch.from_numpy(posture).float()[None])
    return frames.position[0, 0].double().numpy()


RISE_M = float((center(HIGH) - center(HOME))[2])


class Hand:
    """A hand that stands where it is put, at an arm posture, and what is known about its grasp."""

    def __init__(self):
        self.tracker = EvidenceTracker(ROBOT, TASK, EvidenceConfig())
        self.tracker.begin(HOME)
        self.now_s = 10.0

    def see(self, posture, short, object_m=None, steps=4):
        """Some periods with joints that stand short of their command by these angles, rad."""
        command = posture.copy()
        for name, angle in short.items():
            command[ROBOT.joint_names.index(name)] += angle
        none = np.full(23, np.nan)
        for _ in range(steps):
            measured = Measurement(posture, np.zeros(23), none, self.now_s)
            found = self.tracker.observe(measured, command, object_m, self.now_s)
            self.now_s += DT_S
        return found


@pytest.fixture
def hand():
    return Hand()


def test_the_test_lifts():
    assert RISE_M > 0.04


def test_thumb_and_finger_that_stall_and_rise_are_a_grasp(hand):
    at_rest = hand.see(HOME, GRIP, center(HOME))
    assert at_rest.closed and at_rest.stalled == ("index_joint_1", "thumb_joint_2")
    assert not at_rest.is_grasp(0.03), "nothing is lifted yet"
    lifted = hand.see(HIGH, GRIP, center(HIGH))
    assert lifted.lift_m == pytest.approx(RISE_M, abs=1e-6)
    assert lifted.is_grasp(0.03) and not lifted.is_grasp(RISE_M + 0.01)
    assert hand.tracker.lifting
    assert "closed on something (2 joints stall)" in str(lifted)
    assert "in the workspace, at the hand" in str(lifted)


@pytest.mark.parametrize(
    "short",
    [{}, {"index_joint_1": 0.3, "middle_joint_1": 0.3}, {"thumb_joint_2": 0.3}],
    ids=["closed freely", "no thumb", "thumb alone"],
)
def test_hand_that_holds_nothing_is_no_grasp(hand, short):
    hand.see(HOME, short)
    lifted = hand.see(HIGH, short)
    assert not lifted.closed and lifted.lift_m == 0.0
    assert not lifted.is_grasp(0.03)
    assert "not closed on anything" in str(lifted)


def test_fingers_that_lag_while_they_open_do_not_stall(hand):
    closed = HOME.copy()
    closed[ROBOT.joint_indices(list(GRIP))] += 0.5
    found = hand.see(closed, {name: -angle for name, angle in GRIP.items()})
    assert not found.closed and found.stalled == ()


def test_short_contact_is_none(hand):
    assert not hand.see(HOME, GRIP, steps=2).closed
    assert not hand.see(HOME, {}, steps=1).closed
    assert not hand.see(HOME, GRIP, steps=2).closed


@pytest.mark.parametrize("offset", [[0.0, 0.0, 5.0], [3.0, 0.0, 0.0], [0.25, 0.0, 0.0]])
def test_object_that_is_estimated_elsewhere_speaks_against_a_grasp(hand, offset):
    hand.see(HOME, GRIP)
    lifted = hand.see(HIGH, GRIP, center(HIGH) + np.array(offset))
    assert lifted.closed and lifted.lift_m > 0.03
    assert not lifted.is_grasp(0.03)
    assert "not at the hand" in str(lifted)


def test_policy_without_an_estimate_is_judged_by_the_hand(hand):
    hand.see(HOME, GRIP)
    lifted = hand.see(HIGH, GRIP)
    assert lifted.is_grasp(0.03)
    assert "does not estimate" in str(lifted)


def test_drop_is_noticed_and_a_new_grasp_starts_from_there(hand):
    hand.see(HOME, GRIP)
    hand.see(HIGH, GRIP)
    dropped = hand.see(HIGH, {})
    assert (dropped.closed, dropped.drops, dropped.lift_m) == (False, 1, 0.0)
    assert not hand.tracker.lifting
    again = hand.see(HIGH, GRIP)
    assert again.closed and again.lift_m == 0.0 and not again.is_grasp(0.03)
    assert "dropped 1 times" in str(again)


def test_the_trail_leads_back_to_where_the_closed_hand_was_lowest(hand):
    assert len(hand.tracker.trail(0.0)) == 0
    for height in (0.5, 0.0, 0.4, 0.4, 1.0):
        posture = HOME + height * (HIGH - HOME)
        hand.see(posture, GRIP, steps=3)
    trail = hand.tracker.trail(release_m=0.1 * RISE_M)
    grip = sum(angle * (np.array(ROBOT.joint_names) == name) for name, angle in GRIP.items())
    expected = [HOME + height * (HIGH - HOME) + grip for height in (1.0, 0.4, 0.0)]
    np.testing.assert_allclose(trail, expected, atol=1e-12)
    assert len(hand.tracker.trail(release_m=0.5 * RISE_M)) == 2, "it ends above"
    hand.see(HIGH, {}, steps=6)
    assert len(hand.tracker.trail(0.0)) == 0, "the hand is open"
