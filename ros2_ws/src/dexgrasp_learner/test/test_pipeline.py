"""Learning beside collecting: the numbers of a fixed order, the lag, and what fails meanwhile."""

import copy

import pytest
import torch

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pipeline.in_turn import InTurn
from dexgrasp_learner.pipeline.overlapped import Overlapped
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_connection import WorkerDied
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.timing import Stopwatch
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

SPECS = {"state": TensorSpec("state", (8,))}
NETWORK = NetworkConfig(
    actor_groups=("state",), critic_groups=("state",), memory="lstm", memory_size=5, hidden=(6,),
    critic_memory="lstm", critic_memory_size=5, critic_hidden=(6,),
)  # fmt: skip
HORIZON, ENVS, ITERATIONS = 4, 6, 5


TWICE = PpoConfig(epochs=2, minibatches=2, normalize_values=True)


def make_ppo(config=TWICE):
    ppo = Ppo(
        build_actor(NETWORK, SPECS, 4, view=RunConfig().table_view),
        build_critic(NETWORK, SPECS, view=RunConfig().table_view),
        config,
        seed=3,
    )
    spread = torch.linspace(0, 100, 400).view(1, 50, 8)
    for net in (ppo.actor, ppo.critic):
        net.update_statistics({"state": spread})
    return ppo


def make_pieces(kind, transport="in_process", ppo_config=TWICE, **config):
    spec = PoolSpec(
        "synthetic",
        config,
        ("state",),
        HORIZON,
        SimulatorsConfig(num_envs=ENVS, num_workers=2, transport=transport, restarts=0),
        seed=1,
    )
    pool, ppo = make_pool(spec), make_ppo(ppo_config)
    rollout = Rollout.on(pool.tensors, ppo.groups, ppo.memory_sizes)
    return (
        pool,
        ppo,
        rollout,
        kind(pool, rollout, Collector(pool, rollout, ppo), ppo, Stopwatch(), update_threads=1),
    )


def test_overlapping_is_learning_from_the_policy_before_the_last_update():
    """Against one thread with two learners: one only acts, with the other's older weights."""
    pool, ppo, _, pipeline = make_pieces(Overlapped)
    pool.start()
    learned = [pipeline.iterate(i, look_ahead=i + 1 < ITERATIONS) for i in range(ITERATIONS)]
    pipeline.close()
    assert [item.rollout.policy_version for item in learned] == [0, 0, 1, 2, 3]
    assert not pipeline.is_ahead

    pool, expected, rollout, _ = make_pieces(InTurn)
    acting, twin = make_ppo(), rollout.twin()
    collector = Collector(pool, rollout, acting)
    pool.start()
    collector.collect(0)
    for iteration in range(ITERATIONS):
        acting.finish(rollout)
        twin.take(rollout)
        pool.roll_over()
        before = copy.deepcopy(expected.state_dict())
        assert expected.learn(twin) == learned[iteration].figures
        for name in ("actor", "critic", "value_normalizer"):
            getattr(acting, name).load_state_dict(before[name])
        collector.collect(iteration)
    for net, other in ((ppo.actor, expected.actor), (ppo.critic, expected.critic)):
        torch.testing.assert_close(net.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_the_divergence_of_the_first_minibatch_shows_the_lag():
    """It is that from the policy that acted; after learning in turn it would be zero."""
    kl = {}
    for kind in (InTurn, Overlapped):
        once = PpoConfig(epochs=1, minibatches=1, schedule="fixed", learning_rate=0.01)
        pool, _, _, pipeline = make_pieces(kind, ppo_config=once)
        pool.start()
        kl[kind] = [pipeline.iterate(i, look_ahead=True).figures["kl"] for i in range(3)]
        pipeline.close()
    assert kl[InTurn] == pytest.approx([0, 0, 0], abs=1e-6)
    assert kl[Overlapped][0] == pytest.approx(0, abs=1e-6)
    assert min(kl[Overlapped][1:]) > 1e-4


@pytest.mark.slow
def test_a_simulator_that_dies_meanwhile_does_not_undo_the_update():
    pool, ppo, _, pipeline = make_pieces(
        Overlapped, "shared_memory", fault="exit", fault_step=HORIZON + 2
    )
    try:
        pool.start()
        before = copy.deepcopy(ppo.actor.state_dict())
        learned = pipeline.iterate(0, look_ahead=True)
        assert isinstance(learned.failure, WorkerDied)
        assert learned.figures["learning_rate"] > 0
        after = ppo.actor.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before)
        assert not pipeline.is_ahead
    finally:
        pool.close()
        pipeline.close()
