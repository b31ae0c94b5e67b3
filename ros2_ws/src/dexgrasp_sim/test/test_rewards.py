import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp import rewards
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, RESULT_SPECS, REWARD_TERMS
from dexgrasp_sim.tasks.grasp.rewards import RewardConfig, Situation, weighted_terms
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy

ROBOT = load_robot()
HAND_CURLED = ROBOT.flat_hand

distances = st.floats(0.0, 3.0)
heights = st.floats(-1.0, 1.0)
PAPER = {
    "reach": 1,
    "lift": 0,
    "goal": 5,
    "height": {"initial": 5, "final": 0},
    "curl": {"initial": -0.01, "final": -0.005},
    "goal_sharpness_per_m": {"initial": 15, "final": 20},
    "scale": 0.01,
}


def one(value):
    return torch.tensor([value])


def offset(*values):
    return torch.tensor([values])


def test_reach_falls_by_e_every_ten_centimetres():
    values = rewards.reach(torch.tensor([0.0, 0.1, 0.2]), 10.0).tolist()
    assert values == pytest.approx([1.0, math.exp(-1), math.exp(-2)])


def test_lift_is_the_share_of_the_goal_height_while_in_hand():
    height = torch.tensor([0.0, 0.05, 0.2, 0.5, -0.1])
    in_hand, goal = torch.full((5,), 0.05), torch.full((5,), 0.2)
    assert rewards.lift(height, goal, in_hand).tolist() == pytest.approx([0, 0.25, 1, 1, 0])
    # 20 cm away: exp(-10 * (0.25 - 0.05)) of it counts
    away = rewards.lift(one(0.1), one(0.2), one(0.25)).item()
    assert away == pytest.approx(0.5 * math.exp(-2))


def test_goal_falls_with_the_distance():
    from_goal = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.06, -0.08], [0.1, 0.0, 0.0]])
    values = rewards.goal(from_goal, torch.tensor([15.0, 15.0, 20.0])).tolist()
    assert values == pytest.approx([1.0, math.exp(-1.5), math.exp(-2)])


def test_height_falls_with_the_vertical_distance_alone():
    from_goal = torch.tensor([[0.3, 0.4, 0.0], [0.0, 0.0, -0.2], [1.0, 0.0, 0.1]])
    values = rewards.height(from_goal, 8.5).tolist()
    assert values == pytest.approx([1.0, math.exp(-1.7), math.exp(-0.85)])


def test_curl_is_the_squared_distance_of_the_hand_from_its_posture():
    off_flat = torch.zeros(2, 16)
    off_flat[1, 0] += 0.3
    off_flat[1, 15] -= 0.4
    assert rewards.curl(off_flat).tolist() == pytest.approx([0.0, 0.25])


@given(distances, distances, heights, heights)
def test_terms_stay_in_range_and_prefer_closer_and_higher(near, far, low, high):
    near, far = sorted((near, far))
    low, high = sorted((low, high))
    sharpness = one(15.0)
    for term in (
        lambda distance: rewards.reach(one(distance), 10.0),
        lambda distance: rewards.goal(offset(0.0, distance, 0.0), sharpness),
        lambda distance: rewards.height(offset(0.0, 0.0, -distance), 8.5),
    ):
        assert 0.0 <= term(far) <= term(near) <= 1.0

    def lift(height, farthest):
        return rewards.lift(one(height), one(0.2), one(farthest))

    assert 0.0 <= lift(low, far) <= lift(high, far) <= lift(high, near) <= 1.0


def situation(count=1):
    """Every term has another value here, and no two environments the same."""
    step = torch.arange(count) / 100
    return Situation(
        farthest_m=0.1 + step,
        height_m=0.05 + step,
        goal_height_m=torch.full((count,), 0.2),
        from_goal_m=torch.stack((0.03 + step, -0.02 - step, -0.1 + step), dim=1),
        off_flat_rad=torch.linspace(-0.5, 0.9, 16).expand(count, -1) + step[:, None],
    )


def test_every_term_has_a_weight_and_a_column_of_its_own():
    names = to_dict(RewardConfig()).keys() - {"scale"}
    names = {name for name in names if not name.endswith("_sharpness_per_m")}
    assert names == set(REWARD_TERMS)
    assert EPISODE_FIELDS[-len(REWARD_TERMS) :] == tuple(f"reward_{n}" for n in REWARD_TERMS)
    for column, name in enumerate(REWARD_TERMS):
        only = parse_config(RewardConfig, {**dict.fromkeys(REWARD_TERMS, 0), name: 2.0})
        terms = weighted_terms(only, situation(), torch.zeros(1))
        assert terms[0].nonzero().flatten().tolist() == [column]


def test_the_published_terms_by_hand():
    """At both ends of the paper's schedules and half way."""
    config = parse_config(RewardConfig, PAPER)
    farthest, from_goal = 0.1, (0.03, -0.02, -0.1)
    now = situation()
    curl = sum(off**2 for off in now.off_flat_rad[0].tolist())
    distance = math.sqrt(sum(axis**2 for axis in from_goal))
    for difficulty, sharpness, height, weight in (
        (0.0, 15, 5, -0.01),
        (0.5, 17.5, 2.5, -0.0075),
        (1.0, 20, 0, -0.005),
    ):
        wanted = {
            "reach": 0.01 * math.exp(-10 * farthest),
            "lift": 0.0,
            "goal": 0.01 * 5 * math.exp(-sharpness * distance),
            "height": 0.01 * height * math.exp(-8.5 * 0.1),
            "curl": 0.01 * weight * curl,
        }
        terms = weighted_terms(config, now, torch.tensor([difficulty]))[0].tolist()
        assert dict(zip(REWARD_TERMS, terms, strict=True)) == pytest.approx(wanted, rel=1e-5)


def test_environments_of_different_difficulty_have_their_own_weights():
    config = parse_config(RewardConfig, PAPER)
    together = weighted_terms(config, situation(3), torch.tensor([0.0, 0.3, 1.0]))
    for row, difficulty in enumerate((0.0, 0.3, 1.0)):
        alone = weighted_terms(config, situation(3), torch.full((3,), difficulty))
        assert torch.equal(together[row], alone[row])
    assert together[2, REWARD_TERMS.index("height")] == 0.0


def test_what_weighs_nothing_is_not_computed(monkeypatch):
    def fail(*_):
        raise AssertionError("computed")

    for name in ("height", "curl"):
        monkeypatch.setitem(rewards._TERMS, name, fail)
    weighted_terms(RewardConfig(), situation(), torch.zeros(1))
    monkeypatch.setitem(rewards._TERMS, "curl", rewards._TERMS["reach"])
    paper = parse_config(RewardConfig, PAPER)
    weighted_terms(paper, situation(), torch.ones(1))
    with pytest.raises(AssertionError, match="computed"):
        weighted_terms(paper, situation(2), torch.tensor([1.0, 0.9]))


weights = st.floats(-10.0, 10.0)


@given(st.tuples(*[weights] * 10), st.floats(0.001, 10.0), st.floats(0.0, 1.0))
def test_the_reward_is_the_sum_of_terms_times_weights_times_scale(ends, scale, difficulty):
    ramps = {
        name: {"initial": ends[2 * i], "final": ends[2 * i + 1]}
        for i, name in enumerate(REWARD_TERMS)
    }
    config = parse_config(RewardConfig, {**ramps, "scale": scale})
    now = situation(2)
    values = {
        "reach": rewards.reach(now.farthest_m, 10.0),
        "lift": rewards.lift(now.height_m, now.goal_height_m, now.farthest_m),
        "goal": rewards.goal(now.from_goal_m, torch.full((2,), 15.0)),
        "height": rewards.height(now.from_goal_m, 8.5),
        "curl": rewards.curl(now.off_flat_rad),
    }
    wanted = torch.zeros(2, dtype=torch.float64)
    for i, name in enumerate(REWARD_TERMS):
        weight = ends[2 * i] + difficulty * (ends[2 * i + 1] - ends[2 * i])
        wanted += scale * weight * values[name].double()
    terms = weighted_terms(config, now, torch.full((2,), difficulty))
    largest = terms.abs().max().item()
    assert torch.allclose(terms.sum(dim=1).double(), wanted, atol=1e-5 * max(1.0, largest))


@pytest.mark.parametrize("sharpness", [0, -1.0, {"initial": 15, "final": 0}])
def test_a_sharpness_that_is_none_is_refused(sharpness):
    with pytest.raises(ConfigError, match=r"goal_sharpness_per_m.*is not above 0"):
        parse_config(RewardConfig, {"goal_sharpness_per_m": sharpness})


class Grasping:
    """The script at work, and the state that the reward is worked out from again."""

    def __init__(self, **task):
        config = parse_config(GraspConfig, {"stagger_starts": False, **task})
        self.env = make_grasp_env(config, 3, seed=3, threads=1, groups=("state",))
        (spec,) = self.env.observation_specs
        self.terms = spec.terms
        self.out = {one.name: one.empty(3) for one in (spec, *RESULT_SPECS)}
        self.policy = ScriptedPolicy(self.env)

    def step(self):
        """Farthest distance [3] and object position [3, 3] from the spawn centre, after a step."""
        self.env.step(self.policy.act(), self.out)
        values = self.out["state"].split([term.size for term in self.terms], dim=1)
        state = dict(zip((term.name for term in self.terms), values, strict=True))
        points = torch.cat(
            (state["fingertip_from_object"], state["grasp_center_from_object"]), dim=1
        )
        return points.view(3, 5, 3).norm(dim=2).amax(1), state["object_position"]


def test_the_environment_rewards_the_state_it_shows():
    """Worked out again from the observations of a grasp, as the formulas above say."""
    grasping = Grasping()
    grasping.env.reset(grasping.out)
    half = torch.tensor([0.05, 0.05, 0.035])
    highest = 0.0
    for _ in range(60):
        farthest, position = grasping.step()
        height = position[:, 2] - half
        highest = max(highest, height.max().item())
        off_goal = position - torch.stack((0 * half, 0 * half, half + 0.20), dim=1)
        wanted = 0.1 * (
            torch.exp(-10 * farthest)
            + 5 * (height / 0.20).clamp(0, 1) * torch.exp(-10 * (farthest - 0.05).clamp(min=0))
            + 3 * torch.exp(-15 * off_goal.norm(dim=1))
        )
        assert torch.allclose(grasping.out["reward"], wanted, atol=1e-5)
    assert highest > 0.1


def test_the_environment_gives_the_published_reward_for_a_fixed_goal():
    """Episodes keep the difficulty they began with; the sums of the terms add up."""
    goal = torch.tensor([-0.5, 0.0, 0.45])
    grasping = Grasping(reward=PAPER, goal_m=goal.tolist(), difficulty=0.4, episode_s=2.0)
    env, out = grasping.env, grasping.out
    env.reset(out)
    env.set_difficulty(1.0)
    from_spawn = goal - torch.tensor([-0.55, 0.10, 0.25])
    totals = torch.zeros(3)
    for step in range(30):
        farthest, position = grasping.step()
        totals += out["reward"]
        if step == 29:  # the observations are those of the next episode
            break
        off_goal = position - from_spawn
        hand = env.engine.joint_position[:, 7:] - torch.tensor(HAND_CURLED)
        wanted = 0.01 * (
            torch.exp(-10 * farthest)
            + 5 * torch.exp(-17 * off_goal.norm(dim=1))
            + 3 * torch.exp(-8.5 * off_goal[:, 2].abs())
            - 0.008 * hand.square().sum(dim=1)
        )
        assert torch.allclose(out["reward"], wanted, atol=1e-6)
    rows = dict(zip(EPISODE_FIELDS, out["episode"].T, strict=True))
    sums = sum(rows[f"reward_{name}"] for name in REWARD_TERMS)
    assert torch.allclose(rows["return"], totals, rtol=1e-5) and out["truncated"].all()
    assert torch.allclose(sums, totals, rtol=1e-5)
    assert (rows["reward_curl"] < 0).all() and (rows["reward_height"] > 0).all()
    assert not rows["reward_lift"].any()
    assert env.episode_difficulty.tolist() == [1.0] * 3, "of the episodes that began since"
    assert env.telemetry(1)["goal"].tolist() == pytest.approx(goal.tolist())


@pytest.mark.parametrize("goal", [(-0.55, 0.1, 0.2), (-0.2, 0.1, 0.5), (-0.55, 0.5, 0.5)])
def test_a_goal_below_the_table_or_outside_the_workspace_is_refused(goal):
    with pytest.raises(ConfigError, match=rf"`goal_m` \({goal[0]}, .* is not above the table and"):
        parse_config(GraspConfig, {"goal_m": goal})
