"""The state machine allows what makes sense and keeps the first reason of a fault."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.control.episode import Episode, Reason, State


def test_normal_life():
    episode = Episode(now_s=1.0)
    assert (episode.state, episode.active) == (State.IDLE, False)
    episode.enter(State.APPROACH, Reason.GOAL_ACCEPTED, 2.0)
    assert episode.active
    episode.enter(State.RUNNING, Reason.START_POSTURE_REACHED, 3.0)
    assert episode.active
    episode.enter(State.HOLD, Reason.TIME_UP, 4.0)
    assert not episode.active
    assert (episode.reason, episode.since_s) == (Reason.TIME_UP, 4.0)
    episode.enter(State.APPROACH, Reason.GOAL_ACCEPTED, 5.0)


def test_forbidden_change_names_what_is_allowed():
    episode = Episode(0.0)
    with pytest.raises(ValueError, match=r"from IDLE to RUNNING .* allowed: APPROACH, FAULT"):
        episode.enter(State.RUNNING, Reason.START_POSTURE_REACHED, 1.0)
    assert episode.state is State.IDLE


def test_fault_keeps_its_first_reason_and_blocks_a_start():
    episode = Episode(0.0)
    episode.enter(State.APPROACH, Reason.GOAL_ACCEPTED, 1.0)
    episode.fault(Reason.TRACKING, 2.0)
    episode.fault(Reason.BAD_ACTION, 3.0)
    assert (episode.reason, episode.since_s) == (Reason.TRACKING, 2.0)
    with pytest.raises(ValueError, match="FAULT"):
        episode.enter(State.APPROACH, Reason.GOAL_ACCEPTED, 4.0)
    episode.enter(State.IDLE, Reason.RELEASED, 5.0)
    episode.enter(State.APPROACH, Reason.GOAL_ACCEPTED, 6.0)


@given(st.lists(st.sampled_from(State), max_size=20))
def test_running_is_entered_from_the_approach_only(wishes):
    episode, path = Episode(0.0), [State.IDLE]
    for wish in wishes:
        try:
            episode.enter(wish, Reason.STARTED, 0.0)
        except ValueError:
            continue
        path.append(episode.state)
    before_running = {a for a, b in pairwise(path) if b is State.RUNNING}
    assert before_running <= {State.APPROACH}
    after_fault = {b for a, b in pairwise(path) if a is State.FAULT}
    assert after_fault <= {State.IDLE}
