"""What both sides of `dexgrasp bench learner` share: sizes, networks, rollout, measurements."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import Actor, Critic, build_actor, build_critic
from dexgrasp_sim.config import STRICT
from dexgrasp_sim.specs import TensorSpec

ACTION_DIM = 11
ACTOR_GROUPS, CRITIC_GROUPS = ("proprio", "depth"), ("critic",)
_DRIFT = 1.02
_MEAN_GAIN = 50.0
PPO = PpoConfig(
    epochs=1,
    minibatches=4,
    schedule="fixed",
    # the weights hardly change, so that the mean over minibatches is the loss at the same weights
    learning_rate=1e-12,
    value_coefficient=1.0,
)


@validated(frozen=True, config=STRICT)
class Sizes:
    """Sizes of the rollout and the nets; the defaults are those of the benchmark.

    Attributes:
        envs: Environments, a multiple of the minibatches.
        horizon: Steps.
        height: Rows of the depth image.
        width: Columns of the depth image.
        proprio: Length of the flat observation.
        privileged: Length of the critic's observation.
        memory: Width of the LSTMs of actor and critic.
        hidden: Hidden layers of both heads; the actor's fused layer is as wide as the first.
        end_probability: Probability per step that an episode ends.
        device: Where both sides compute.
        updates: Updates from the rollout; the first one of several only warms up.
    """

    envs: int = 256
    horizon: int = 16
    height: int = 48
    width: int = 64
    proprio: int = 60
    privileged: int = 120
    memory: int = 512
    hidden: tuple[int, ...] = (512, 256)
    end_probability: float = 0.05
    device: str = "cpu"
    updates: int = 1

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """The observation groups by name."""
        return {
            "proprio": TensorSpec("proprio", (self.proprio,)),
            "depth": TensorSpec("depth", (self.height, self.width), "int16"),
            "critic": TensorSpec("critic", (self.privileged,)),
        }


@dataclass(frozen=True)
class SideResult:
    """Costs and losses of a side.

    Attributes:
        update_cpu_s: CPU seconds of an update, all threads.
        update_s: Seconds of an update.
        memory_mib: Peak of resident memory minus that before the nets were built; on a GPU, of
            tensors there.
        surrogate: Mean loss of the policy.
        value: Mean squared error of the critic.
        parameters: Of both nets.
    """

    update_cpu_s: float
    update_s: float
    memory_mib: float
    surrogate: float
    value: float
    parameters: int


def build_nets(sizes: Sizes) -> tuple[Actor, Critic]:
    """Convolutions, LSTM and head for the actor, LSTM and head for the critic.

    At the default sizes the convolutions have 16, 32 and 64 channels.
    """
    network = NetworkConfig(
        actor_groups=ACTOR_GROUPS,
        critic_groups=CRITIC_GROUPS,
        encoder="conv",
        memory="lstm",
        memory_size=sizes.memory,
        critic_memory="lstm",
        critic_memory_size=sizes.memory,
        hidden=sizes.hidden,
        critic_hidden=sizes.hidden,
        fused_size=sizes.hidden[0],
        initial_std=0.5,
    )
    actor = build_actor(network, sizes.specs, ACTION_DIM, view=RunConfig().table_view)
    critic = build_critic(network, sizes.specs, view=RunConfig().table_view)
    torch.manual_seed(0)
    _widen_last_convolution(actor)
    with torch.no_grad():
        # means of order one, as in the middle of a training run
        actor.head.get_parameter(f"{2 * len(sizes.hidden)}.weight").mul_(_MEAN_GAIN)
    for net in (actor, critic):
        net.trunk.normalizer.update(torch.randn(1000, net.trunk.normalizer.mean.shape[0]))
    return actor.to(sizes.device), critic.to(sizes.device)


def _widen_last_convolution(actor: Actor) -> None:
    """Changes the 32 channels of our nets' last convolution to the usual 64."""
    encoder = actor.trunk.encoders["depth"]
    joint = encoder.get_submodule("joint")
    assert isinstance(joint, nn.Sequential)
    last = joint[0]
    assert isinstance(last, nn.Conv2d)
    joint[0] = nn.Conv2d(last.in_channels, 64, 3, stride=2, padding=1)
    fuse = actor.trunk.fuse[0]
    assert isinstance(fuse, nn.Linear)
    image_size = int(encoder.features)  # pyright: ignore[reportArgumentType]
    actor.trunk.fuse[0] = nn.Linear(fuse.in_features + image_size, fuse.out_features)


def slot_tensors(sizes: Sizes, slot: int) -> dict[str, Tensor]:
    """Observations and results of a slot, [N, ...] by name; the same in every call."""
    generator = torch.Generator().manual_seed(slot)
    envs = sizes.envs
    depth = torch.randint(0, 900, (envs, sizes.height, sizes.width), generator=generator)
    ended = torch.rand(envs, generator=generator) < sizes.end_probability
    was_cut = torch.rand(envs, generator=generator) < 0.5
    tensors = {
        "proprio": torch.randn(envs, sizes.proprio, generator=generator),
        "depth": depth.to(torch.int16),
        "critic": torch.randn(envs, sizes.privileged, generator=generator),
        "reward": torch.randn(envs, generator=generator),
        "terminated": ended & ~was_cut if slot else torch.ones(envs, dtype=torch.bool),
        "truncated": ended & was_cut if slot else torch.zeros(envs, dtype=torch.bool),
    }
    return {name: tensor.to(sizes.device) for name, tensor in tensors.items()}


def drift(*nets: nn.Module) -> None:
    """Changes every weight a little, so that the policy differs from the one that acted."""
    with torch.no_grad():
        for net in nets:
            for parameter in net.parameters():
                parameter.mul_(_DRIFT)


def count_parameters(*nets: nn.Module) -> int:
    """Number of learned parameters."""
    return sum(parameter.numel() for net in nets for parameter in net.parameters())


def timed_updates(
    update: Callable[[], dict[str, float]], sizes: Sizes
) -> tuple[dict[str, float], float, float]:
    """The metrics of the first update; CPU seconds and seconds, medians of the others if any."""
    metrics, cpu_s, wall_s = [], [], []
    for _ in range(sizes.updates):
        begin_cpu_s, begin_s = time.process_time(), time.perf_counter()
        metrics.append(update())
        if sizes.device != "cpu":
            torch.cuda.synchronize()
        cpu_s.append(time.process_time() - begin_cpu_s)
        wall_s.append(time.perf_counter() - begin_s)
    measured = slice(min(1, sizes.updates - 1), None)
    return metrics[0], statistics.median(cpu_s[measured]), statistics.median(wall_s[measured])


def peak_memory_mib(device: str = "cpu") -> float:
    """Peak of this process's resident memory, or of its tensors on a GPU.

    Not `ru_maxrss`: on Linux it starts with the size of the process that started this one.
    """
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM; run this on Linux")


def start_measuring_memory(device: str) -> float:
    """The peak of memory before the nets are built, to be subtracted."""
    if device == "cpu":
        return peak_memory_mib()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**20
