"""The PPO update: identities, hand-computed losses, reproducibility, guards."""

import io
import math

import pytest
import torch
from torch import Tensor

from dexgrasp_learner.algorithms.algorithm import restore_draws
from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.guards import NonFiniteLoss
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.rollout.minibatches import Batch
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.config import ConfigError, parse_config, replace
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

HORIZON, ENVS, ACTIONS = 5, 12, 2
SPECS = {
    spec.name: spec
    for spec in (
        TensorSpec("proprio", (4,)),
        TensorSpec("critic", (6,)),
        TensorSpec("object", (3,)),
        TensorSpec("depth", (8, 8), "int16"),
    )
}
NETWORK = NetworkConfig(
    actor_groups=("proprio", "depth"),
    critic_groups=("critic",),
    fused_size=16,
    memory="lstm",
    memory_size=8,
    critic_memory="lstm",
    critic_memory_size=8,
    hidden=(16,),
    critic_hidden=(16,),
    auxiliary_group="object",
)

REACTIVE = NetworkConfig(
    actor_groups=("proprio",), critic_groups=("critic",), auxiliary_group="object"
)


def pool_tensors(seed: int = 0, horizon: int = HORIZON, envs: int = ENVS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    slots = (horizon + 1, envs)
    depth = torch.randint(0, 1200, (*slots, 8, 8), generator=generator)
    return {
        **{name: torch.randn(*slots, *SPECS[name].shape, generator=generator)
           for name in ("proprio", "critic", "object")},
        "depth": depth.to(torch.int16),
        "reward": torch.randn(*slots, generator=generator),
        "terminated": torch.rand(*slots, generator=generator) < 0.15,
        "truncated": torch.rand(*slots, generator=generator) < 0.15,
        "actions": torch.zeros(horizon, envs, ACTIONS),
    }  # fmt: skip


def make_ppo(config: PpoConfig, network: NetworkConfig = NETWORK, seed: int = 0) -> Ppo:
    actor = build_actor(network, SPECS, ACTIONS, seed=seed, view=RunConfig().table_view)
    return Ppo(
        actor,
        build_critic(network, SPECS, seed=seed + 1, view=RunConfig().table_view),
        config,
        seed,
    )


def make_rollout(ppo: Ppo, tensors: dict[str, Tensor] | None = None) -> Rollout:
    return Rollout.on(tensors or pool_tensors(), ppo.groups, ppo.memory_sizes)


def collect(ppo: Ppo, rollout: Rollout) -> None:
    for slot in range(rollout.horizon):
        ppo.act(rollout, slot)


def one_cycle(ppo: Ppo, rollout: Rollout) -> dict[str, float]:
    collect(ppo, rollout)
    return ppo.update(rollout)


def weights(ppo: Ppo) -> Tensor:
    nets = (*ppo.actor.parameters(), *ppo.critic.parameters())
    return torch.cat([p.detach().flatten() for p in nets])


# --- acting


def test_acting_fills_the_rollout():
    ppo = make_ppo(PpoConfig())
    assert ppo.groups == ("proprio", "depth", "critic", "object")
    assert ppo.memory_sizes == {"actor": 8, "critic": 8}
    tensors = pool_tensors()
    rollout = make_rollout(ppo, tensors)
    collect(ppo, rollout)
    observations = {name: t[:HORIZON] for name, t in rollout.observations.items()}
    zeros = ppo.actor.initial_memory(ENVS)
    output = ppo.actor(observations, rollout.own.start[:HORIZON], zeros)
    torch.testing.assert_close(rollout.own.mean, output.mean, atol=1e-6, rtol=1e-4)
    log_prob = ppo.actor.distribution.log_prob(output.mean, tensors["actions"])
    torch.testing.assert_close(rollout.own.log_prob, log_prob, atol=1e-4, rtol=1e-4)
    values = ppo.critic(observations, rollout.own.start[:HORIZON], zeros).value
    torch.testing.assert_close(rollout.own.values[:HORIZON], values, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(rollout.memory["actor"], output.memory, atol=1e-6, rtol=1e-4)


def test_first_observations_set_the_normalisation():
    ppo = make_ppo(PpoConfig())
    rollout = make_rollout(ppo)
    ppo.act(rollout, 0)
    mean = rollout.observations["proprio"][0].mean(0)
    torch.testing.assert_close(ppo.actor.trunk.normalizer.mean, mean)


def test_bootstrapping_leaves_the_critics_memory_alone():
    ppo = make_ppo(PpoConfig())
    rollout = make_rollout(ppo)
    collect(ppo, rollout)
    before = rollout.memory["critic"].clone()
    ppo.update(rollout)
    assert torch.equal(before, rollout.memory["critic"])


def test_normalisation_is_frozen_while_a_rollout_is_used_and_moves_after():
    ppo = make_ppo(PpoConfig(epochs=1))
    rollout = make_rollout(ppo)
    ppo.act(rollout, 0)
    frozen = ppo.actor.trunk.normalizer.mean.clone()
    for slot in range(1, HORIZON):
        ppo.act(rollout, slot)
    assert torch.equal(frozen, ppo.actor.trunk.normalizer.mean)
    ppo.update(rollout)
    seen = torch.cat((rollout.observations["proprio"][:1], rollout.observations["proprio"][:-1]))
    mean = seen.mean((0, 1))  # slot 0 counts twice: it was there before anything was seen
    torch.testing.assert_close(ppo.actor.trunk.normalizer.mean, mean, atol=1e-5, rtol=1e-4)


# --- the update


def test_micro_batches_change_memory_use_only():
    results = []
    for micro_batches in (1, 3):
        config = PpoConfig(epochs=2, minibatches=2, micro_batches=micro_batches)
        ppo = make_ppo(config)
        metrics = one_cycle(ppo, make_rollout(ppo))
        results.append((weights(ppo), metrics))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-4)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-3, abs=1e-5)


def test_first_pass_over_a_rollout_has_ratio_one():
    ppo = make_ppo(PpoConfig(epochs=1, minibatches=1))
    metrics = one_cycle(ppo, make_rollout(ppo))
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["clip_fraction"] == 0
    assert metrics["surrogate"] == pytest.approx(0, abs=1e-5)  # minus the mean advantage
    assert metrics["entropy"] == pytest.approx(
        ACTIONS * (math.log(0.6) + 0.5 * math.log(2 * math.pi * math.e)), abs=1e-5
    )


def test_noise_goes_on_from_slot_to_slot_and_begins_anew_with_each_rollout():
    ppo = make_ppo(PpoConfig(noise_correlation=0.999), REACTIVE)
    rollout = make_rollout(ppo)
    noises = []
    for _ in range(2):
        collect(ppo, rollout)
        moved = rollout.actions - rollout.own.mean  # [T, N, A]
        noises.append((moved / ppo.actor.distribution.std).detach())
        torch.testing.assert_close(noises[-1][1:], noises[-1][:-1], atol=0.3, rtol=0)
    before, after = noises
    assert (after[0] - before[-1]).abs().max() > 0.5


def test_images_laid_out_once_give_the_losses_of_the_images():
    network = replace(NETWORK, memory="none", critic_memory="none")
    ppo = make_ppo(PpoConfig(), network)
    rollout = make_rollout(ppo)
    collect(ppo, rollout)
    ppo.finish(rollout)
    plain, laid_out = Batch.whole(rollout).single_steps(), ppo.samples(rollout)
    assert laid_out.observations["depth"].is_floating_point()
    expected = ppo.losses(plain, rollout.log_std)
    losses = ppo.losses(laid_out, rollout.log_std)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())


def test_bfloat16_changes_losses_little_and_nothing_where_a_net_has_a_memory():
    reactive = replace(NETWORK, memory="none", critic_memory="none")
    for network, tolerance in ((reactive, 0.05), (NETWORK, 0.0)):
        losses = []
        for precision in ("float32", "bfloat16"):
            ppo = make_ppo(PpoConfig(precision=precision), network)
            rollout = make_rollout(ppo)
            collect(ppo, rollout)
            ppo.finish(rollout)
            losses.append(ppo.losses(ppo.samples(rollout), rollout.log_std))
        for name, value in losses[0].items():
            torch.testing.assert_close(losses[1][name], value, atol=tolerance, rtol=tolerance)


def test_losses_by_hand():
    """One environment, two steps, nets whose outputs are known."""
    network = NetworkConfig(
        actor_groups=("proprio",), critic_groups=("critic",), hidden=(), critic_hidden=()
    )
    config = PpoConfig(clip=0.2, clip_value_loss=True, action_bound=1.0)
    ppo = make_ppo(config, network)
    with torch.no_grad():
        for parameter in (*ppo.actor.head.parameters(), *ppo.critic.head.parameters()):
            parameter.zero_()
        dict(ppo.actor.head.named_parameters())["0.bias"].copy_(torch.tensor([0.0, 1.5]))
        dict(ppo.critic.head.named_parameters())["0.bias"].fill_(3.0)
    rollout = make_rollout(ppo, pool_tensors(horizon=2, envs=1))
    collect(ppo, rollout)
    rollout.own.log_prob[0] -= math.log(2)  # ratio 2: clipped to 1.2 for a positive advantage
    rollout.own.log_prob[1] += math.log(2)  # ratio 0.5: clipped to 0.8 for a negative one
    rollout.own.advantages.copy_(torch.tensor([[1.0], [-1.0]]))
    rollout.own.returns.copy_(torch.tensor([[4.0], [3.0]]))
    rollout.own.values[:2] = torch.tensor([[2.0], [3.1]])
    losses = ppo.losses(Batch.whole(rollout), ppo.actor.distribution.log_std.detach())
    assert losses["surrogate"].item() == pytest.approx(-(1.2 - 0.8) / 2, abs=1e-5)
    # values: (max((3-4)^2, (2.2-4)^2) + max((3-3)^2, (3-3)^2)) / 2
    assert losses["value"].item() == pytest.approx(1.8**2 / 2, abs=1e-4)
    assert losses["bounds"].item() == pytest.approx(0.5**2)
    assert losses["clip_fraction"].item() == 1.0
    assert losses["auxiliary"].item() == 0.0


@pytest.mark.parametrize(
    ("kl", "expected"), [(0.1, 1e-3 / 1.5), (0.001, 1.5e-3), (0.02, 1e-3), (0.0, 1.5e-3)]
)
def test_learning_rate_follows_the_divergence(kl, expected):
    ppo = make_ppo(PpoConfig(desired_kl=0.02))
    ppo._adapt_learning_rate(kl)
    assert ppo.learning_rate == pytest.approx(expected)
    assert ppo.critic_optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_learning_rate_stays_in_its_range():
    ppo = make_ppo(PpoConfig())
    for _ in range(20):
        ppo._adapt_learning_rate(1.0)
    assert ppo.learning_rate == pytest.approx(5e-5)
    for _ in range(20):
        ppo._adapt_learning_rate(1e-6)
    assert ppo.learning_rate == pytest.approx(3e-3)


def test_first_minibatch_does_not_move_the_learning_rate():
    """There the divergence is zero but for rounding, whatever the learning rate."""
    ppo = make_ppo(PpoConfig(epochs=1, minibatches=1))
    one_cycle(ppo, make_rollout(ppo))
    assert ppo.learning_rate == 1e-3


def test_fixed_rates_stay():
    config = PpoConfig(schedule="fixed", learning_rate=1e-2, critic_learning_rate=5e-5)
    ppo = make_ppo(config)
    one_cycle(ppo, make_rollout(ppo))
    assert ppo.learning_rate == 1e-2
    assert ppo.critic_optimizer.param_groups[0]["lr"] == 5e-5


def test_each_net_has_its_own_gradient_limit():
    ppo = make_ppo(PpoConfig(max_grad_norm=0.01, epochs=1, minibatches=1))
    metrics = one_cycle(ppo, make_rollout(ppo))
    assert metrics["critic_grad_norm"] > 0.01  # the norm before clipping
    for net in (ppo.actor, ppo.critic):
        gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        assert torch.cat(gradients).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.slow
def test_normalised_values_stay_in_units_of_the_reward():
    tensors = pool_tensors()
    tensors["reward"] = tensors["reward"] * 10 + 500.0
    config = PpoConfig(normalize_values=True, schedule="fixed", learning_rate=3e-3, gamma=0.5)
    ppo = make_ppo(config, REACTIVE)
    rollout = make_rollout(ppo, tensors)
    history = [one_cycle(ppo, rollout)["value"] for _ in range(40)]
    assert history[-1] < 0.5 * history[0]
    error = (rollout.own.values[:-1] - rollout.own.returns).abs().mean()
    assert error < 0.2 * rollout.own.returns.mean()


@pytest.mark.slow
def test_auxiliary_loss_falls_on_data_that_shows_the_object():
    tensors = pool_tensors()
    tensors["object"] = tensors["proprio"][..., :3] * 0.2 + 1.0
    ppo = make_ppo(PpoConfig(schedule="fixed", learning_rate=3e-3), REACTIVE)
    rollout = make_rollout(ppo, tensors)
    history = [one_cycle(ppo, rollout)["auxiliary"] for _ in range(30)]
    assert history[-1] < 0.2 * history[0]


# --- reproducibility and guards


def test_same_seed_same_weights():
    def train(seed: int) -> Tensor:
        ppo = make_ppo(PpoConfig(), seed=seed)
        rollout = make_rollout(ppo)
        for _ in range(2):
            one_cycle(ppo, rollout)
        return weights(ppo)

    assert torch.equal(train(3), train(3))
    assert not torch.equal(train(3), train(4))


def test_saved_training_goes_on_exactly():
    config = PpoConfig(normalize_values=True)
    ppo = make_ppo(config)
    rollout = make_rollout(ppo)
    for _ in range(2):
        one_cycle(ppo, rollout)
    file = io.BytesIO()
    torch.save({"ppo": ppo.state_dict(), "rollout": rollout.state_dict()}, file)
    expected = [one_cycle(ppo, rollout) for _ in range(2)]

    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = make_ppo(config, seed=77)
    resumed_rollout = make_rollout(resumed)
    resumed.load_state_dict(state["ppo"])
    resumed_rollout.load_state_dict(state["rollout"])
    assert [one_cycle(resumed, resumed_rollout) for _ in range(2)] == expected
    assert torch.equal(weights(ppo), weights(resumed))
    assert torch.equal(rollout.actions, resumed_rollout.actions)


def test_a_state_of_a_gpus_draws_leaves_those_of_the_cpu_alone():
    """As when a run continues on another device: there such a state has 16 bytes."""
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    restore_draws(generator, torch.zeros(16, dtype=torch.uint8))
    assert torch.equal(generator.get_state(), before)
    other = torch.Generator().manual_seed(4).get_state()
    restore_draws(generator, other)
    assert torch.equal(generator.get_state(), other)


def test_not_finite_rollout_is_refused_and_located():
    ppo = make_ppo(PpoConfig())
    tensors = pool_tensors()
    rollout = make_rollout(ppo, tensors)
    collect(ppo, rollout)
    tensors["reward"][3, 7] = math.nan  # the result of action 2
    before = weights(ppo)
    with pytest.raises(NonFiniteLoss, match="rewards of step 2, environment 7 is nan"):
        ppo.update(rollout)
    assert torch.equal(before, weights(ppo))


def test_not_finite_loss_stops_before_the_weights_change():
    ppo = make_ppo(PpoConfig(minibatches=1))
    tensors = pool_tensors()
    rollout = make_rollout(ppo, tensors)
    collect(ppo, rollout)
    tensors["critic"][2, 3] = math.nan
    before = weights(ppo)
    with pytest.raises(
        NonFiniteLoss, match=r"^value, critic_grad_norm not finite in epoch 0, learning rate 0.001"
    ):
        ppo.update(rollout)
    assert torch.equal(before, weights(ppo))


@pytest.mark.parametrize(
    "values", [{"gamma": 1.1}, {"clip": 0}, {"epochs": 0}, {"schedule": "cosine"}, {"lr": 1e-3}]
)
def test_config_refuses_values_that_cannot_work(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        parse_config(PpoConfig, values)
