"""The figures of an evaluation."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_learner.evaluation.figures import (
    Assessment,
    as_table,
    as_text,
    success_interval,
    summarize,
)
from dexgrasp_learner.evaluation.phases import LIFTED_M, NEAR_M, NEAREST, PHASES, failures
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS

NAMES = ("box", "flat_can", "ball")
FIELDS = (*EPISODE_FIELDS, NEAREST)


def rows(*episodes):
    """[K, E] from (object, success, time to goal, fraction in the region, dropped, length)."""
    fields = ("object", "success", "time_to_goal_s", "in_goal_region", "dropped", "length")
    table = torch.zeros(len(episodes), len(FIELDS))
    columns = [FIELDS.index(field) for field in fields]
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
    result = summarize("any", SIX, FIELDS, NAMES, 0.5, seed=4)
    assert (result.policy, result.episodes, result.objects, result.seed) == ("any", 6, 3, 4)
    assert result.success_rate == pytest.approx(1 / 3, abs=1e-4)
    assert result.time_to_goal_s == 3.0, "never is no time"
    assert result.drop_rate == pytest.approx(1 / 6, abs=1e-4)
    # of all steps: the short episode counts less
    assert result.in_goal_region_fraction == pytest.approx((30 + 24 + 6) / 320, abs=1e-4)
    assert list(result.per_object) == ["box", "flat_can"]
    assert result.failures == {"reach": 0, "grasp": 3, "lift": 0, "hold": 1}
    box, can = result.per_object.values()
    assert can.failures == {"reach": 0, "grasp": 2, "lift": 0, "hold": 1}
    assert (box.episodes, box.success_rate, box.time_to_goal_s) == (3, 0.6667, 2.5)
    assert (can.success_rate, can.drop_rate, can.time_to_goal_s) == (0.0, 0.3333, 4.0)
    never = summarize("any", SIX[1:2], FIELDS, NAMES, 0.5, seed=4)
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
    lines = as_text(summarize("any", SIX, FIELDS, NAMES, 0.5, seed=4)).splitlines()
    assert lines[0].startswith("any: 0.333 of 6 episodes succeed (95 % interval 0.097 to 0.700)")
    assert lines[0].endswith("at difficulty 0.5")
    assert "spread evenly over 3 objects, 3 each, 1 without one" in lines[1]
    box = "  box              3    0.667  0.208 to 0.939    0.000   2.50 s      0.386"
    assert lines[2].endswith("in which they ended: reach 0, grasp 3, lift 0, hold 1")
    assert lines[4] == box
    assert len({len(line) for line in lines[3:]}) == 1, "columns are aligned"
    assert "spread evenly over 2 objects, 2 or 3 each" in as_text(
        summarize("any", SIX[:5], FIELDS, NAMES[:2], 0.5, seed=4)
    )


def episode(success=0.0, time_to_goal_s=-1.0, max_lift_m=0.0, nearest_m=1.0):
    """One row, named by what decides its phase."""
    values = {
        "success": success,
        "time_to_goal_s": time_to_goal_s,
        "max_lift_m": max_lift_m,
        NEAREST: nearest_m,
    }
    return torch.tensor([values.get(name, 0.0) for name in FIELDS])


@pytest.mark.parametrize(
    ("row", "phase"),
    [
        (episode(nearest_m=NEAR_M + 0.001), "reach"),
        (episode(nearest_m=NEAR_M - 0.001), "grasp"),
        (episode(nearest_m=0.01, max_lift_m=LIFTED_M - 0.001), "grasp"),
        (episode(nearest_m=0.01, max_lift_m=LIFTED_M + 0.001), "lift"),
        (episode(nearest_m=0.3, max_lift_m=0.05), "lift"),  # knocked up, from further away
        (episode(nearest_m=0.01, max_lift_m=0.2, time_to_goal_s=0.0), "hold"),
        (episode(success=1.0, nearest_m=0.01, max_lift_m=0.2, time_to_goal_s=2.0), None),
    ],
)
def test_a_failed_episode_ended_in_the_last_phase_that_it_came_to(row, phase):
    expected = {name: int(name == phase) for name in PHASES}
    assert failures(row.unsqueeze(0), FIELDS) == expected


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0]),
            st.floats(-1.0, 9.0, width=32) | st.just(math.nan),
            st.floats(0.0, 1.0, width=32) | st.just(math.nan),
            st.floats(0.0, 1.0, width=32) | st.just(math.inf),
        ),
        min_size=1,
    )
)
def test_the_phases_account_for_every_failure_once(episodes):
    table = torch.stack([episode(*values) for values in episodes])
    assert sum(failures(table, FIELDS).values()) == sum(not values[0] for values in episodes)


def test_several_policies_are_a_table_with_the_control_beside_the_success():
    seeing = summarize("seeing", SIX, FIELDS, NAMES, 0.0, seed=4)
    blind = summarize("blind", SIX[1:2], FIELDS, NAMES, 0.0, seed=4)
    table = as_table([Assessment("a", "train", seeing, blind), Assessment("b", "", blind)])
    header, first, second = (line.split() for line in table.splitlines())
    assert header[0] == "policy" and header[-1] == "swapped"
    assert first == ["seeing,", "train", "6", "0.333", "0.097", "to", "0.700", "0.167", "3.00",
                     "s", "0.000"]  # fmt: skip
    assert second[0] == "blind" and second[-1] == "never", "no control where nothing is seen"
    record = Assessment("a", "train", seeing, blind).record()
    assert record["success_rate"] == seeing.success_rate and record["object_set"] == "train"
    assert record["swapped_images"]["success_rate"] == 0.0
    json.dumps(record, allow_nan=False)
