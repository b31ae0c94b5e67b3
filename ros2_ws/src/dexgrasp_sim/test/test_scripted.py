from pathlib import Path

import pytest
import torch

from dexgrasp_sim.config import parse_config, read_values
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy
from dexgrasp_sim.vec_env import EPISODE_FIELDS, RESULT_SPECS

CONFIG = Path(__file__).parents[4] / "config" / "laptop_depth.yaml"
EPISODES = 48


def run_episodes(**changes):
    """[EPISODES, fields]: one episode in each environment."""
    task = {**read_values(CONFIG)["task"], "stagger_starts": False, **changes}
    env = GraspEnv(parse_config(GraspConfig, task), EPISODES, seed=0, threads=1, groups=())
    out = {spec.name: spec.empty(EPISODES) for spec in RESULT_SPECS}
    rows = torch.full((EPISODES, len(EPISODE_FIELDS)), torch.nan)
    env.reset(out)
    policy = ScriptedPolicy(env)
    for _ in range(env.config.episode_steps):
        env.step(policy.act(), out)
        ended = (out["terminated"] | out["truncated"]) & rows[:, 0].isnan()
        rows[ended] = out["episode"][ended]
    return dict(zip(EPISODE_FIELDS, rows.T, strict=True))


def test_the_task_of_the_laptop_preset_is_solvable():
    episodes = run_episodes()
    success = episodes["success"]
    assert success.mean() >= 0.9
    for index in range(3):
        assert success[episodes["object"] == index].mean() >= 0.8
    assert episodes["max_lift_m"][success == 1].min() > 0.10
    assert episodes["return"][success == 1].min() > 4 * episodes["return"][success == 0].max()


@pytest.mark.parametrize("dimensions", [["finger_closure", "palm_z", "palm_y", "palm_x"]])
def test_it_acts_in_the_order_of_the_dimensions(dimensions):
    task = {"action": {"dimensions": dimensions}, "stagger_starts": False}
    env = GraspEnv(parse_config(GraspConfig, task), 2, seed=0, threads=1, groups=())
    out = {spec.name: spec.empty(2) for spec in RESULT_SPECS}
    env.reset(out)
    action = ScriptedPolicy(env).act()
    assert action.shape == (2, 4) and not action[:, 0].any()
    assert (action[:, 1] == -1.0).all(), "down to the object at full speed"
    offset = env.engine.object_position - env.decoder.palm_position
    assert (action[:, [3, 2]].sign() == offset[:, :2].sign()).all()
