"""The auxiliary phase: the estimate learns, the actions stay, a resumed run goes on exactly."""

import copy
import dataclasses

import pytest
import torch

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.guards import NonFiniteLoss
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

HORIZON, ENVS, ACTIONS = 6, 32, 2
SPECS = {
    "proprio": TensorSpec("proprio", (4,)),
    "depth": TensorSpec("depth", (8, 8), "int16"),
    "object": TensorSpec("object", (3,)),
}
PHASE = PpoConfig(
    learning_rate=1e-3, schedule="fixed", auxiliary_epochs=3, auxiliary_learning_rate=3e-3
)


def pool_tensors(seed=0):
    """The target can be read from the measurements."""
    generator = torch.Generator().manual_seed(seed)
    slots = (HORIZON + 1, ENVS)
    proprio = torch.randn(*slots, 4, generator=generator)
    return {
        "proprio": proprio,
        "depth": torch.randint(0, 1200, (*slots, 8, 8), generator=generator).to(torch.int16),
        "object": proprio[..., :3] * 0.5,
        "reward": torch.randn(*slots, generator=generator),
        "terminated": torch.rand(*slots, generator=generator) < 0.1,
        "truncated": torch.zeros(*slots, dtype=torch.bool),
        "actions": torch.zeros(HORIZON, ENVS, ACTIONS),
    }


def make(config=PHASE, memory="none"):
    network = NetworkConfig(
        actor_groups=("proprio", "depth"),
        critic_groups=("proprio",),
        fused_size=16,
        hidden=(16,),
        critic_hidden=(16,),
        memory=memory,
        memory_size=8,
        auxiliary_group="object",
    )
    view = RunConfig().table_view
    actor = build_actor(network, SPECS, ACTIONS, view)
    ppo = Ppo(actor, build_critic(network, SPECS, view), config)
    return ppo, Rollout.on(pool_tensors(), ppo.groups, ppo.memory_sizes)


def collect(ppo, rollout):
    for slot in range(rollout.horizon):
        ppo.act(rollout, slot)
    ppo.finish(rollout)


def policy(ppo, rollout):
    samples = ppo.samples(rollout)
    with torch.no_grad():
        output = ppo.actor(samples.observations, samples.start, samples.memory["actor"])
    error = (output.auxiliary - samples.observations["object"]).norm(dim=-1).mean()
    return output.mean, float(error)


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_the_estimate_learns_while_the_actions_stay(memory):
    ppo, rollout = make(memory=memory)
    collect(ppo, rollout)
    ppo.observe(rollout)
    before, error_before = policy(ppo, rollout)
    width = ppo.actor.distribution.log_std.detach().clone()
    for _ in range(10):
        figures = ppo._phase.learn(ppo.samples(rollout), ppo.shuffle)
    after, error_after = policy(ppo, rollout)
    assert error_after < 0.5 * error_before
    moved = ((after - before) / ppo.actor.distribution.std).square().sum(-1).mean() / 2
    assert moved < 0.05 and figures["auxiliary_phase_kl"] < 0.05
    assert torch.equal(ppo.actor.distribution.log_std, width)


def test_an_update_reports_the_phase_and_without_one_nothing_changes():
    ppo, rollout = make()
    collect(ppo, rollout)
    assert {"auxiliary_phase", "auxiliary_phase_kl"} < ppo.learn(rollout).keys()
    plain, rollout = make(PpoConfig())
    collect(plain, rollout)
    assert "auxiliary_phase" not in plain.learn(rollout)
    assert "auxiliary_phase" not in plain.state_dict()


def test_a_restored_phase_goes_on_exactly():
    ppo, rollout = make()
    collect(ppo, rollout)
    ppo.learn(rollout)
    other, _ = make()
    other.load_state_dict(copy.deepcopy(ppo.state_dict()))
    for each in (ppo, other):
        each._phase.learn(ppo.samples(rollout), each.shuffle)
    for one, two in zip(ppo.actor.parameters(), other.actor.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_target_that_is_not_finite_is_refused():
    ppo, rollout = make()
    collect(ppo, rollout)
    rollout.observations["object"][0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteLoss, match="auxiliary phase"):
        ppo._phase.learn(ppo.samples(rollout), ppo.shuffle)


def test_a_run_may_go_on_with_another_learning_rate():
    ppo, _ = make()
    other, _ = make(dataclasses.replace(PHASE, auxiliary_learning_rate=1e-4))
    other.load_state_dict(copy.deepcopy(ppo.state_dict()))
    assert [group["lr"] for group in other._phase.optimizer.param_groups] == [1e-4]


@pytest.mark.parametrize(("before", "after"), [(PHASE, PpoConfig()), (PpoConfig(), PHASE)])
def test_a_run_may_leave_the_phase_or_begin_it(before, after):
    first, rollout = make(before)
    collect(first, rollout)
    first.learn(rollout)
    other, rollout = make(after)
    other.load_state_dict(copy.deepcopy(first.state_dict()))
    collect(other, rollout)
    assert ("auxiliary_phase" in other.learn(rollout)) == bool(after.auxiliary_epochs)
