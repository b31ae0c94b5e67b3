"""What episodes came to, on average."""

import json
import math

import pytest
import torch

from dexgrasp_learner.evaluation.episode_statistics import EpisodeStatistics, episode_means
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, REWARD_TERMS

NEVER = {"time_to_goal_s": -1.0}
NAMES = ("box", "ball", "can")


def row(**figures):
    """An episode of ten steps that came to nothing but for the given figures."""
    values = {"length": 10.0, "whole": 1.0, **NEVER, **figures}
    return [values.get(name, 0.0) for name in EPISODE_FIELDS]


def add(statistics, *rows):
    statistics.add(torch.tensor([rows]), torch.ones(1, len(rows), dtype=torch.bool))


def test_the_figures_are_those_of_the_episodes_that_ended():
    statistics = EpisodeStatistics(EPISODE_FIELDS, NAMES)
    first = {"return": 1.0, "reward_reach": 0.5, "reward_curl": -0.25, "success": 1.0}
    nonsense = dict.fromkeys(EPISODE_FIELDS, 9.0)
    last = {"return": 4.0, "reward_reach": 1.5, "length": 30.0, "dropped": 1.0, "object": 2.0}
    rows = torch.tensor(
        [
            [
                row(**first, max_lift_m=0.25, time_to_goal_s=2.5, in_goal_region=0.6),
                row(**nonsense),
                row(**last, max_lift_m=0.5, in_goal_region=0.1),
            ]
        ]
    )
    statistics.add(rows, torch.tensor([[True, False, True]]))
    assert statistics.count == 2
    assert statistics.success == 0.5
    zero = {f"reward/{name}": 0.0 for name in REWARD_TERMS}
    assert statistics.figures() == pytest.approx(
        {
            **zero,
            "episode/return": 2.5,
            "episode/length": 20.0,
            "episode/success": 0.5,
            "episode/max_lift_m": 0.375,
            "episode/drop_rate": 0.5,
            "episode/time_to_goal_s": 2.5,  # of the one that got there
            "episode/in_goal_region": (6 + 3) / 40,  # steps of steps
            "reward/reach": 1.0,
            "reward/curl": -0.125,
            "object/box": 1.0,
            "object/can": 0.0,
        }
    )


def test_an_episode_that_never_got_there_has_no_time():
    means = episode_means(torch.tensor([row(), row()]), EPISODE_FIELDS)
    assert math.isnan(means["time_to_goal_s"])
    at_once = row(time_to_goal_s=0.0)
    assert episode_means(torch.tensor([row(), at_once]), EPISODE_FIELDS)["time_to_goal_s"] == 0.0


def test_episodes_that_began_late_do_not_count():
    statistics = EpisodeStatistics(EPISODE_FIELDS, NAMES)
    add(statistics, row(whole=0.0), row(success=1.0), row(whole=0.0, object=1.0))
    assert (statistics.count, statistics.success) == (1, 1.0)
    assert statistics.per_object() == {"box": 1.0}


def test_a_rollout_of_many_steps_gives_all_its_episodes():
    rows = torch.tensor([row()]).repeat(3, 4, 1)
    rows[:, :, 0] = torch.arange(12.0).view(3, 4)
    ended = torch.zeros(3, 4, dtype=torch.bool)
    ended[0, 1] = ended[2, 3] = True
    statistics = EpisodeStatistics(EPISODE_FIELDS)
    statistics.add(rows, ended)
    assert statistics.figures()["episode/return"] == (1 + 11) / 2


def test_only_the_last_episodes_of_the_window_count():
    statistics = EpisodeStatistics(EPISODE_FIELDS, window=2)
    for success in (0.0, 1.0, 1.0):
        add(statistics, row(success=success))
    assert (statistics.count, statistics.success) == (3, 1.0)


def test_each_object_has_its_own_last_episodes():
    """However rare it is: 152 objects share a window of 300 episodes."""
    statistics = EpisodeStatistics(EPISODE_FIELDS, NAMES, window=2)
    add(statistics, row(object=1.0), row(object=1.0, success=1.0))
    add(statistics, *[row(success=1.0)] * 60, row(), *[row(object=7.0)] * 3)
    assert statistics.per_object() == {"box": 49 / 50, "ball": 0.5}


def test_before_any_episode_there_are_no_figures():
    statistics = EpisodeStatistics(EPISODE_FIELDS, NAMES)
    statistics.add(torch.zeros(2, 3, len(EPISODE_FIELDS)), torch.zeros(2, 3, dtype=torch.bool))
    assert math.isnan(statistics.success)
    assert statistics.figures() == statistics.per_object() == {}


def test_later_changes_of_the_rollout_do_not_reach_the_statistics():
    rows = torch.tensor([row(success=1.0)])
    statistics = EpisodeStatistics(EPISODE_FIELDS)
    statistics.add(rows, torch.ones(1, dtype=torch.bool))
    rows.zero_()
    assert statistics.success == 1.0


def test_a_state_that_went_through_json_continues_alike():
    first, second = (
        EpisodeStatistics(EPISODE_FIELDS, NAMES, window=3),
        EpisodeStatistics(EPISODE_FIELDS, NAMES, window=3),
    )
    rows = [row(object=float(i % 3), success=float(i > 2), length=i + 1.0) for i in range(5)]
    add(first, *rows)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for statistics in (first, second):
        add(statistics, rows[0])
    assert first.state_dict() == second.state_dict()
    assert first.figures() == pytest.approx(second.figures(), nan_ok=True)


def test_a_run_that_goes_on_with_other_objects_keeps_those_it_knows():
    first, second = (
        EpisodeStatistics(EPISODE_FIELDS, NAMES),
        EpisodeStatistics(EPISODE_FIELDS, ("can", "cube")),
    )
    add(first, row(object=2.0, success=1.0), row())
    second.load_state_dict(first.state_dict())
    assert second.per_object() == {"can": 1.0}


@pytest.mark.parametrize("fields", [None, ["return", "length", "success"]])
def test_figures_of_another_version_are_refused(fields):
    state = {"count": 1, "rows": [[1.0, 2.0, 0.0]]} | ({"fields": fields} if fields else {})
    with pytest.raises(ConfigError, match=r"version with other episode columns.*new run"):
        EpisodeStatistics(EPISODE_FIELDS).load_state_dict(state)
