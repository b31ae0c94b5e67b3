"""Actor and critic: separate nets with the same kind of trunk, each with its own observations."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.distribution import DiagonalGaussian
from dexgrasp_learner.networks.encoders import build_encoder
from dexgrasp_learner.networks.memory import LstmMemory, NoMemory
from dexgrasp_learner.networks.normalizer import RunningNormalizer
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.vision.table_view import TableView

_ACTION_GAIN = 0.01
"""Gain of the last actor layer: the first actions are exploration noise around zero."""
_AUXILIARY_MIN_STD = 0.05
"""Smallest standard deviation (metres for positions) that scales the auxiliary target. While the
objects of all environments stand at one height, that of the height is nearly 0; without this
limit, the first lift would be an error of a hundred standard deviations."""


class LaysOut(Protocol):
    """What every image encoder offers beside its `forward`."""

    def lay_out(self, images: Tensor) -> Tensor:
        """Images [B, ...] in their stored type as the layers read them."""
        ...


class ActorOutput(NamedTuple):
    """What the actor gives for a rollout of T steps and N environments.

    Attributes:
        mean: float32 [T, N, A], mean actions.
        memory: float32 [2, N, H], the state after the last step.
        auxiliary: float32 [T, N, K], prediction of the auxiliary group in its own unit, or None.
    """

    mean: Tensor
    memory: Tensor
    auxiliary: Tensor | None


class CriticOutput(NamedTuple):
    """What the critic gives: `value` float32 [T, N], `memory` float32 [2, N, H]."""

    value: Tensor
    memory: Tensor


class Trunk(nn.Module):
    """Observations to features: normalised vectors, encoded images, optionally a memory.

    With images, one layer fuses them with the vectors. The memory reads the fused layer (without
    images, the vectors). Its output is concatenated with that layer, so that the heads also read
    the present input directly.
    """

    def __init__(
        self,
        groups: Sequence[str],
        specs: Mapping[str, TensorSpec],
        config: NetworkConfig,
        memory_size: int,
        view: TableView | None,
    ) -> None:
        super().__init__()
        chosen = [_spec_of(name, specs) for name in groups]
        self.groups = tuple(groups)
        self.vector_groups = tuple(spec.name for spec in chosen if len(spec.shape) == 1)
        self.image_groups = tuple(spec.name for spec in chosen if len(spec.shape) != 1)
        vector_size = sum(spec.shape[0] for spec in chosen if len(spec.shape) == 1)
        self.normalizer = RunningNormalizer(vector_size, clip=config.observation_clip)
        encoders = {name: build_encoder(specs[name], config, view) for name in self.image_groups}
        self.encoders = nn.ModuleDict(encoders)
        self.features = memory_input = vector_size
        if self.image_groups:
            image_size = sum(encoder.features for encoder in encoders.values())
            self.fuse = nn.Sequential(
                nn.Linear(image_size + vector_size, config.fused_size), nn.ELU()
            )
            memory_input = config.fused_size
            self.features += config.fused_size
        self.memory = LstmMemory(memory_input, memory_size) if memory_size else NoMemory()
        self.features += memory_size

    def initial_memory(self, num_envs: int) -> Tensor:
        """The memory before an episode: zeros, float32 [2, num_envs, H]."""
        return self.normalizer.mean.new_zeros(2, num_envs, self.memory.size)

    def vectors(self, observations: Mapping[str, Tensor]) -> Tensor:
        """The flat groups, concatenated but not normalised: float32 [T, N, P]."""
        if not self.vector_groups:
            steps, envs = observations[self.groups[0]].shape[:2]
            return self.normalizer.mean.new_zeros(steps, envs, 0)
        return torch.cat([observations[name].float() for name in self.vector_groups], -1)

    def lay_out(self, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The images among observations [T, N, ...] as the encoders' layers read them.

        `forward` takes them in place of the images. It is worth the memory, 4 bytes per value,
        where they are read several times.
        """
        laid_out = {}
        for name, encoder in self.encoders.items():
            images = observations[name]
            values = cast(LaysOut, encoder).lay_out(images.flatten(0, 1))
            laid_out[name] = values.unflatten(0, images.shape[:2])
        return laid_out

    def forward(
        self, observations: Mapping[str, Tensor], start: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features float32 [T, N, features] and the memory after the last step.

        Args:
            observations: Group name to [T, N, ...] in its stored type, or images as `lay_out`
                gives them; other groups are ignored.
            start: bool [T, N], True where a step is the first of an episode.
            memory: float32 [2, N, H], the memory before step 0.
        """
        vectors = self.normalizer(self.vectors(observations))  # [T, N, P]
        parts = [vectors]
        memory_input = vectors
        if self.image_groups:
            images = [  # each [T, N, features of its encoder]
                encoder(observations[name].flatten(0, 1)).unflatten(0, start.shape)
                for name, encoder in self.encoders.items()
            ]
            memory_input = self.fuse(torch.cat((*images, vectors), -1))  # [T, N, fused_size]
            parts.append(memory_input)
        remembered, memory = self.memory(memory_input, start, memory)  # [T, N, H], [2, N, H]
        return torch.cat((*parts, remembered), -1), memory


class Actor(nn.Module):
    """Maps observations to mean actions; `distribution` holds the exploration noise."""

    def __init__(
        self,
        config: NetworkConfig,
        observation_specs: Mapping[str, TensorSpec],
        action_dim: int,
        view: TableView | None = None,
    ) -> None:
        super().__init__()
        memory_size = config.memory_size if config.memory == "lstm" else 0
        self.trunk = Trunk(config.actor_groups, observation_specs, config, memory_size, view)
        self.groups = self.trunk.groups
        self.action_dim = action_dim
        self.memory_size = memory_size
        self.auxiliary_group = config.auxiliary_group
        head_input = self.trunk.features
        if config.auxiliary_group is not None:
            size = _vector_size(config.auxiliary_group, observation_specs)
            self.auxiliary_head = build_mlp(self.trunk.features, config.auxiliary_hidden, size)
            self.auxiliary_normalizer = RunningNormalizer(size, min_std=_AUXILIARY_MIN_STD)
            head_input += size
        self.head = build_mlp(head_input, config.hidden, action_dim, gain=_ACTION_GAIN)
        self.distribution = DiagonalGaussian(
            action_dim, config.initial_std, config.min_std, config.max_std
        )

    def initial_memory(self, num_envs: int) -> Tensor:
        """The memory before an episode: zeros, float32 [2, num_envs, H]; H = 0 without memory."""
        return self.trunk.initial_memory(num_envs)

    def forward(
        self, observations: Mapping[str, Tensor], start: Tensor, memory: Tensor
    ) -> ActorOutput:
        """Mean actions of a rollout; see `Trunk.forward` for the arguments.

        The action head reads the auxiliary prediction but passes no gradients into it, so that
        only the auxiliary loss trains the prediction.
        """
        features, memory = self.trunk(observations, start, memory)
        if self.auxiliary_group is None:
            return ActorOutput(self.head(features), memory, None)
        estimate = self.auxiliary_head(features)  # [T, N, K], normalised
        mean = self.head(torch.cat((features, estimate.detach()), -1))
        return ActorOutput(mean, memory, self.auxiliary_normalizer.denormalize(estimate))

    def auxiliary_errors(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Squared errors [..., K] in standard deviations of the target."""
        return ((prediction - target) / self.auxiliary_normalizer.std).square()

    @property
    def statistics_are_empty(self) -> bool:
        """Whether the normalisation of flat observations has no samples yet."""
        return bool(self.trunk.vector_groups) and self.trunk.normalizer.is_empty

    @torch.no_grad()
    def update_statistics(
        self, observations: Mapping[str, Tensor], peers: Peers | None = None
    ) -> None:
        """Takes a batch of observations [T, N, ...] into the running normalisation.

        Args:
            observations: By group; the flat ones suffice.
            peers: See `RunningNormalizer.update`.
        """
        _update_normalizer(self.trunk, observations, peers)
        if self.auxiliary_group is not None:
            self.auxiliary_normalizer.update(observations[self.auxiliary_group], peers)


class Critic(nn.Module):
    """Maps observations, which may be privileged, to the value of the state."""

    def __init__(
        self,
        config: NetworkConfig,
        observation_specs: Mapping[str, TensorSpec],
        view: TableView | None = None,
    ) -> None:
        super().__init__()
        memory_size = config.critic_memory_size if config.critic_memory == "lstm" else 0
        self.trunk = Trunk(config.critic_groups, observation_specs, config, memory_size, view)
        self.groups = self.trunk.groups
        self.memory_size = memory_size
        self.head = build_mlp(self.trunk.features, config.critic_hidden, 1)

    def initial_memory(self, num_envs: int) -> Tensor:
        """The memory before an episode: zeros, float32 [2, num_envs, H]; H = 0 without memory."""
        return self.trunk.initial_memory(num_envs)

    def forward(
        self, observations: Mapping[str, Tensor], start: Tensor, memory: Tensor
    ) -> CriticOutput:
        """Values of a rollout; see `Trunk.forward` for the arguments."""
        features, memory = self.trunk(observations, start, memory)
        return CriticOutput(self.head(features).squeeze(-1), memory)

    @torch.no_grad()
    def update_statistics(
        self, observations: Mapping[str, Tensor], peers: Peers | None = None
    ) -> None:
        """Takes a batch of observations [T, N, ...] into the running normalisation.

        Args:
            observations: By group; the flat ones suffice.
            peers: See `RunningNormalizer.update`.
        """
        _update_normalizer(self.trunk, observations, peers)


def build_actor(
    config: NetworkConfig,
    observation_specs: Mapping[str, TensorSpec],
    action_dim: int,
    view: TableView | None = None,
    seed: int = 0,
) -> Actor:
    """An actor on the CPU, in `eval` mode, whose initial weights depend only on the arguments.

    Args:
        config: Sizes and inputs.
        observation_specs: Of the environment, by group.
        action_dim: Length of an action.
        view: Of the depth camera; may be None without depth images.
        seed: Of the initial weights.

    Raises:
        ConfigError: A group is not among the specs, or its type or size suits no encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Actor(config, observation_specs, action_dim, view).eval()


def build_critic(
    config: NetworkConfig,
    observation_specs: Mapping[str, TensorSpec],
    view: TableView | None = None,
    seed: int = 0,
) -> Critic:
    """A critic on the CPU; see `build_actor`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Critic(config, observation_specs, view).eval()


def build_mlp(
    input_size: int, hidden: Sequence[int], output_size: int, gain: float = 1.0
) -> nn.Sequential:
    """ELU layers and a linear one whose weights are orthogonal with the given gain."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(input_size, width), nn.ELU()]
        input_size = width
    last = nn.Linear(input_size, output_size)
    nn.init.orthogonal_(last.weight, gain)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _spec_of(name: str, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    if name not in specs:
        raise ConfigError(
            f"observation group {name!r} is not among those of the environment {sorted(specs)}; "
            "correct the network's groups or ask the environment for it"
        )
    return specs[name]


def _vector_size(name: str, specs: Mapping[str, TensorSpec]) -> int:
    spec = _spec_of(name, specs)
    if len(spec.shape) != 1:
        raise ConfigError(
            f"auxiliary_group {name!r} has shape {list(spec.shape)}; only a flat group can be "
            "predicted, such as `object`"
        )
    return spec.shape[0]


def _update_normalizer(
    trunk: Trunk, observations: Mapping[str, Tensor], peers: Peers | None
) -> None:
    if trunk.vector_groups:
        trunk.normalizer.update(trunk.vectors(observations), peers)
