import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, RESULT_SPECS, REWARD_TERMS
from dexgrasp_sim.tasks.grasp.rewards import TERMS, RewardConfig, Situation, weighted_terms
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy

ROBOT = load_robot()
HAND_CURLED = ROBOT.flat_hand

distances = st.floats(0.0, 3.0)
heights = st.floats(-1.0, 1.0)
PAPER = {
    "weights": {
        "reach": 1,
        "lift": 0,
        "goal": 5,
        "height": {"initial": 5, "final": 0},
        "curl": {"initial": -0.01, "final": -0.005},
    },
    "goal_sharpness_per_m": {"initial": 15, "final": 20},
    "scale": 0.01,
}
CONFIG = RewardConfig()


def situation(count=1, **changes):
    """Every term has another value here, and no two environments the same."""
    step = torch.arange(count) / 100
    now = Situation(
        farthest_m=0.1 + step,
        palm_offset_m=torch.stack((0.1 + step, 0.05 - step, 0.02 - step), dim=1),
        height_m=0.05 + step,
        goal_height_m=torch.full((count,), 0.2),
        from_goal_m=torch.stack((0.03 + step, -0.02 - step, -0.1 + step), dim=1),
        off_flat_rad=torch.linspace(-0.5, 0.9, 16).expand(count, -1) + step[:, None],
        difficulty=torch.zeros(count),
    )
    return now._replace(**{name: torch.tensor(value) for name, value in changes.items()})


def value(name, config=CONFIG, **changes):
    """A term for situations that differ from the one above by these lists."""
    count = len(next(iter(changes.values())))
    return TERMS[name].value(config, situation(count, **changes)).tolist()


def test_reach_falls_by_e_every_ten_centimetres():
    values = value("reach", farthest_m=[0.0, 0.1, 0.2])
    assert values == pytest.approx([1.0, math.exp(-1), math.exp(-2)])


def test_lift_is_the_share_of_the_goal_height_while_in_hand():
    values = value("lift", height_m=[0.0, 0.05, 0.2, 0.5, -0.1], farthest_m=[0.05] * 5)
    assert values == pytest.approx([0, 0.25, 1, 1, 0])
    # 20 cm away: exp(-10 * (0.25 - 0.05)) of it counts
    assert value("lift", height_m=[0.1], farthest_m=[0.25]) == pytest.approx([0.5 * math.exp(-2)])


def test_goal_falls_with_the_distance_ever_more_sharply():
    config = parse_config(RewardConfig, {"goal_sharpness_per_m": {"initial": 15, "final": 20}})
    from_goal = [[0.0, 0.0, 0.0], [0.0, 0.06, -0.08], [0.1, 0.0, 0.0]]
    values = value("goal", config, from_goal_m=from_goal, difficulty=[0.0, 0.0, 1.0])
    assert values == pytest.approx([1.0, math.exp(-1.5), math.exp(-2)])


def test_height_falls_with_the_vertical_distance_alone():
    values = value("height", from_goal_m=[[0.3, 0.4, 0.0], [0.0, 0.0, -0.2], [1.0, 0.0, 0.1]])
    assert values == pytest.approx([1.0, math.exp(-1.7), math.exp(-0.85)])


def test_curl_is_the_squared_distance_of_the_hand_from_its_posture():
    off_flat = [[0.0] * 16, [0.3, *[0.0] * 14, -0.4]]
    assert value("curl", off_flat_rad=off_flat) == pytest.approx([0.0, 0.25])


def test_a_low_approach_is_the_depth_below_a_cone_over_the_object():
    offsets = [
        [0.03, 0.04, 0.0],  # 5 cm beside it: the tip of the cone
        [0.06, 0.08, 0.0],  # 5 cm further out, the cone is 5 cm high
        [0.06, 0.08, 0.04],
        [0.3, 0.4, 0.02],  # far away it is 12 cm high
        [0.3, 0.4, 0.13],  # above it
        [0.0, 0.0, -0.3],
    ]
    values = value("low_approach", palm_offset_m=offsets)
    assert values == pytest.approx([0, 5 / 12, 1 / 12, 10 / 12, 0, 1], abs=1e-6)


@given(distances, distances, heights, heights)
def test_terms_stay_in_range_and_prefer_closer_and_higher(near, far, low, high):
    near, far = sorted((near, far))
    low, high = sorted((low, high))
    for name, changes in (
        ("reach", {"farthest_m": [near, far]}),
        ("goal", {"from_goal_m": [[0.0, near, 0.0], [0.0, far, 0.0]]}),
        ("height", {"from_goal_m": [[0.0, 0.0, -near], [0.0, 0.0, -far]]}),
    ):
        closer, further = value(name, **changes)
        assert 0.0 <= further <= closer <= 1.0
    worst, higher, best = value("lift", height_m=[low, high, high], farthest_m=[far, far, near])
    assert 0.0 <= worst <= higher <= best <= 1.0


def test_every_term_has_a_weight_and_a_column_of_its_own():
    assert tuple(TERMS) == REWARD_TERMS == tuple(name for name, _ in RewardConfig().weights)
    assert EPISODE_FIELDS[-len(REWARD_TERMS) :] == tuple(f"reward_{n}" for n in REWARD_TERMS)
    for column, name in enumerate(REWARD_TERMS):
        weights = {**dict.fromkeys(REWARD_TERMS, 0), name: 2.0}
        terms = weighted_terms(parse_config(RewardConfig, {"weights": weights}), situation())
        assert terms[0].nonzero().flatten().tolist() == [column]


def test_weights_that_are_not_named_keep_their_defaults_and_a_config_survives_a_file():
    config = parse_config(RewardConfig, {"weights": {"curl": -0.1}})
    written = to_dict(config)
    defaults = {"reach": 1, "lift": 5, "goal": 3, "height": 0, "low_approach": 0}
    assert written["weights"] == {**defaults, "curl": -0.1}
    assert parse_config(RewardConfig, written) == config


def test_an_unknown_term_is_refused_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"no term 'reech'; there are reach, lift, goal"
    ) as error:
        parse_config(GraspConfig, {"reward": {"weights": {"reech": 1}}})
    assert "\n" not in str(error.value)


def test_the_published_terms_by_hand():
    """At both ends of the paper's schedules and half way."""
    config = parse_config(RewardConfig, PAPER)
    farthest, from_goal = 0.1, (0.03, -0.02, -0.1)
    curl = sum(off**2 for off in situation().off_flat_rad[0].tolist())
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
            "low_approach": 0.0,
        }
        terms = weighted_terms(config, situation(difficulty=[difficulty]))[0].tolist()
        assert dict(zip(REWARD_TERMS, terms, strict=True)) == pytest.approx(wanted, rel=1e-5)


def test_environments_of_different_difficulty_have_their_own_weights():
    config = parse_config(RewardConfig, PAPER)
    together = weighted_terms(config, situation(3, difficulty=[0.0, 0.3, 1.0]))
    for row, difficulty in enumerate((0.0, 0.3, 1.0)):
        alone = weighted_terms(config, situation(3, difficulty=[difficulty] * 3))
        assert torch.equal(together[row], alone[row])
    assert together[2, REWARD_TERMS.index("height")] == 0.0


def test_what_weighs_nothing_is_not_computed(monkeypatch):
    def fail(*_):
        raise AssertionError("computed")

    for name in ("height", "curl", "low_approach"):
        monkeypatch.setitem(TERMS, name, TERMS[name]._replace(value=fail))
    weighted_terms(RewardConfig(), situation())
    with pytest.raises(AssertionError, match="computed"):
        weighted_terms(parse_config(RewardConfig, PAPER), situation())


weights = st.floats(-10.0, 10.0)


@given(st.tuples(*[weights] * 2 * len(TERMS)), st.floats(0.001, 10.0), st.floats(0.0, 1.0))
def test_the_reward_is_the_sum_of_terms_times_weights_times_scale(ends, scale, difficulty):
    ramps = {
        name: {"initial": ends[2 * i], "final": ends[2 * i + 1]}
        for i, name in enumerate(REWARD_TERMS)
    }
    config = parse_config(RewardConfig, {"weights": ramps, "scale": scale})
    now = situation(2, difficulty=[difficulty] * 2)
    wanted = torch.zeros(2, dtype=torch.float64)
    for i, name in enumerate(REWARD_TERMS):
        weight = ends[2 * i] + difficulty * (ends[2 * i + 1] - ends[2 * i])
        wanted += scale * weight * TERMS[name].value(config, now).double()
    terms = weighted_terms(config, now)
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
        tilt = grasping.env.engine.object_rotation[:, 2].abs()  # [3, 3]: of box, cylinder, sphere
        lean = (1 - tilt[1, 2] ** 2).clamp(min=0).sqrt()
        below = torch.stack(
            (
                (tilt[0] * torch.tensor([0.03, 0.03, 0.05])).sum(),
                0.03 * lean + 0.05 * tilt[1, 2],
                torch.tensor(0.035),
            )
        )
        height = position[:, 2] - below
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
