"""The memory needs of an environment and the nets: the exact part of a capacity plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.run.assembly import build_ppo
from dexgrasp_sim.config import ConfigError, parse_config, replace
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.observations import all_specs
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.vec_env import EnvSpecs

Storage = Literal["float32", "float16", "int16", "uint8"]

_DEFAULT = {
    "network": {
        "actor_groups": ["proprio", "depth"],
        "critic_groups": ["proprio", "state", "critic"],
        "encoder": "conv",
        "memory": "lstm",
        "critic_memory": "lstm",
    },
    "ppo": {"epochs": 1, "minibatches": 1, "micro_batches": 1},
}
"""A recurrent policy on depth images, the default without a config."""


@dataclass(frozen=True)
class Workload:
    """The memory needs of one environment and the nets.

    Attributes:
        pixels: Elements of all images of one observation.
        horizon: Steps of a rollout, T.
        buffer_bytes: Of one environment in the learner's tensors: all T + 1 slots and the
            learner's own tensors.
        parameters: Number of parameters of actor and critic.
        micro_batch: Samples (environments x steps) whose activations are held at a time.
    """

    pixels: int
    horizon: int
    buffer_bytes: int
    parameters: int
    micro_batch: int

    def with_micro_batch(self, samples: int) -> "Workload":
        """The same workload with another micro-batch size."""
        return replace(self, micro_batch=samples)


def plan_config(path: Path | None, resolution: tuple[int, int], horizon: int) -> RunConfig:
    """The config of the run whose capacity is planned.

    Args:
        path: YAML file of a run; None: a recurrent policy on depth images.
        resolution: Width and height of its camera.
        horizon: Steps of a rollout.

    Raises:
        ConfigError: The file is wrong, or does not allow these sizes.
    """
    config = load_run_config(path) if path else parse_config(RunConfig, _DEFAULT)
    width, height = resolution
    try:
        camera = replace(config.task.camera, width=width, height=height)
        training = replace(config.training, horizon=horizon)
    except ValueError as error:
        raise ConfigError(f"resolution {width}x{height}, horizon {horizon}: {error}") from None
    return replace(config, task=replace(config.task, camera=camera), training=training)


def workload(config: RunConfig, storage: Storage, micro_batch: int) -> Workload:
    """The sizes of a run, from its specs and freshly built nets.

    Args:
        config: The run.
        storage: Element type of images in the rollout.
        micro_batch: Samples (environments x steps) whose activations are held at a time.
    """
    specs = all_specs(config.task)
    groups = [specs[name] for name in config.groups]
    ppo = build_ppo(config)
    nets = (ppo.actor, ppo.critic)
    return Workload(
        pixels=sum(prod(spec.shape) for spec in groups if is_image(spec)),
        horizon=config.training.horizon,
        buffer_bytes=buffer_bytes(
            groups,
            len(config.task.action_names),
            sum(ppo.memory_sizes.values()),
            config.training.horizon,
            storage,
        ),
        parameters=sum(p.numel() for net in nets for p in net.parameters()),
        micro_batch=micro_batch,
    )


def buffer_bytes(
    groups: Sequence[TensorSpec], action_dim: int, memory: int, horizon: int, storage: Storage
) -> int:
    """Bytes of one environment in the rollout.

    If images are stored in another type than the simulator writes, they are converted on their way
    into the rollout, and the two slots between which the simulator alternates are added.

    Args:
        groups: Observation groups.
        action_dim: Length of an action.
        memory: Widths of all memories together.
        horizon: T.
        storage: Element type of images.
    """
    layout = RunLayout(EnvSpecs(tuple(groups), action_dim, 1.0), horizon, ((0, 1),))
    pool = sum(block.nbytes for block in layout.rollout_blocks if block.name != "sequence")
    images = [spec for spec in groups if is_image(spec) and spec.dtype != storage]
    size = np.dtype(storage).itemsize
    held = sum(prod(spec.shape) * size - spec.nbytes for spec in images) * (horizon + 1)
    converted = sum(2 * spec.nbytes for spec in images)
    start, values = horizon + 1, 4 * (horizon + 1)
    per_step = 4 * (action_dim + 3)  # mean; log_prob, returns, advantages
    memories = 2 * 2 * 4 * memory  # h and c, now and at the start of the rollout
    return pool + held + converted + start + values + per_step * horizon + memories


def is_image(spec: TensorSpec) -> bool:
    """Whether an observation group holds images."""
    return len(spec.shape) > 1
