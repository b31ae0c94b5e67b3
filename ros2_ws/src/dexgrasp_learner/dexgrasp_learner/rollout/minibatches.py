"""Splits a finished rollout into minibatches for learning, and these into micro-batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp_learner.rollout.image_storage import ImagePrefetch
from dexgrasp_learner.rollout.rollout import Rollout

_IMAGES_AT_ONCE = {"cpu": 256, "cuda": 4096}
"""Default limit of images in a micro-batch. On the CPU 256 need less than half the memory of 1024
and little more time, see `dexgrasp bench learner`. A GPU needs more images to be fully used; its
number was not measured."""


@dataclass(frozen=True)
class Batch:
    """All T steps of some environments (n of them); fields as in `Rollout` and `OwnTensors`.

    Attributes:
        observations: Group name to [T, n, ...].
        start: bool [T, n].
        memory: Net name to float32 [2, n, H], the memory before step 0.
        actions: float32 [T, n, A].
        mean: float32 [T, n, A].
        log_prob: float32 [T, n].
        values: float32 [T, n].
        returns: float32 [T, n].
        advantages: float32 [T, n].
        valid: bool [T, n], or None where all steps of the rollout are.
    """

    observations: dict[str, Tensor]
    start: Tensor
    memory: dict[str, Tensor]
    actions: Tensor
    mean: Tensor
    log_prob: Tensor
    values: Tensor
    returns: Tensor
    advantages: Tensor
    valid: Tensor | None


def deal(
    rollout: Rollout, minibatches: int, micro_batches: int | None, generator: torch.Generator
) -> list[list[Tensor]]:
    """Assigns every environment at random to one micro-batch.

    Args:
        rollout: The rollout to split.
        minibatches: Number of minibatches.
        micro_batches: Micro-batches per minibatch; None: see `PpoConfig`.
        generator: Draws the order.

    Returns:
        For each minibatch its micro-batches, as environment indices for `batch`. Sizes differ by
        at most one; none is empty.

    Raises:
        ValueError: There are fewer environments than micro-batches in total.
    """
    micro_batches = micro_batches or _micro_batches(rollout, minibatches)
    if minibatches * micro_batches > rollout.num_envs:
        raise ValueError(
            f"minibatches * micro_batches = {minibatches} * {micro_batches} is more than "
            f"num_envs = {rollout.num_envs}; lower them or add environments"
        )
    order = torch.randperm(rollout.num_envs, generator=generator).to(rollout.device)
    dealt = order.tensor_split(minibatches)
    return [list(minibatch.tensor_split(micro_batches)) for minibatch in dealt]


def batches(rollout: Rollout, dealt: Sequence[Sequence[Tensor]]) -> Iterator[Batch]:
    """Yields the batch of each micro-batch that `deal` has made, in order.

    A batch is built when it is requested. Images in host memory are copied to the device while the
    batch before is in use.
    """
    pieces = [micro_batch for minibatch in dealt for micro_batch in minibatch]
    in_host = rollout.mirror.in_host
    if not in_host:
        return (batch(rollout, envs) for envs in pieces)
    host = {name: rollout.mirror.tensors[name] for name in in_host}
    images = ImagePrefetch(host, rollout.horizon, rollout.device).pieces(pieces)
    return (batch(rollout, envs, images_of) for envs, images_of in zip(pieces, images))


def batch(rollout: Rollout, envs: Tensor, images: Mapping[str, Tensor] | None = None) -> Batch:
    """All T steps of the environments with the given indices (int64 [n]).

    Args:
        rollout: Finished.
        envs: The indices.
        images: Groups that are on the device already.
    """
    images = images or {}

    def pick(tensor: Tensor) -> Tensor:
        rows = tensor[: rollout.horizon].index_select(1, envs.to(tensor.device))  # [T, n, ...]
        return rows.to(rollout.device)

    own = rollout.own
    return Batch(
        observations={
            name: images[name] if name in images else pick(tensor)
            for name, tensor in rollout.observations.items()
        },
        start=pick(own.start),
        memory={name: memory[:, envs] for name, memory in rollout.start_memory.items()},
        actions=pick(rollout.actions),
        mean=pick(own.mean),
        log_prob=pick(own.log_prob),
        values=pick(own.values),
        returns=pick(own.returns),
        advantages=pick(own.advantages),
        valid=None if rollout.valid is None else pick(rollout.valid),
    )


def shares(rollout: Rollout, minibatch: Sequence[Tensor]) -> list[float]:
    """Fraction of a minibatch's valid steps in each of its micro-batches."""
    if rollout.valid is None:
        counts = [len(micro_batch) for micro_batch in minibatch]
    else:
        counts = [int(rollout.valid[:, micro_batch].sum()) for micro_batch in minibatch]
    return [count / max(sum(counts), 1) for count in counts]


def _micro_batches(rollout: Rollout, minibatches: int) -> int:
    """The smallest number that keeps the images of each within `_IMAGES_AT_ONCE`."""
    if all(tensor.dim() <= 3 for tensor in rollout.observations.values()):
        return 1
    envs = max(rollout.num_envs // minibatches, 1)
    at_once = max(_IMAGES_AT_ONCE.get(rollout.device.type, 256) // rollout.horizon, 1)
    return -(-envs // at_once)
