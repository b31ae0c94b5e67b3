"""What several tests build: an environment in play, and robots from copies of the files."""

import shutil

import torch
import yaml

from dexgrasp_sim.config import parse_config
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import GROUPS
from dexgrasp_sim.vec_env import allocate

FAST = {
    "physics": {"timestep_s": 1 / 60, "mujoco": {"integrator": "discrete"}},
    "stagger_starts": False,
}
"""Four physics steps in a control step."""
SHORT = {**FAST, "episode_s": 0.8, "success": {"hold_s": 0.2}}
"""Twelve control steps, of which three held."""


class Play:
    """An environment after its first reset, and the tensors that it writes.

    The tensors start as ones, so that what the environment does not write shows.
    """

    def __init__(self, num_envs, task=FAST, groups=tuple(GROUPS), seed=3, threads=1, env_offset=0):
        config = parse_config(GraspConfig, task)
        self.env = make_grasp_env(config, num_envs, seed, threads, groups, env_offset)
        self.out = {name: value.fill_(1) for name, value in allocate(self.env).items()}
        self.env.reset(self.out)

    def step(self, actions=None):
        """A control step, without actions one at rest; returns a copy of all tensors."""
        if actions is None:
            actions = torch.zeros(self.env.num_envs, self.env.action_dim)
        self.env.step(actions, self.out)
        return self.snapshot()

    def snapshot(self):
        return {name: value.clone() for name, value in self.out.items()}


def copy_robot(folder, edit=None):
    """Copies the default robot's files and returns the path of the copy's `robot.yaml`.

    Args:
        folder: Where to.
        edit: Changes the values of the YAML file in place.
    """
    shutil.copytree(load_robot().path.parent, folder, dirs_exist_ok=True)
    path = folder / "robot.yaml"
    if edit is not None:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        edit(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def robot_with_fingers(folder, order):
    """The default robot with its fingers in another order, and so its hand's joints."""

    def reorder(values):
        names = [finger["name"] for finger in values["fingers"]]
        places = [names.index(name) for name in order]

        def permuted(hand):
            return [hand[4 * place + joint] for place in places for joint in range(4)]

        values["fingers"] = [values["fingers"][place] for place in places]
        values["flat_hand"] = permuted(values["flat_hand"])
        for posture in values["postures"].values():
            posture["hand"] = permuted(posture["hand"])

    return load_robot(copy_robot(folder, reorder))
