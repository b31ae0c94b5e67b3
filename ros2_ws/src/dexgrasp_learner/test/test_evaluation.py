"""The figures of an evaluation."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_learner.evaluation.figures import as_text, success_interval, summarize
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS

NAMES = ("box", "flat_can", "ball")


def rows(*episodes):
    """[K, E] from (object, success, time to goal, fraction in the region, dropped, length)."""
    fields = ("object", "success", "time_to_goal_s", "in_goal_region", "dropped", "length")
    table = torch.zeros(len(episodes), len(EPISODE_FIELDS))
    columns = [EPISODE_FIELDS.index(field) for field in fields]
    table[:, columns] = torch.tensor(episodes)
    return table


SIX = rows(
    (0.0, 1.0, 2.0, 0.5, 0.0, 60.0),
    (1.0, 0.0, -1.0, 0.0, 0.0, 60.0),
    (0.0, 1.0, 3.0, 0.4, 0.0, 60.0),
    (1.0, 0.0, 4.0, 0.1, 1.0, 60.0),
    (0.0, 0.0, -1.0, 0.0, 0.0, 20.0),
    (1.0, 0.0, -1.0, 0.0, 0.0, 60.0),
)


def test_the_figures_by_hand():
    result = summarize("any", SIX, EPISODE_FIELDS, NAMES, 0.5, seed=4)
    assert (result.policy, result.episodes, result.objects, result.seed) == ("any", 6, 3, 4)
    assert result.success_rate == pytest.approx(1 / 3, abs=1e-4)
    assert result.time_to_goal_s == 3.0, "never is no time"
    assert result.drop_rate == pytest.approx(1 / 6, abs=1e-4)
    # of all steps: the short episode counts less
    assert result.in_goal_region_fraction == pytest.approx((30 + 24 + 6) / 320, abs=1e-4)
    assert list(result.per_object) == ["box", "flat_can"]
    box, can = result.per_object.values()
    assert (box.episodes, box.success_rate, box.time_to_goal_s) == (3, 0.6667, 2.5)
    assert (can.success_rate, can.drop_rate, can.time_to_goal_s) == (0.0, 0.3333, 4.0)
    never = summarize("any", SIX[1:2], EPISODE_FIELDS, NAMES, 0.5, seed=4)
    assert never.time_to_goal_s is None and math.isnan(never.record()["evaluation/time_to_goal_s"])
    assert json.loads(json.dumps(asdict(never), allow_nan=False))["time_to_goal_s"] is None


@given(st.integers(1, 400), st.data())
def test_the_interval_is_wilsons(episodes, data):
    successes = data.draw(st.integers(0, episodes))
    low, high = success_interval(successes, episodes)
    rate, z2 = successes / episodes, 1.959963984540054**2
    middle = (rate + z2 / (2 * episodes)) / (1 + z2 / episodes)
    half = math.sqrt(z2 * (rate * (1 - rate) / episodes + z2 / (4 * episodes**2)))
    half /= 1 + z2 / episodes
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert -1e-12 <= low <= rate + 1e-12 and rate - 1e-12 <= high <= 1.0 + 1e-12


def test_an_interval_of_the_textbook():
    # Newcombe (1998), 81 of 263: 0.2553 to 0.3662
    assert success_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_the_table_is_for_people():
    lines = as_text(summarize("any", SIX, EPISODE_FIELDS, NAMES, 0.5, seed=4)).splitlines()
    assert lines[0].startswith("any: 0.333 of 6 episodes succeed (95 % interval 0.097 to 0.700)")
    assert lines[0].endswith("at difficulty 0.5")
    assert "spread evenly over 3 objects, 3 each, 1 without one" in lines[1]
    box = "  box              3    0.667  0.208 to 0.939    0.000   2.50 s      0.386"
    assert lines[3] == box
    assert len({len(line) for line in lines[2:]}) == 1, "columns are aligned"
    assert "spread evenly over 2 objects, 2 or 3 each" in as_text(
        summarize("any", SIX[:5], EPISODE_FIELDS, NAMES[:2], 0.5, seed=4)
    )
