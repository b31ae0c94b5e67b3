"""Collecting with the environments in groups gives what collecting all at once gives."""

import pytest
import torch

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.synthetic_env import expected_observation

torch.set_num_threads(1)

SPEC = TensorSpec("state", (8,))
HORIZON, ENVS, ACTIONS, SEED = 6, 8, 4, 3
NETWORK = NetworkConfig(
    actor_groups=("state",), critic_groups=("state",), memory="lstm", memory_size=5, hidden=(6,),
    critic_memory="lstm", critic_memory_size=5, critic_hidden=(6,),
)  # fmt: skip


class MeanPolicy:
    """Acts without noise, whose order of drawing depends on the groups; notes for whom."""

    def __init__(self):
        self.memory_sizes = {"actor": NETWORK.memory_size}
        self.actor = build_actor(NETWORK, {"state": SPEC}, ACTIONS)
        spread = torch.linspace(0, 100, 400).view(1, 50, *SPEC.shape)
        self.actor.update_statistics({"state": spread})
        self.turns = []

    def act(self, rollout, slot):
        rollout.receive(slot)
        observations, start = rollout.slot(slot)
        output = self.actor(observations, start, rollout.memory["actor"])
        rollout.memory["actor"] = output.memory
        rollout.publish_actions(slot, 100 * output.mean[0])
        first = int(observations["state"][0, 0, 0])
        self.turns.append((slot, rollout.num_envs, first))


def collect(policy, groups, transport="in_process", rollouts=2, workers=4):
    simulators = SimulatorsConfig(num_envs=ENVS, num_workers=workers, transport=transport)
    spec = PoolSpec("synthetic", {}, ("state",), HORIZON, simulators, seed=SEED)
    pool = make_pool(spec)
    try:
        rollout = Rollout.on(pool.tensors, ("state",), policy.memory_sizes)
        collector = Collector(pool, rollout, policy, groups)
        pool.start()
        for iteration in range(rollouts):
            if iteration:
                pool.roll_over()
            collector.collect(policy_version=iteration)
        assert pool.slot_mismatches == 0
        tensors = {name: tensor.clone() for name, tensor in pool.tensors.items()}
        return tensors, rollout
    finally:
        pool.close()


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_groups_change_nothing_about_a_rollout(groups):
    expected, whole = collect(MeanPolicy(), groups=1)
    tensors, parts = collect(MeanPolicy(), groups)
    assert expected["reward"].count_nonzero() > 0
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name], tensor)
    torch.testing.assert_close(parts.memory, whole.memory)
    torch.testing.assert_close(parts.start_memory, whole.start_memory)
    assert whole.start_memory["actor"].abs().max() > 0


def test_groups_take_turns_on_the_newest_observations():
    policy = MeanPolicy()
    collect(policy, groups=2, rollouts=1)
    expected = [
        (slot, ENVS // 2, int(expected_observation(SPEC, SEED, env, slot)[0]))
        for slot in range(HORIZON)
        for env in (0, ENVS // 2)
    ]
    assert policy.turns == expected


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes_with_exploration():
    def ppo():
        actor = build_actor(NETWORK, {"state": SPEC}, ACTIONS)
        return Ppo(actor, build_critic(NETWORK, {"state": SPEC}), PpoConfig(), SEED)

    expected, in_process = collect(ppo(), groups=2, workers=2)
    tensors, shared = collect(ppo(), groups=2, transport="shared_memory", workers=2)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    for name in ("mean", "log_prob", "values", "start"):
        assert torch.equal(getattr(shared.own, name), getattr(in_process.own, name))


def test_more_groups_than_workers_are_refused():
    with pytest.raises(ValueError, match="4 workers cannot form 5 groups"):
        collect(MeanPolicy(), groups=5)


def test_double_buffering_needs_an_even_number_of_workers():
    assert SimulatorsConfig(num_workers=2, pipeline="double_buffered").num_workers == 2
    with pytest.raises(ValueError, match="make it even"):
        SimulatorsConfig(num_workers=1, pipeline="double_buffered")
