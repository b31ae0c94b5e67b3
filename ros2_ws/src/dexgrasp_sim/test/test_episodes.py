"""When an episode is a success, and what else is said of it at its end."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import SHORT
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import (
    EPISODE_FIELDS,
    RESULT_SPECS,
    REWARD_TERMS,
    EpisodeTracker,
    SuccessConfig,
)
from dexgrasp_sim.vec_env import whole_episodes

STEP_S = 1 / 15
GOAL_M = (-0.73, 0.28, 0.55)
"""Over a place beside the hand, which would touch an object there."""
TASK = {
    **SHORT,
    "success": {"hold_s": 0.2, "reach_m": 1.0},
}
IN_BALL = {**TASK, "goal_m": GOAL_M, "success": {**TASK["success"], "goal_radius_m": 0.1}}


class Carried:
    """A box that is, after every step, where the test wants it."""

    def __init__(self, task, num_envs=1):
        self.env = make_grasp_env(parse_config(GraspConfig, task), num_envs, 3, 1, groups=())
        self.out = {spec.name: spec.empty(num_envs) for spec in RESULT_SPECS}
        self.env.reset(self.out)
        physics, steps = self.env.config.physics, self.env.config.physics_steps
        self._fall_m = 9.81 * physics.timestep_s**2 * steps * (steps + 1) / 2

    def to(self, *position):
        """One step, at whose end environment 0's box is there; the others rest."""
        x, y, z = position
        pose = torch.tensor([[x, y, z + self._fall_m, 1.0, 0.0, 0.0, 0.0]])
        start = self.env.decoder.start_position.unsqueeze(0)
        self.env.engine.reset(torch.tensor([0]), start, pose)
        self.env.step(torch.zeros(self.env.num_envs, self.env.action_dim), self.out)

    def offset(self, x=0.0, y=0.0, z=0.0):
        """As `to`, from the goal."""
        self.to(GOAL_M[0] + x, GOAL_M[1] + y, GOAL_M[2] + z)

    @property
    def ended(self):
        return bool(self.out["truncated"][0] or self.out["terminated"][0])

    @property
    def figures(self):
        return dict(zip(EPISODE_FIELDS, self.out["episode"][0].tolist(), strict=True))

    def episode(self, places):
        """The figures of an episode that ends at the last of these offsets from the goal."""
        for number, place in enumerate(places, start=1):
            self.offset(**place)
            assert self.ended == (number == len(places))
        return self.figures


BRIEF = {"hold_s": 0.01, "end_after_hold_s": 0.01}
INSIDE, ASIDE, ABOVE = {"y": 0.09}, {"y": 0.11}, {"z": 0.12}


@pytest.mark.parametrize(
    ("places", "success", "entry_step", "inside"),
    [
        ([ASIDE] * 12, 0, None, 0),  # up, but not there
        ([INSIDE] * 12, 1, 1, 12),
        ([ASIDE] * 9 + [INSIDE] * 3, 1, 10, 3),  # just long enough
        ([ABOVE] * 10 + [INSIDE] * 2, 0, 11, 2),  # not long enough
        ([ASIDE] * 4 + [INSIDE] * 6 + [ASIDE] * 2, 0, 5, 6),  # gone again
        ([INSIDE] * 2 + [ASIDE] * 7 + [INSIDE] * 3, 1, 1, 5),  # the first entry counts
    ],
)
def test_success_with_a_fixed_goal(places, success, entry_step, inside):
    figures = Carried(IN_BALL).episode(places)
    assert (figures["success"], figures["whole"], figures["length"]) == (success, 1, 12)
    entry_s = -1.0 if entry_step is None else entry_step * STEP_S
    assert figures["time_to_goal_s"] == pytest.approx(entry_s)
    assert figures["in_goal_region"] == pytest.approx(inside / 12)
    assert figures["dropped"] == 0


def test_at_the_goal_but_not_in_the_hand_is_no_success():
    task = {**IN_BALL, "success": {**IN_BALL["success"], "reach_m": 0.1}}
    figures = Carried(task).episode([INSIDE] * 12)
    assert (figures["success"], figures["in_goal_region"]) == (0, 1)


def test_without_a_goal_the_region_is_all_that_is_high_enough():
    carried = Carried(TASK)
    rest = carried.env.start_height.item()
    for step in range(12):
        carried.to(-0.73, 0.28, rest + (0.12 if step in (3, 4, 9, 10, 11) else 0.01))
    figures = carried.figures
    assert figures["success"] == 1
    assert figures["time_to_goal_s"] == pytest.approx(4 * STEP_S)
    assert figures["in_goal_region"] == pytest.approx(5 / 12)


def test_an_episode_ends_when_the_object_was_held_for_so_long():
    success = {**IN_BALL["success"], "end_after_hold_s": 0.4}  # 6 steps
    carried = Carried({**IN_BALL, "success": success})
    figures = carried.episode([INSIDE] * 2 + [ASIDE] + [INSIDE] * 6)
    assert (figures["success"], figures["length"]) == (1, 9)
    assert carried.out["truncated"].item() and not carried.out["terminated"].item()
    assert figures["in_goal_region"] == pytest.approx(8 / 9)
    figures = carried.episode([ASIDE] * 10 + [INSIDE] * 2)  # the next one counts anew
    assert (figures["success"], figures["length"]) == (0, 12)


def test_a_hold_shorter_than_a_step_ends_no_episode_before_it_is_held():
    carried = Carried({**IN_BALL, "success": {**IN_BALL["success"], **BRIEF}})
    figures = carried.episode([ASIDE] * 3 + [INSIDE])
    assert (figures["success"], figures["length"]) == (1, 4)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"goal_m": (-0.5, 0.1, 0.27)}, "is not above 0.3"),
        ({"workspace_box_m": ((-0.8, -0.2, 0.2), (-0.3, 0.4, 0.28))}, "outside the workspace"),
        ({"workspace_box_m": ((-0.8, -0.2, 0.4), (-0.3, 0.4, 2.0))}, "outside the workspace"),
    ],
)
def test_heights_with_which_no_episode_makes_sense_are_refused(task, message):
    with pytest.raises(ConfigError, match=message):
        make_grasp_env(parse_config(GraspConfig, task), 3, 0, 1, groups=())


def test_an_episode_inherits_no_figures_from_the_one_before():
    carried = Carried(IN_BALL)
    assert carried.episode([INSIDE] * 12)["success"] == 1
    figures = carried.episode([ASIDE] * 12)
    assert (figures["success"], figures["in_goal_region"]) == (0, 0)
    assert figures["time_to_goal_s"] == -1


def test_leaving_the_workspace_is_no_success():
    carried = Carried(IN_BALL)
    for _ in range(11):
        carried.offset()
    carried.to(-0.2, 0.1, 0.5)
    assert carried.out["terminated"].item()
    figures = carried.figures
    assert (figures["success"], figures["in_goal_region"]) == (0, pytest.approx(11 / 12))


@pytest.mark.parametrize("landed_at", [None, 3])
def test_an_object_that_drops_in_was_not_lifted_before_it_has_landed(landed_at):
    """It starts 0.2 m above its rest, falls, and is on the table at the end."""
    tracker = EpisodeTracker(SuccessConfig(hold_s=0.1), 0.1, torch.zeros(1, dtype=torch.int64))
    tracker.begin(torch.tensor([0]), torch.tensor([0.2]))
    heights = [0.2, 0.15, 0.01, 0.12, 0.13, 0.0] if landed_at else [0.2, 0.19, 0.17, 0.13, 0.1]
    for step, height in enumerate(heights, start=1):
        track(tracker, step, height)
    figures = row(tracker, len(heights), heights[-1])
    assert figures["dropped"] == (1 if landed_at else 0)
    assert figures["max_lift_m"] == pytest.approx(0.13 if landed_at else 0.0)
    assert figures["time_to_goal_s"] == pytest.approx(0.4 if landed_at else -1.0)


def track(tracker, step, height, distance=1.0, terms=None):
    terms = torch.zeros(1, len(REWARD_TERMS)) if terms is None else terms
    tracker.track(torch.tensor([step]), torch.tensor([height]), torch.tensor([distance]), terms)


def row(tracker, step, height, truncated=True):
    (values,) = tracker.rows(
        torch.tensor([step]),
        torch.tensor([height]),
        torch.tensor([0.1]),
        torch.tensor([truncated]),
    )
    return dict(zip(EPISODE_FIELDS, values.tolist(), strict=True))


@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=30), st.integers(0, 5), st.booleans())
def test_the_figures_are_those_of_the_whole_history(distances, skipped, truncated):
    """Against a plain reading of the definitions."""
    rule = SuccessConfig(goal_radius_m=0.1, hold_s=0.3)
    tracker = EpisodeTracker(rule, 0.1, torch.tensor([2]))
    tracker.begin(torch.tensor([0]), torch.tensor([0.0]))
    tracker.skipped_steps[0] = skipped
    terms = torch.arange(len(distances) * len(REWARD_TERMS)).float().view(len(distances), 1, -1)
    for step, (distance, term) in enumerate(zip(distances, terms, strict=True), start=1):
        track(tracker, step + skipped, 0.0, distance, term)
    inside = [torch.tensor(distance).item() < torch.tensor(0.1).item() for distance in distances]
    figures = row(tracker, len(distances) + skipped, 0.0, truncated)
    assert figures["success"] == (truncated and len(inside) >= 3 and all(inside[-3:]))
    assert figures["in_goal_region"] == pytest.approx(sum(inside) / len(inside))
    entry_s = 0.1 * (inside.index(True) + 1) if any(inside) else -1.0
    assert figures["time_to_goal_s"] == pytest.approx(entry_s)
    assert (figures["object"], figures["whole"]) == (2, skipped == 0)
    assert figures["length"] == len(distances)
    sums = [figures[f"reward_{name}"] for name in REWARD_TERMS]
    assert sums == pytest.approx(terms.sum(dim=(0, 1)).tolist())
    assert figures["return"] == pytest.approx(sum(sums))


def test_a_staggered_first_episode_is_told_from_whole_ones():
    """It counts the steps that it lived; the figures of a run leave it out."""
    carried = Carried({**TASK, "stagger_starts": True}, num_envs=8)
    env, skipped = carried.env, carried.env.step_count.tolist()
    assert len(set(skipped)) > 3
    lengths, wholes, counted = [[] for _ in skipped], [[] for _ in skipped], 0
    for _ in range(24):
        env.step(torch.zeros(8, env.action_dim), carried.out)
        ended = carried.out["truncated"]
        counted += len(whole_episodes(carried.out["episode"], ended))
        for number in ended.nonzero().flatten().tolist():
            figures = dict(
                zip(EPISODE_FIELDS, carried.out["episode"][number].tolist(), strict=True)
            )
            lengths[number].append(figures["length"])
            wholes[number].append(figures["whole"])
    assert lengths == [[12 - steps, 12] if steps else [12, 12] for steps in skipped]
    assert wholes == [[float(not steps), 1.0] for steps in skipped]
    assert counted == 8 + skipped.count(0)


def test_holding_shorter_than_a_success_takes_is_refused():
    with pytest.raises(ConfigError, match=r"`end_after_hold_s` 0.2 is below `hold_s` 0.5"):
        parse_config(GraspConfig, {"success": {"end_after_hold_s": 0.2}})
