"""The state machine allows what makes sense and keeps the first reason of a fault."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.control.episode import POLICY_ACTS, Episode, Reason, State


def test_normal_life():
    episode = Episode(now_s=1.0)
    assert (episode.state, episode.active) == (State.IDLE, False)
    path = (State.HOME, State.LOOK, State.GRASP, State.LIFT, State.HAND_OVER, State.PLACE)
    for state in path:
        episode.enter(state, Reason.GOAL_ACCEPTED, 2.0)
        assert episode.active
    episode.enter(State.HOME, Reason.PUT_DOWN, 3.0)
    episode.enter(State.HOLD, Reason.AT_HOME, 4.0, "by hand")
    assert not episode.active
    assert (episode.reason, episode.since_s) == (Reason.AT_HOME, 4.0)
    assert episode.why == "at home: by hand"
    episode.enter(State.HOME, Reason.GOAL_ACCEPTED, 5.0)
    assert episode.why == "goal accepted"


def test_forbidden_change_names_what_is_allowed():
    episode = Episode(0.0)
    with pytest.raises(ValueError, match=r"from IDLE to GRASP .* allowed: HOME, PLACE, FAULT"):
        episode.enter(State.GRASP, Reason.START_POSTURE_REACHED, 1.0)
    assert episode.state is State.IDLE


def test_fault_keeps_its_first_reason_and_blocks_a_start():
    episode = Episode(0.0)
    episode.enter(State.HOME, Reason.GOAL_ACCEPTED, 1.0)
    episode.fault(Reason.TRACKING, 2.0)
    episode.fault(Reason.BAD_ACTION, 3.0)
    assert (episode.reason, episode.since_s) == (Reason.TRACKING, 2.0)
    with pytest.raises(ValueError, match="FAULT"):
        episode.enter(State.HOME, Reason.GOAL_ACCEPTED, 4.0)
    episode.enter(State.IDLE, Reason.RELEASED, 5.0)
    episode.enter(State.HOME, Reason.GOAL_ACCEPTED, 6.0)


@given(st.lists(st.sampled_from(State), max_size=20))
def test_the_policy_acts_only_after_a_look_and_a_fault_ends_in_idle(wishes):
    episode, path = Episode(0.0), [State.IDLE]
    for wish in wishes:
        try:
            episode.enter(wish, Reason.STARTED, 0.0)
        except ValueError:
            continue
        path.append(episode.state)
    before_policy = {a for a, b in pairwise(path) if b in POLICY_ACTS} - POLICY_ACTS
    assert before_policy <= {State.LOOK}
    before_look = {a for a, b in pairwise(path) if b is State.LOOK}
    assert before_look <= {State.HOME}
    after_fault = {b for a, b in pairwise(path) if a is State.FAULT}
    assert after_fault <= {State.IDLE}
