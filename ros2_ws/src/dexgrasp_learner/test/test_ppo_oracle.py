"""Our PPO against rsl_rl's: same weights and rollout, same values, losses and updated weights."""

from typing import Any, Literal

import pytest
import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel, RNNModel
from tensordict import TensorDict
from torch import Tensor, nn

from benchmarks.peers.rsl_rl import make_ppo
from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import Actor, Critic, build_actor, build_critic
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

HORIZON, ENVS, ACTIONS = 8, 6, 3
SPECS = {"proprio": TensorSpec("proprio", (5,)), "critic": TensorSpec("critic", (7,))}
HIDDEN, MEMORY = (16, 12), 9
GROUPS = {"actor": ["proprio"], "critic": ["critic"]}


def pool_tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    slots = (HORIZON + 1, ENVS)
    return {
        "proprio": torch.randn(*slots, 5, generator=generator),
        "critic": torch.randn(*slots, 7, generator=generator),
        "reward": torch.randn(*slots, generator=generator),
        "terminated": torch.rand(*slots, generator=generator) < 0.15,
        "truncated": torch.rand(*slots, generator=generator) < 0.15,
        "actions": torch.zeros(HORIZON, ENVS, ACTIONS),
    }


def make_ours(config: PpoConfig, memory: Literal["none", "lstm"]) -> Ppo:
    network = NetworkConfig(
        actor_groups=("proprio",),
        critic_groups=("critic",),
        memory=memory,
        memory_size=MEMORY,
        critic_memory=memory,
        critic_memory_size=MEMORY,
        hidden=HIDDEN,
        critic_hidden=HIDDEN,
        initial_std=0.5,
    )
    actor, critic = (
        build_actor(network, SPECS, ACTIONS, view=RunConfig().table_view),
        build_critic(network, SPECS, view=RunConfig().table_view),
    )
    with torch.no_grad():
        last_layer = f"{2 * len(HIDDEN)}.weight"
        actor.head.get_parameter(last_layer).mul_(
            50
        )  # means of order one, as in the middle of a training run
    for net in (actor, critic):
        _make_normalisation_the_identity(net)
        if memory == "lstm":
            _cut_direct_view(net)
    return Ppo(actor, critic, config, seed=1)


def _make_normalisation_the_identity(net: Actor | Critic) -> None:
    normalizer = net.trunk.normalizer
    normalizer.count.fill_(1.0)
    normalizer.variance.fill_(1 - normalizer.min_std**2)


def _cut_direct_view(net: Actor | Critic) -> None:
    """rsl_rl's heads see the memory only."""
    with torch.no_grad():
        net.head.get_parameter("0.weight")[:, : -net.memory_size] = 0


def make_theirs(ours: Ppo, config: PpoConfig, memory: str) -> PPO:
    observations = TensorDict(
        {name: torch.zeros(ENVS, *spec.shape) for name, spec in SPECS.items()}, batch_size=[ENVS]
    )
    model = RNNModel if memory == "lstm" else MLPModel
    extra: dict[str, Any] = {"rnn_hidden_dim": MEMORY} if memory == "lstm" else {}
    distribution = {"class_name": "GaussianDistribution", "init_std": 0.5, "std_type": "log"}
    actor = model(
        observations, GROUPS, "actor", ACTIONS, HIDDEN, distribution_cfg=distribution, **extra
    )
    critic = model(observations, GROUPS, "critic", 1, HIDDEN, **extra)
    for net, source in ((actor, ours.actor), (critic, ours.critic)):
        _copy_weights(source, net)
    return make_ppo(actor, critic, observations, HORIZON, config)


def _copy_weights(ours: Actor | Critic, theirs: nn.Module) -> None:
    head = dict(ours.head.state_dict())
    if ours.memory_size:
        head["0.weight"] = head["0.weight"][:, -ours.memory_size :]
        lstm = ours.trunk.memory.get_submodule("lstm")
        theirs.get_submodule("rnn.rnn").load_state_dict(lstm.state_dict())
    theirs.get_submodule("mlp").load_state_dict(head)


def collect(ours: Ppo, theirs: PPO, tensors: dict[str, Tensor], rollout: Rollout) -> None:
    """One rollout of both with our actions."""

    def observed(slot: int) -> TensorDict:
        return TensorDict({name: tensors[name][slot] for name in SPECS}, batch_size=[ENVS])

    with torch.inference_mode():
        for slot in range(HORIZON):
            ours.act(rollout, slot)
            theirs.act(observed(slot))
            actions = tensors["actions"][slot].clone()
            theirs.transition.actions = actions
            theirs.transition.actions_log_prob = theirs.actor.get_output_log_prob(actions)
            terminated, truncated = tensors["terminated"][slot + 1], tensors["truncated"][slot + 1]
            theirs.process_env_step(
                observed(slot + 1),
                tensors["reward"][slot + 1],
                (terminated | truncated).float(),
                {"time_outs": (truncated & ~terminated).float()},
            )
        theirs.compute_returns(observed(HORIZON))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def compare_rollouts(rollout: Rollout, theirs: PPO) -> None:
    storage = theirs.storage
    close(rollout.own.values[:HORIZON], storage.values.squeeze(-1))
    close(rollout.own.log_prob, storage.actions_log_prob.squeeze(-1))
    assert storage.distribution_params is not None
    close(rollout.own.mean, storage.distribution_params[0])
    close(rollout.own.returns, storage.returns.squeeze(-1))
    close(rollout.own.advantages, storage.advantages.squeeze(-1))


CONFIGS = [
    PpoConfig(
        minibatches=1,
        epochs=6,
        learning_rate=5e-3,
        min_learning_rate=1e-5,
        max_learning_rate=1e-2,
        desired_kl=kl,
        entropy_coefficient=0.01,
        clip_value_loss=clip_value_loss,
    )
    for kl, clip_value_loss in ((0.002, True), (0.05, False))
]


@pytest.mark.parametrize("config", CONFIGS)
def test_reactive_update_ends_at_the_same_weights(config):
    ours = make_ours(config, "none")
    theirs = make_theirs(ours, config, "none")
    tensors = pool_tensors(seed=3)
    rollout = Rollout.on(tensors, ours.groups, ours.memory_sizes)
    collect(ours, theirs, tensors, rollout)
    ours_metrics, theirs_metrics = ours.update(rollout), theirs.update()

    compare_rollouts(rollout, theirs)
    for name in ("surrogate", "value", "entropy"):
        assert ours_metrics[name] == pytest.approx(theirs_metrics[name], abs=1e-4)
    assert ours.learning_rate != config.learning_rate  # the divergence moved it ...
    assert ours.learning_rate == pytest.approx(theirs.learning_rate)  # ... as theirs
    for mine, other in ((ours.actor, theirs.actor), (ours.critic, theirs.critic)):
        for name, weight in mine.head.state_dict().items():
            close(weight, other.mlp.state_dict()[name])
    close(
        ours.actor.distribution.log_std,
        theirs.actor.get_parameter("distribution.log_std_param"),
    )


def test_divergence_is_theirs():
    config = CONFIGS[0]
    ours = make_ours(config, "none")
    theirs = make_theirs(ours, config, "none")
    old_mean, mean = torch.randn(2, 4, ENVS, ACTIONS)
    old_log_std = torch.tensor([-0.2, 0.3, -0.9])
    std = ours.actor.distribution.std.detach().expand(mean.shape)
    expected = theirs.actor.get_kl_divergence(
        (old_mean, old_log_std.exp().expand(mean.shape)), (mean, std)
    )
    close(ours.actor.distribution.kl_from(old_mean, old_log_std, mean).detach(), expected)


def test_memory_over_two_rollouts_gives_the_same_losses():
    """The second rollout starts inside episodes, with memory from the first."""
    config = PpoConfig(minibatches=1, epochs=1, entropy_coefficient=0.01, clip_value_loss=True)
    ours = make_ours(config, "lstm")
    theirs = make_theirs(ours, config, "lstm")
    tensors = pool_tensors(seed=5)
    rollout = Rollout.on(tensors, ours.groups, ours.memory_sizes)
    collect(ours, theirs, tensors, rollout)
    theirs.storage.clear()
    following = pool_tensors(seed=6)
    for name in tensors:
        if name != "actions":
            tensors[name][0] = tensors[name][-1]
            tensors[name][1:] = following[name][1:]
    collect(ours, theirs, tensors, rollout)
    assert rollout.start_memory["actor"].abs().max() > 0
    assert rollout.own.start.any()
    ours_metrics, theirs_metrics = ours.update(rollout), theirs.update()
    compare_rollouts(rollout, theirs)
    for name in ("surrogate", "value", "entropy"):
        assert ours_metrics[name] == pytest.approx(theirs_metrics[name], abs=1e-4)
