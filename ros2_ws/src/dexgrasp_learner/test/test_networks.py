"""Normalisation, encoders, distribution and the nets made of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.distribution import DiagonalGaussian
from dexgrasp_learner.networks.encoders import build_encoder
from dexgrasp_learner.networks.memory import LstmMemory
from dexgrasp_learner.networks.normalizer import RunningNormalizer
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.specs import TensorSpec

torch.set_num_threads(1)

SPECS = {
    spec.name: spec
    for spec in (
        TensorSpec("proprio", (5,)),
        TensorSpec("state", (4,)),
        TensorSpec("critic", (7,)),
        TensorSpec("object", (6,)),
        TensorSpec("depth", (16, 24), "int16"),
        TensorSpec("stereo_rgb", (2, 3, 16, 24), "uint8"),
    )
}
SMALL = {"fused_size": 12, "memory_size": 8, "critic_memory_size": 8, "hidden": (16,)}


def observations(steps: int, envs: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(spec: TensorSpec) -> Tensor:
        if spec.dtype == "float32":
            return torch.randn(steps, envs, *spec.shape, generator=generator)
        high = {"int16": 1200, "uint8": 256}[spec.dtype]
        integers = torch.randint(0, high, (steps, envs, *spec.shape), generator=generator)
        return integers.to(spec.torch_dtype)

    return {name: draw(spec) for name, spec in SPECS.items()}


def random_starts(steps: int, envs: int, share: float, seed: int) -> Tensor:
    return torch.rand(steps, envs, generator=torch.Generator().manual_seed(seed)) < share


# --- normalizer


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_statistics_of_parts_are_those_of_the_whole(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size, 3, generator=generator) * 3 + 5 for size in sizes]
    normalizer = RunningNormalizer(3)
    assert normalizer.is_empty
    for part in parts:
        normalizer.update(part)
    whole = torch.cat(parts)
    torch.testing.assert_close(normalizer.mean, whole.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        normalizer.variance, whole.var(0, correction=0), atol=1e-4, rtol=1e-4
    )
    assert normalizer.count.item() == sum(sizes)


def test_statistics_hardly_move_after_many_observations():
    normalizer = RunningNormalizer(1)
    normalizer.update(torch.zeros(1, 1))
    normalizer.count.fill_(1e9)
    normalizer.update(torch.ones(1000, 1))
    assert normalizer.count.item() == 1e9 + 1000
    assert normalizer.mean.item() == pytest.approx(1e-6, rel=1e-3)


def test_normalises_by_hand():
    normalizer = RunningNormalizer(1, clip=2.0, min_std=0.0)
    normalizer.update(torch.tensor([[1.0], [5.0]]))  # mean 3, deviation 2
    values = torch.tensor([[3.0], [5.0], [4.0], [99.0]])
    normalised = normalizer(values)
    torch.testing.assert_close(normalised, torch.tensor([[0.0], [1.0], [0.5], [2.0]]))
    torch.testing.assert_close(normalizer.denormalize(normalised[:3]), values[:3])


def test_forward_leaves_the_statistics_alone():
    normalizer = RunningNormalizer(2).train()
    before = {name: t.clone() for name, t in normalizer.state_dict().items()}
    normalizer(torch.randn(50, 2))
    assert all(torch.equal(before[name], t) for name, t in normalizer.state_dict().items())


# --- distribution


def test_a_memory_can_always_be_differentiated_on_a_gpu():
    """cuDNN refuses it for an LSTM that is not in training mode, as a policy that acts is."""
    memory = LstmMemory(2, 3)
    for mode in (False, True):
        assert memory.train(mode) is memory and memory.training == mode
        assert memory.lstm.training


def test_distribution_agrees_with_torch():
    generator = torch.Generator().manual_seed(3)
    distribution = DiagonalGaussian(3, initial_std=0.7)
    with torch.no_grad():
        distribution.log_std.add_(torch.tensor([0.1, -0.2, 0.3]))
    mean, old_mean, actions = torch.randn(3, 4, 5, 3, generator=generator)
    old_log_std = torch.tensor([-0.3, 0.0, 0.2])
    oracle = Independent(Normal(mean, distribution.std), 1)
    old = Independent(Normal(old_mean, old_log_std.exp()), 1)
    torch.testing.assert_close(distribution.log_prob(mean, actions), oracle.log_prob(actions))
    torch.testing.assert_close(distribution.entropy(), oracle.entropy()[0, 0])
    torch.testing.assert_close(
        distribution.kl_from(old_mean, old_log_std, mean), kl_divergence(old, oracle)
    )


def test_samples_have_the_stated_moments_and_follow_the_generator():
    distribution = DiagonalGaussian(2, initial_std=0.5)
    mean = torch.tensor([1.0, -1.0]).expand(20000, 2)
    sample = distribution.sample(mean, torch.Generator().manual_seed(1))
    assert torch.equal(sample, distribution.sample(mean, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(sample.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(sample.std(0), torch.full((2,), 0.5), atol=0.02, rtol=0)


def test_noise_correlates_with_that_of_the_step_before_and_keeps_its_width():
    distribution, generator = (
        DiagonalGaussian(2, initial_std=0.5),
        torch.Generator().manual_seed(1),
    )
    mean, before = torch.zeros(20000, 2), torch.randn(20000, 2, generator=generator)
    noise = distribution.sample(mean, generator, before, 0.7) / 0.5
    torch.testing.assert_close(noise.std(0), torch.ones(2), atol=0.02, rtol=0)
    for column in range(2):
        pair = torch.stack((before[:, column], noise[:, column]))
        assert torch.corrcoef(pair)[0, 1].item() == pytest.approx(0.7, abs=0.02)


def test_deviation_is_brought_back_into_its_range():
    distribution = DiagonalGaussian(2, initial_std=0.5, min_std=0.1, max_std=1.0)
    with torch.no_grad():
        distribution.log_std.copy_(torch.tensor([-9.0, 9.0]))
    distribution.clamp_std()
    torch.testing.assert_close(distribution.std, torch.tensor([0.1, 1.0]))


# --- encoders


@pytest.mark.parametrize(
    ("encoder", "height", "width"),
    [("patch", 24, 32), ("patch", 8, 8), ("conv", 16, 16), ("conv", 60, 80), ("conv", 240, 320)],
)
@pytest.mark.parametrize("stereo", [False, True])
def test_encoder_reports_its_features(encoder, height, width, stereo):
    shape = (2, 3, height, width) if stereo else (height, width)
    spec = TensorSpec("image", shape, "uint8" if stereo else "int16")
    net = build_encoder(spec, NetworkConfig(encoder=encoder), RunConfig().table_view)
    features = net(torch.ones(3, *shape, dtype=spec.torch_dtype))
    assert features.shape == (3, net.features)
    assert features.isfinite().all()
    assert features.dtype == torch.float32


@pytest.mark.parametrize(
    ("encoder", "spec", "message"),
    [
        ("patch", TensorSpec("depth", (25, 32), "int16"), "height 25 .* multiples of 8"),
        ("patch", TensorSpec("depth", (120, 160), "int16"), "set encoder: conv"),
        ("conv", TensorSpec("depth", (8, 32), "int16"), "16 to 640"),
        ("conv", TensorSpec("depth", (480, 1280), "int16"), "16 to 640"),
        ("conv", TensorSpec("depth", (24, 32), "float16"), "float16 .* int16 depth"),
        ("conv", TensorSpec("rgb", (3, 24, 32), "uint8"), r"\[3, 24, 32\]"),
    ],
)
def test_encoder_refuses_images_it_cannot_take(encoder, spec, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder(spec, NetworkConfig(encoder=encoder), RunConfig().table_view)


def test_laptop_encoder_has_the_documented_layers():
    spec = TensorSpec("depth", (24, 32), "int16")
    net = build_encoder(spec, NetworkConfig(), RunConfig().table_view)
    shapes = [tuple(p.shape) for p in net.parameters() if p.dim() == 2]
    assert shapes == [(32, 4 * 4), (64, 2 * 2 * 32)]
    assert net.features == 64 * 3 * 4


@pytest.mark.parametrize("layers", [((4, 5),), ((4, 5), (2, 6)), ((2, 3), (2, 5), (3, 7))])
@pytest.mark.parametrize("stereo", [False, True])
def test_patch_layers_are_strided_convolutions(layers, stereo):
    """The cameras share the first layer; the second one reads all of them."""
    shape = (2, 3, 24, 48) if stereo else (24, 48)
    spec = TensorSpec("image", shape, "uint8" if stereo else "int16")
    net = build_encoder(spec, NetworkConfig(patch_layers=layers), RunConfig().table_view)
    images = (torch.rand(3, *shape) * (255 if stereo else 950)).to(spec.torch_dtype)
    maps = net.pixels(images)  # [B, V, C, H, W]
    for number, (layer, (side, width)) in enumerate(
        zip(net.get_submodule("layers").children(), layers)
    ):
        if number == 1:
            maps = maps.flatten(1, 2).unsqueeze(1)  # features of one camera, then of the next
        weight = layer.weight.view(width, side, side, maps.shape[2]).permute(0, 3, 1, 2)
        flat = torch.nn.functional.conv2d(maps.flatten(0, 1), weight, layer.bias, stride=side)
        maps = torch.nn.functional.elu(flat).unflatten(0, maps.shape[:2])
    expected = maps.permute(0, 3, 4, 1, 2).flatten(1)
    torch.testing.assert_close(net(images), expected, atol=1e-5, rtol=1e-4)


def test_stereo_encoder_tells_left_from_right():
    net = build_encoder(SPECS["stereo_rgb"], NetworkConfig(), RunConfig().table_view)
    images = observations(1, 1)["stereo_rgb"][0]
    assert not torch.allclose(net(images), net(images.flip(1)))


# --- actor and critic


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize(
    "groups", [("proprio", "state"), ("proprio", "depth"), ("stereo_rgb",), ("depth", "proprio")]
)
@pytest.mark.parametrize("auxiliary", [None, "object"])
def test_rollout_at_once_is_the_rollout_step_by_step(memory, groups, auxiliary):
    config = NetworkConfig(actor_groups=groups, memory=memory, auxiliary_group=auxiliary, **SMALL)
    actor = build_actor(config, SPECS, action_dim=3, view=RunConfig().table_view)
    obs, start = observations(4, 5), random_starts(4, 5, 0.3, seed=1)
    actor.update_statistics(obs)
    width = 8 if memory == "lstm" else 0
    assert actor.initial_memory(5).shape == (2, 5, width)
    state = torch.randn(2, 5, width)
    whole = actor(obs, start, state)
    assert whole.mean.shape == (4, 5, 3)
    assert (whole.auxiliary is None) == (auxiliary is None)
    for t in range(4):
        step = {name: tensor[t : t + 1] for name, tensor in obs.items()}
        output = actor(step, start[t : t + 1], state)
        state = output.memory
        torch.testing.assert_close(output.mean[0], whole.mean[t], atol=1e-6, rtol=1e-4)
        if auxiliary is not None:
            assert output.auxiliary.shape == (1, 5, 6)  # of this file's `object`
    torch.testing.assert_close(state, whole.memory, atol=1e-6, rtol=1e-4)


def test_actor_sees_its_own_groups_only():
    actor = build_actor(NetworkConfig(actor_groups=("proprio",)), SPECS, action_dim=2)
    obs = observations(1, 3)
    start, memory = torch.zeros(1, 3, dtype=torch.bool), actor.initial_memory(3)
    only = actor({"proprio": obs["proprio"]}, start, memory).mean
    assert torch.equal(only, actor(obs, start, memory).mean)


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_critic_gives_one_value_per_environment(memory):
    config = NetworkConfig(critic_groups=("proprio", "critic"), critic_memory=memory, **SMALL)
    critic = build_critic(config, SPECS, view=RunConfig().table_view)
    output = critic(observations(4, 5), random_starts(4, 5, 0.3, 1), critic.initial_memory(5))
    assert output.value.shape == (4, 5)
    assert output.memory.shape == (2, 5, 8 if memory == "lstm" else 0)


def test_first_actions_are_small():
    actor = build_actor(NetworkConfig(actor_groups=("proprio",)), SPECS, action_dim=2)
    start = torch.zeros(1, 100, dtype=torch.bool)
    assert actor(observations(1, 100), start, actor.initial_memory(100)).mean.abs().max() < 0.1


def test_action_gradients_stop_at_the_auxiliary_estimate():
    config = NetworkConfig(actor_groups=("proprio",), auxiliary_group="object", **SMALL)
    actor = build_actor(config, SPECS, action_dim=2, view=RunConfig().table_view)
    start = torch.zeros(1, 3, dtype=torch.bool)
    output = actor(observations(1, 3), start, actor.initial_memory(3))
    output.mean.sum().backward()
    assert all(p.grad is None for p in actor.auxiliary_head.parameters())


def test_auxiliary_estimate_and_loss_are_in_units_of_the_target():
    config = NetworkConfig(actor_groups=("proprio",), auxiliary_group="object", **SMALL)
    actor = build_actor(config, SPECS, action_dim=2, view=RunConfig().table_view)
    obs = observations(2, 50)
    obs["object"] = obs["object"] * 0.3 + 4.0
    actor.update_statistics(obs)
    prediction = torch.full((2, 50, 6), 4.0)
    std = (obs["object"].var(dim=(0, 1), correction=0) + 0.05**2).sqrt()
    expected = (((prediction - obs["object"]) / std) ** 2).mean()
    errors = actor.auxiliary_errors(prediction, obs["object"])
    torch.testing.assert_close(errors.mean(), expected)
    start = torch.zeros(2, 50, dtype=torch.bool)
    estimate = actor(obs, start, actor.initial_memory(50)).auxiliary
    assert (estimate.mean() - 4.0).abs() < 0.5


def test_statistics_are_part_of_the_state():
    config = NetworkConfig(actor_groups=("proprio", "depth"), auxiliary_group="object", **SMALL)
    actor, other = (
        build_actor(config, SPECS, 2, view=RunConfig().table_view),
        build_actor(config, SPECS, 2, seed=9, view=RunConfig().table_view),
    )
    assert actor.statistics_are_empty
    obs = observations(3, 8)
    actor.update_statistics(obs)
    assert not actor.statistics_are_empty
    other.load_state_dict(actor.state_dict())
    start = torch.zeros(3, 8, dtype=torch.bool)
    ours = actor(obs, start, actor.initial_memory(8))
    theirs = other(obs, start, actor.initial_memory(8))
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.auxiliary, theirs.auxiliary)


def test_initial_weights_follow_the_seed_and_nothing_else():
    config = NetworkConfig(actor_groups=("proprio", "depth"), memory="lstm", **SMALL)

    def weights(seed: int) -> Tensor:
        actor = build_actor(config, SPECS, 2, seed=seed, view=RunConfig().table_view)
        return torch.cat([p.detach().flatten() for p in actor.parameters()])

    torch.manual_seed(5)
    first = weights(1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1)), "building a net moved the global generator"
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actor_groups": ("proprio", "smell")}, "'smell' is not among"),
        ({"actor_groups": ("proprio",), "auxiliary_group": "mass"}, "'mass' is not among"),
        ({"actor_groups": ("proprio",), "auxiliary_group": "depth"}, "only a flat group"),
    ],
)
def test_unknown_groups_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        build_actor(NetworkConfig(**change), SPECS, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"initial_std": 2.0}, "outside"),
        ({"actor_groups": []}, "at least one group"),
        ({"memory": "gru"}, "memory"),
        ({"hidden": [0]}, "hidden"),
        ({"width": 3}, "unknown key `width`"),
    ],
)
def test_config_refuses_values_that_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(NetworkConfig, values)


def test_entropy_of_the_laptop_start():
    entropy = DiagonalGaussian(5, initial_std=0.6).entropy().item()
    assert entropy == pytest.approx(5 * (math.log(0.6) + 0.5 * math.log(2 * math.pi * math.e)))


def test_depth_without_its_camera_is_refused():
    with pytest.raises(ValueError, match="'depth' is depth: give the view of its camera"):
        build_actor(NetworkConfig(actor_groups=("depth",)), SPECS, 2)
    assert build_actor(NetworkConfig(actor_groups=("proprio",)), SPECS, 2).groups == ("proprio",)
