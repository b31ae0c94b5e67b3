"""Steps without a real result, as when a simulator broke: nothing learns from them."""

import math

import pytest
import torch
from torch import Tensor

from dexgrasp_learner.algorithms.config import DistillationConfig, PpoConfig
from dexgrasp_learner.algorithms.distillation import Distillation
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.rollout.minibatches import Batch, shares
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

HORIZON, ENVS, ACTIONS = 6, 8, 2
SPECS = {
    spec.name: spec
    for spec in (
        TensorSpec("proprio", (4,)),
        TensorSpec("object", (3,)),
        TensorSpec("phase", (3,)),
        TensorSpec("depth", (8, 8), "int16"),
    )
}
NETWORK = NetworkConfig(
    actor_groups=("proprio", "depth"), critic_groups=("proprio",), fused_size=8, memory="lstm",
    memory_size=6, critic_memory="lstm", critic_memory_size=6, hidden=(8,), critic_hidden=(8,),
    auxiliary_group="object",
)  # fmt: skip
BROKEN = [(1, 3), (2, 3), (2, 0), (5, 6)]
"""(step, environment) of actions that have no result."""


def pool_tensors(valid: bool = True, broken: list = []) -> dict[str, Tensor]:  # noqa: B006
    generator = torch.Generator().manual_seed(0)
    slots = (HORIZON + 1, ENVS)
    tensors = {
        name: torch.randn(*slots, *SPECS[name].shape, generator=generator)
        for name in ("proprio", "object", "phase")
    }
    depth = torch.randint(0, 1200, (*slots, 8, 8), generator=generator)
    tensors["depth"] = depth.to(torch.int16)
    tensors["reward"] = torch.randn(*slots, generator=generator)
    tensors["terminated"] = torch.rand(*slots, generator=generator) < 0.15
    tensors["truncated"] = torch.rand(*slots, generator=generator) < 0.15
    tensors["actions"] = torch.zeros(HORIZON, ENVS, ACTIONS)
    if valid:
        tensors["valid"] = torch.ones(*slots, dtype=torch.bool)
    for step, env in broken:
        tensors["valid"][step + 1, env] = False
        tensors["reward"][step + 1, env] = 0.0
        tensors["terminated"][step + 1, env] = False
        tensors["truncated"][step + 1, env] = True
    return tensors


def make_ppo(**settings) -> Ppo:
    actor = build_actor(NETWORK, SPECS, ACTIONS, view=RunConfig().table_view)
    config = PpoConfig(epochs=2, minibatches=2, normalize_values=True, **settings)
    return Ppo(actor, build_critic(NETWORK, SPECS, view=RunConfig().table_view), config)


def make_distillation(**settings) -> Distillation:
    student, teacher = (
        build_actor(NETWORK, SPECS, ACTIONS, seed=seed, view=RunConfig().table_view)
        for seed in (0, 1)
    )
    config = DistillationConfig(epochs=2, minibatches=2, bptt_steps=4, **settings)
    return Distillation(student, teacher, config)


ALGORITHMS = [make_ppo, make_distillation]


def collect(algorithm, tensors) -> Rollout:
    rollout = Rollout.on(tensors, algorithm.groups, algorithm.memory_sizes)
    for slot in range(HORIZON):
        algorithm.act(rollout, slot)
    algorithm.finish(rollout)
    return rollout


def outcome(algorithm, rollout):
    figures = algorithm.learn(rollout)
    state = algorithm.state_dict()
    return figures, {name: state[name] for name in ("actor", "critic") if name in state}


def assert_close(first, second, **tolerances):
    torch.testing.assert_close(first, second, **tolerances)


@pytest.mark.parametrize("make", ALGORITHMS)
def test_a_rollout_of_valid_steps_is_learned_from_bit_by_bit_as_one_without_a_mask(make):
    results = []
    for valid in (True, False):
        algorithm = make()
        results.append(outcome(algorithm, collect(algorithm, pool_tensors(valid))))
    assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize("make", ALGORITHMS)
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_what_stands_in_a_step_that_is_not_valid_does_not_matter(make, micro_batches):
    results = []
    for disturbance in (0.0, 1e3):
        algorithm = make(micro_batches=micro_batches)
        rollout = collect(algorithm, pool_tensors(broken=BROKEN))
        for step, env in BROKEN:
            rollout.rewards[step, env] += disturbance
            for tensor in (rollout.actions, rollout.own.mean, rollout.own.log_prob):
                tensor[step, env] += disturbance
            rollout.observations["object"][step, env] += disturbance
        results.append(outcome(algorithm, rollout))
    assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize("make", ALGORITHMS)
def test_micro_batches_with_different_numbers_of_valid_steps_give_the_same_update(make):
    results = []
    for micro_batches in (1, 2):
        algorithm = make(micro_batches=micro_batches)
        results.append(outcome(algorithm, collect(algorithm, pool_tensors(broken=BROKEN))))
    assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_losses_are_means_over_the_valid_steps():
    ppo = make_ppo()
    rollout = collect(ppo, pool_tensors(broken=BROKEN))
    rollout.own.advantages.normal_(generator=torch.Generator().manual_seed(1))
    everyone = torch.arange(ENVS)
    losses = ppo.losses(Batch.whole(rollout), rollout.log_std)
    valid = torch.ones(HORIZON, ENVS, dtype=torch.bool)
    for step, env in BROKEN:
        valid[step, env] = False
    # nothing was learned yet: every ratio is 1
    expected = -rollout.own.advantages[valid].mean()
    torch.testing.assert_close(losses["surrogate"], expected, rtol=1e-4, atol=1e-5)
    assert shares(Batch.whole(rollout), [everyone[:4], everyone[4:]]) == [21 / 44, 23 / 44]


def test_observation_statistics_leave_out_what_no_valid_step_was_made_from():
    ppo = make_ppo()
    tensors = pool_tensors(broken=[(0, env) for env in range(ENVS)] + BROKEN)
    rollout = collect(ppo, tensors)
    assert rollout.flat_observations(0)["proprio"].shape == (1, 0, 4)
    seen = [tensors["proprio"][0]]  # before anything was known
    for step in range(1, HORIZON):
        kept = [env for env in range(ENVS) if (step, env) not in BROKEN]
        flat = rollout.flat_observations(step)
        assert torch.equal(flat["proprio"][0], tensors["proprio"][step, kept])
        seen.append(tensors["proprio"][step, kept])
    ppo.learn(rollout)
    expected = torch.cat(seen)
    normalizer = ppo.actor.trunk.normalizer
    torch.testing.assert_close(normalizer.mean, expected.mean(0), rtol=1e-4, atol=1e-5)
    assert normalizer.count.item() == len(expected)


@pytest.mark.parametrize(("make", "loss"), zip(ALGORITHMS, ("surrogate", "imitation")))
def test_an_update_from_no_valid_step_at_all_leaves_weights_and_figures_finite(make, loss):
    everything = [(step, env) for step in range(HORIZON) for env in range(ENVS)]
    algorithm = make()
    figures, state = outcome(algorithm, collect(algorithm, pool_tensors(broken=everything)))
    assert figures[loss] == 0.0
    assert all(map(math.isfinite, figures.values())), figures
    for net in state.values():
        assert all(tensor.isfinite().all() for tensor in net.values())
