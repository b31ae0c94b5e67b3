"""PPO learns a task that takes images, memory, resets and gradients through time."""

import pytest
import torch

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import Actor, build_actor, build_critic
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.specs import TensorSpec

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

SPECS = {
    "depth": TensorSpec("depth", (16, 16), "int16"),
    "clock": TensorSpec("clock", (1,)),
    "target": TensorSpec("target", (3,)),
}


class MemoryTask:
    """A spot is shown in the first of eight steps; the action is to be its place, all along.

    Solving it takes the image encoder, the memory, its resets and gradients through time. Reward
    per step is 1 - squared distance: 1/3 for staying in the middle, 0.42 with perfect eyes and no
    memory.
    """

    length, size = 8, 16

    table_mm = RunConfig().table_view.depth_m(size, size) * 1000

    def __init__(self, envs: int, horizon: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        slots = (horizon + 1, envs)
        self.tensors = {name: spec.empty(*slots) for name, spec in SPECS.items()}
        self.tensors["reward"] = torch.zeros(slots)
        self.tensors["terminated"] = torch.zeros(slots, dtype=torch.bool)
        self.tensors["truncated"] = torch.zeros(slots, dtype=torch.bool)
        self.tensors["actions"] = torch.zeros(horizon, envs, 2)
        self.age = torch.arange(envs) % self.length
        self.place = torch.rand(envs, 2, generator=self.generator) * 2 - 1
        self.tensors["terminated"][0] = True
        self.show(0)

    def step(self, slot: int) -> None:
        actions = self.tensors["actions"][slot]
        self.tensors["reward"][slot + 1] = 1 - (actions - self.place).square().sum(-1)
        self.age += 1
        done = self.age == self.length
        self.age[done] = 0
        fresh = torch.rand(self.place.shape, generator=self.generator) * 2 - 1
        self.place = torch.where(done[:, None], fresh, self.place)
        self.tensors["terminated"][slot + 1] = done
        self.show(slot + 1)

    def roll_over(self) -> None:
        for name, tensor in self.tensors.items():
            if name != "actions":
                tensor[0] = tensor[-1]

    def show(self, slot: int) -> None:
        grid = torch.linspace(-1, 1, self.size)
        x, y = self.place[:, 0, None, None], self.place[:, 1, None, None]
        spot = torch.exp(-((grid - x).square() + (grid[:, None] - y).square()) / 0.08)
        above_table = self.table_mm - 200 * spot  # [N, size, size]
        shown = above_table * (self.age == 0)[:, None, None]
        self.tensors["depth"][slot] = shown.to(torch.int16)
        self.tensors["clock"][slot, :, 0] = self.age / self.length
        self.tensors["target"][slot] = torch.cat((self.place, self.age[:, None] / self.length), -1)


def train(iterations: int, envs: int = 64, horizon: int = 16) -> Actor:
    network = NetworkConfig(
        actor_groups=("depth", "clock"),
        critic_groups=("target",),
        fused_size=64,
        memory="lstm",
        memory_size=64,
        hidden=(64,),
        critic_hidden=(64, 64),
        initial_std=0.5,
    )
    task = MemoryTask(envs, horizon, seed=0)
    actor = build_actor(network, SPECS, action_dim=2, seed=0, view=RunConfig().table_view)
    ppo = Ppo(
        actor,
        build_critic(network, SPECS, seed=1, view=RunConfig().table_view),
        PpoConfig(epochs=4),
        seed=0,
    )
    rollout = Rollout.on(task.tensors, ppo.groups, ppo.memory_sizes)
    for _ in range(iterations):
        for slot in range(horizon):
            ppo.act(rollout, slot)
            task.step(slot)
        ppo.update(rollout)
        task.roll_over()
    return actor


@torch.no_grad()
def rewards_by_step(actor: Actor, envs: int = 128) -> list[float]:
    """Mean rewards of the mean actions over one episode of unseen places."""
    task = MemoryTask(envs, 1, seed=99)
    task.age.zero_()
    task.show(0)
    memory, rewards = actor.initial_memory(envs), []
    for _ in range(task.length):
        observations = {name: task.tensors[name][:1] for name in actor.groups}
        output = actor(observations, task.tensors["terminated"][:1], memory)
        memory = output.memory
        task.tensors["actions"][0] = output.mean[0]
        task.step(0)
        rewards.append(task.tensors["reward"][1].mean().item())
        task.roll_over()
    return rewards


def test_learns_to_remember_what_it_saw():
    rewards = rewards_by_step(train(iterations=30))
    assert rewards[-1] > 0.85, f"what was shown seven steps ago is not remembered: {rewards}"
