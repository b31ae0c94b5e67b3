"""One side of `dexgrasp bench learner`, in a process of its own: one rollout and one update.

`python -m benchmarks.learner_side SIDE SIZES` prints a `SideResult` as JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import Actor, Critic, build_actor, build_critic
from dexgrasp_learner.pipeline.rollout import Rollout
from dexgrasp_sim.config import STRICT, replace
from dexgrasp_sim.specs import TensorSpec

SIDES = ("dexgrasp", "whole_minibatches", "rsl_rl")
"""Ours as it is by default, ours with every minibatch computed in one piece, theirs."""

ACTION_DIM = 11
ACTOR_GROUPS, CRITIC_GROUPS = ("proprio", "depth"), ("critic",)
_DRIFT = 1.02
_MEAN_GAIN = 50.0
PPO = PpoConfig(
    epochs=1,
    minibatches=4,
    schedule="fixed",
    # nothing moves, so that the mean over the minibatches is the loss at the same weights
    learning_rate=1e-12,
    value_coefficient=1.0,
)


@validated(frozen=True, config=STRICT)
class Sizes:
    """What is learned from what; the defaults are those of the benchmark.

    Attributes:
        envs: Environments, a multiple of the minibatches.
        horizon: Steps.
        height: Rows of the depth image.
        width: Columns of the depth image.
        proprio: Length of the flat observation.
        privileged: Length of the critic's observation.
        memory: Width of the LSTMs of actor and critic.
        hidden: Hidden layers of both heads; the actor's fused layer is as wide as the first.
        end_probability: Of an episode, per step.
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

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """The observation groups by name."""
        return {
            "proprio": TensorSpec("proprio", (self.proprio,)),
            "depth": TensorSpec("depth", (self.height, self.width), "int16"),
            "critic": TensorSpec("critic", (self.privileged,)),
        }


_NEXT_TO_NOTHING = Sizes(envs=16, horizon=2, proprio=2, privileged=2, memory=2, hidden=(2,))


@dataclass(frozen=True)
class SideResult:
    """What a side costs and computes.

    Attributes:
        update_cpu_s: CPU seconds of the update, all threads.
        memory_mib: Peak of the resident memory over that before the nets were built.
        surrogate: Mean loss of the policy.
        value: Mean squared error of the critic.
        parameters: Of both nets.
    """

    update_cpu_s: float
    memory_mib: float
    surrogate: float
    value: float
    parameters: int


def build_nets(sizes: Sizes) -> tuple[Actor, Critic]:
    """Convolutions (16, 32, 64), LSTM and head for the actor, LSTM and head for the critic."""
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
    actor = build_actor(network, sizes.specs, ACTION_DIM)
    critic = build_critic(network, sizes.specs)
    torch.manual_seed(0)
    _widen_last_convolution(actor)
    with torch.no_grad():
        # means of order one, as in the middle of a training run
        actor.head.get_parameter(f"{2 * len(sizes.hidden)}.weight").mul_(_MEAN_GAIN)
    for net in (actor, critic):
        net.trunk.normalizer.update(torch.randn(1000, net.trunk.normalizer.mean.shape[0]))
    return actor, critic


def _widen_last_convolution(actor: Actor) -> None:
    """From 32 channels, which our nets have, to the 64 of the usual three-layer encoder."""
    encoder = actor.trunk.encoders["depth"]
    layers = encoder.get_submodule("layers")
    assert isinstance(layers, nn.Sequential)
    layers[1] = nn.Conv2d(32, 64, 3, stride=2, padding=1)
    fuse = actor.trunk.fuse[0]
    assert isinstance(fuse, nn.Linear)
    image_size = int(encoder.features)  # pyright: ignore[reportArgumentType]
    actor.trunk.fuse[0] = nn.Linear(fuse.in_features + image_size, fuse.out_features)


def slot_tensors(sizes: Sizes, slot: int) -> dict[str, Tensor]:
    """What the environments give at slot 0 to horizon, [N, ...] by name; the same every time."""
    generator = torch.Generator().manual_seed(slot)
    envs = sizes.envs
    depth = torch.randint(0, 900, (envs, sizes.height, sizes.width), generator=generator)
    ended = torch.rand(envs, generator=generator) < sizes.end_probability
    was_cut = torch.rand(envs, generator=generator) < 0.5
    return {
        "proprio": torch.randn(envs, sizes.proprio, generator=generator),
        "depth": depth.to(torch.int16),
        "critic": torch.randn(envs, sizes.privileged, generator=generator),
        "reward": torch.randn(envs, generator=generator),
        "terminated": ended & ~was_cut if slot else torch.ones(envs, dtype=torch.bool),
        "truncated": ended & was_cut if slot else torch.zeros(envs, dtype=torch.bool),
    }


def drift(*nets: nn.Module) -> None:
    """Changes every weight a little: the policy that learns is no longer the one that acted."""
    with torch.no_grad():
        for net in nets:
            for parameter in net.parameters():
                parameter.mul_(_DRIFT)


def count_parameters(*nets: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for net in nets for parameter in net.parameters())


def cpu_seconds(update: Callable[[], dict[str, float]]) -> tuple[dict[str, float], float]:
    """The metrics of an update and the CPU seconds of the process that it took."""
    begin_s = time.process_time()
    metrics = update()
    return metrics, time.process_time() - begin_s


def run_ours(sizes: Sizes, micro_batches: int | None = None) -> SideResult:
    """Our PPO on tensors as an environment pool has them, which simulators fill in place.

    Args:
        sizes: Of the rollout and the nets.
        micro_batches: See `PpoConfig`.
    """
    base_mib = peak_memory_mib()
    actor, critic = build_nets(sizes)
    ppo = Ppo(actor, critic, replace(PPO, micro_batches=micro_batches), seed=0)
    slots = sizes.horizon + 1
    tensors = {
        name: tensor.new_zeros(slots, *tensor.shape)
        for name, tensor in slot_tensors(sizes, 0).items()
    }
    tensors["actions"] = torch.zeros(sizes.horizon, sizes.envs, ACTION_DIM)
    rollout = Rollout(tensors, ppo.groups, ppo.memory_sizes)
    with torch.inference_mode():
        for slot in range(slots):
            for name, tensor in slot_tensors(sizes, slot).items():
                tensors[name][slot] = tensor
            if slot < sizes.horizon:
                ppo.act(rollout, slot)
    drift(actor, critic)
    metrics, update_cpu_s = cpu_seconds(lambda: ppo.update(rollout))
    return SideResult(
        update_cpu_s,
        peak_memory_mib() - base_mib,
        metrics["surrogate"],
        metrics["value"],
        count_parameters(actor, critic),
    )


def peak_memory_mib() -> float:
    """Peak of this process's resident memory.

    Not `ru_maxrss`: Linux lets that begin with the size of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM; run this on Linux")


def _run(side: str, sizes: Sizes) -> SideResult:
    if side == "rsl_rl":
        from benchmarks.peers.rsl_rl import run_theirs

        return run_theirs(sizes)
    return run_ours(sizes, 1 if side == "whole_minibatches" else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one side and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("sizes", help="JSON of Sizes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = TypeAdapter(Sizes).validate_json(options.sizes)
    _run(options.side, _NEXT_TO_NOTHING)  # loads code that one side would else load in its update
    result = _run(options.side, sizes)
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
