import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.config import parse_config, to_dict
from dexgrasp_sim.tasks.grasp import rewards
from dexgrasp_sim.tasks.grasp.config import GraspConfig, RewardConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy
from dexgrasp_sim.vec_env import RESULT_SPECS

distances = st.floats(0.0, 3.0)
heights = st.floats(-1.0, 1.0)


def one(value):
    return torch.tensor([value])


def test_reach_falls_by_e_every_ten_centimetres():
    values = rewards.reach(torch.tensor([0.0, 0.1, 0.2])).tolist()
    assert values == pytest.approx([1.0, math.exp(-1), math.exp(-2)])


def test_lift_is_the_share_of_the_goal_height_while_in_hand():
    height = torch.tensor([0.0, 0.05, 0.2, 0.5, -0.1])
    in_hand = torch.full((5,), 0.05)
    assert rewards.lift(height, 0.2, in_hand).tolist() == pytest.approx([0, 0.25, 1, 1, 0])
    # 20 cm away: exp(-10 * (0.25 - 0.05)) of it counts
    away = rewards.lift(one(0.1), 0.2, one(0.25)).item()
    assert away == pytest.approx(0.5 * math.exp(-2))


def test_goal_falls_with_the_distance():
    values = rewards.goal(torch.tensor([0.0, 0.1])).tolist()
    assert values == pytest.approx([1.0, math.exp(-1.5)])


def test_total_weighs_and_scales():
    weights = RewardConfig(reach=1.0, lift=5.0, goal=-2.0, scale=0.1)
    terms = {
        "reach": torch.tensor([0.5, 0.0]),
        "lift": torch.tensor([0.2, 1.0]),
        "goal": torch.tensor([0.25, 0.0]),
    }
    # 0.1 * (0.5 + 1.0 - 0.5), 0.1 * 5
    assert rewards.total(weights, terms).tolist() == pytest.approx([0.1, 0.5])
    with pytest.raises(AttributeError, match="spin"):
        rewards.total(weights, {"spin": one(1.0)})


@given(distances, distances, heights, heights)
def test_terms_stay_in_range_and_prefer_closer_and_higher(near, far, low, high):
    near, far = sorted((near, far))
    low, high = sorted((low, high))
    for term in (rewards.reach, rewards.goal):
        assert 0.0 <= term(one(far)) <= term(one(near)) <= 1.0
    assert 0.0 <= rewards.lift(one(low), 0.2, one(far)) <= rewards.lift(one(high), 0.2, one(far))
    assert rewards.lift(one(high), 0.2, one(far)) <= rewards.lift(one(high), 0.2, one(near)) <= 1.0


def test_every_weight_has_a_term():
    names = to_dict(RewardConfig()).keys() - {"scale"}
    assert names == {"reach", "lift", "goal"}
    assert all(callable(getattr(rewards, name)) for name in names)


def test_the_environment_rewards_the_state_it_shows():
    """Worked out again from the observations of a grasp, as the formulas above say."""
    config = parse_config(GraspConfig, {"stagger_starts": False})
    env = GraspEnv(config, 3, seed=3, threads=1, groups=("state",))
    (spec,) = env.observation_specs
    out = {one.name: one.empty(3) for one in (spec, *RESULT_SPECS)}
    env.reset(out)
    policy = ScriptedPolicy(env)
    half = torch.tensor([0.05, 0.05, 0.035])
    highest = 0.0
    for _ in range(60):
        env.step(policy.act(), out)
        values = out["state"].split([term.size for term in spec.terms], dim=1)
        state = dict(zip((term.name for term in spec.terms), values, strict=True))
        position = state["object_position"]
        points = torch.cat(
            (state["fingertip_from_object"], state["grasp_center_from_object"]), dim=1
        )
        farthest = points.view(3, 5, 3).norm(dim=2).amax(1)
        height = position[:, 2] - half
        highest = max(highest, height.max().item())
        off_goal = position - torch.stack((0 * half, 0 * half, half + 0.20), dim=1)
        wanted = 0.1 * (
            torch.exp(-10 * farthest)
            + 5 * (height / 0.20).clamp(0, 1) * torch.exp(-10 * (farthest - 0.05).clamp(min=0))
            + 3 * torch.exp(-15 * off_goal.norm(dim=1))
        )
        assert torch.allclose(out["reward"], wanted, atol=1e-5)
    assert highest > 0.1
