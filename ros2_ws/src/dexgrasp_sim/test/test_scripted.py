from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp_sim.config import parse_config, read_values
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, RESULT_SPECS
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy

CONFIG = Path(__file__).parents[4] / "config" / "laptop_depth.yaml"
TASK = {**read_values(CONFIG)["task"], "stagger_starts": False}


class Grasps:
    """One episode of the scripted policy in each environment."""

    def __init__(self, num_envs, **changes):
        config = parse_config(GraspConfig, {**TASK, **changes})
        self.env = make_grasp_env(config, num_envs, seed=0, threads=1, groups=())
        self.out = {spec.name: spec.empty(num_envs) for spec in RESULT_SPECS}
        self.env.reset(self.out)
        self.policy = ScriptedPolicy(self.env)
        self.rows = torch.full((num_envs, len(EPISODE_FIELDS)), torch.nan)
        self.total = torch.zeros(num_envs)

    def step(self, actions=None):
        self.env.step(self.policy.act() if actions is None else actions, self.out)
        running = self.rows[:, 0].isnan()
        self.total[running] += self.out["reward"][running]
        ended = (self.out["terminated"] | self.out["truncated"]) & running
        self.rows[ended] = self.out["episode"][ended]

    def __getitem__(self, field):
        return self.rows[:, EPISODE_FIELDS.index(field)]


def test_the_task_of_the_laptop_preset_is_solvable():
    """The last three environments, one with each object, never close the hand."""
    grasps = Grasps(48)
    tries = torch.arange(48) < 45
    for _ in range(grasps.env.config.episode_steps):
        actions = grasps.policy.act()
        actions[~tries, 4:6] = 0.0
        grasps.step(actions)
    success = grasps["success"]
    assert success[tries].mean() >= 0.9 and not success[~tries].any()
    for index in range(3):
        assert success[tries & (grasps["object"] == index)].mean() >= 0.8
    assert grasps["max_lift_m"][success == 1].min() > 0.10
    assert grasps["return"][success == 1].min() > 4 * grasps["return"][success == 0].max()


def test_the_second_robot_solves_the_same_task():
    grasps = Grasps(24, robot="franka_leap")
    assert grasps.env.engine.joint_position.shape == (24, 23)
    for _ in range(grasps.env.config.episode_steps):
        grasps.step()
    success = grasps["success"]
    assert success.mean() >= 0.9
    for index in range(3):
        assert success[grasps["object"] == index].mean() >= 0.8


def test_holding_to_the_end_succeeds_and_opening_the_hand_drops():
    """Environments 6 to 11 open the hand while the object is up."""
    grasps = Grasps(12)
    env, opens = grasps.env, torch.arange(12) >= 6
    for step in range(env.config.episode_steps):
        actions = grasps.policy.act()
        if step == 51:  # 3.4 s
            up = env.engine.object_position[:, 2] - env.start_height > 0.12
        if step >= 51:
            actions[opens, 4:6] = -1.0
        grasps.step(actions)
    assert up[opens].sum() >= 4 and up[~opens].sum() >= 4
    assert torch.equal(grasps["success"] > 0, up & ~opens)
    assert torch.equal(grasps["dropped"] > 0, up & opens)
    assert (grasps["max_lift_m"][up] > 0.12).all()
    assert torch.allclose(grasps["return"], grasps.total, rtol=1e-5)
    assert grasps.total[up & ~opens].min() > grasps.total[up & opens].max()


def deepest_contacts(env):
    """[N] m, how deep the deepest contact of each environment is."""
    depths_m = np.zeros(env.num_envs)
    for index in range(env.num_envs):
        model, data = env.engine._batch.get_model(index), env.engine._batch.get_data(index)
        mujoco.mj_fwdPosition(model, data)
        depths_m[index] = -min((contact.dist for contact in data.contact), default=0.0)
    return depths_m


@pytest.mark.slow
@pytest.mark.parametrize(
    ("physics", "strike_m"), [(TASK["physics"], 0.025), ({}, 0.008)], ids=["laptop", "reference"]
)
def test_the_hand_does_not_sink_into_the_object(physics, strike_m):
    grasps = Grasps(6, physics=physics)
    depths = []
    for _ in range(grasps.env.config.episode_steps - 1):
        grasps.step()
        depths.append(deepest_contacts(grasps.env))
    depths_m = np.stack(depths)
    assert depths_m.max() > 0.0005, "there was contact"
    assert (depths_m > 0.006).mean() < 0.01
    assert depths_m[-20:].max() < 0.006, "while the object is held"
    assert depths_m.max() < strike_m, "when the fingers strike"


def test_it_acts_in_the_order_of_the_dimensions():
    dimensions = ["finger_closure", "palm_z", "palm_y", "palm_x"]
    grasps = Grasps(2, action={"dimensions": dimensions})
    action, env = grasps.policy.act(), grasps.env
    assert action.shape == (2, 4) and not action[:, 0].any()
    assert (action[:, 1] == -1.0).all(), "down to the object at full speed"
    offset = env.engine.object_position - env.decoder.palm_position
    assert (action[:, [3, 2]].sign() == offset[:, :2].sign()).all()
