"""Splits a finished rollout into minibatches for learning, and these into micro-batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from dexgrasp_learner.rollout.image_storage import ImagePrefetch
from dexgrasp_learner.rollout.rollout import Rollout

_IMAGES_AT_ONCE = {"cpu": 256, "cuda": 4096}
"""Default limit of images in a micro-batch. On the CPU 256 of 64x48 need less than half the memory
of 1024 and little more time, see `dexgrasp bench learner`. A GPU needs more images to be fully
used; its number was not measured."""
_PIXELS_AT_ONCE = {"cpu": 256 * 64 * 48, "cuda": 4096 * 160 * 120}
"""More images than `_IMAGES_AT_ONCE` are allowed up to this number of pixels: small images in
pieces cost time and save little memory."""


@dataclass(frozen=True)
class Batch:
    """T steps of n environments; fields as in `Rollout` and `OwnTensors`.

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

    @staticmethod
    def whole(rollout: Rollout) -> "Batch":
        """A finished rollout as one batch; nothing is copied."""
        steps, own = rollout.horizon, rollout.own
        return Batch(
            observations={name: tensor[:steps] for name, tensor in rollout.observations.items()},
            start=own.start[:steps],
            memory=rollout.start_memory,
            actions=rollout.actions,
            mean=own.mean,
            log_prob=own.log_prob,
            values=own.values[:steps],
            returns=own.returns,
            advantages=own.advantages,
            valid=rollout.valid,
        )

    @property
    def num_envs(self) -> int:
        """N."""
        return self.start.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the nets compute; images may be elsewhere."""
        return self.start.device

    def single_steps(self) -> "Batch":
        """The same steps as T = 1 steps of T * n environments; nothing is copied.

        Only for nets without memory. Dealt in this way, a minibatch holds steps of many more
        episodes than one of whole environments, which policies that learn from images need.
        """

        def flat(tensor: Tensor) -> Tensor:
            return tensor.flatten(0, 1).unsqueeze(0)  # [1, T * n, ...]

        steps = self.start.numel()
        return Batch(
            observations={name: flat(tensor) for name, tensor in self.observations.items()},
            start=flat(self.start),
            memory={name: m.new_zeros(2, steps, 0) for name, m in self.memory.items()},
            actions=flat(self.actions),
            mean=flat(self.mean),
            log_prob=flat(self.log_prob),
            values=flat(self.values),
            returns=flat(self.returns),
            advantages=flat(self.advantages),
            valid=None if self.valid is None else flat(self.valid),
        )

    def rows(self, envs: Tensor, images: Mapping[str, Tensor] | None = None) -> "Batch":
        """All steps of the environments with the given indices.

        Args:
            envs: int64 [k].
            images: Groups of these environments that are on the device already.
        """
        images = images or {}

        def pick(tensor: Tensor) -> Tensor:
            return tensor.index_select(1, envs.to(tensor.device)).to(self.device)  # [T, k, ...]

        return replace(
            self,
            observations={
                name: images[name] if name in images else pick(tensor)
                for name, tensor in self.observations.items()
            },
            start=pick(self.start),
            memory={name: pick(memory) for name, memory in self.memory.items()},
            actions=pick(self.actions),
            mean=pick(self.mean),
            log_prob=pick(self.log_prob),
            values=pick(self.values),
            returns=pick(self.returns),
            advantages=pick(self.advantages),
            valid=None if self.valid is None else pick(self.valid),
        )


def deal(
    samples: Batch, minibatches: int, micro_batches: int | None, generator: torch.Generator
) -> list[list[Tensor]]:
    """Assigns every environment at random to one micro-batch.

    Args:
        samples: What to split: `Batch.whole`, perhaps as single steps.
        minibatches: Number of minibatches.
        micro_batches: Micro-batches per minibatch; None: see `PpoConfig`.
        generator: Draws the order.

    Returns:
        For each minibatch its micro-batches, as environment indices for `Batch.rows`. Sizes differ
        by at most one; none is empty.

    Raises:
        ValueError: There are fewer environments than micro-batches in total.
    """
    micro_batches = micro_batches or _micro_batches(samples, minibatches)
    if minibatches * micro_batches > samples.num_envs:
        raise ValueError(
            f"minibatches * micro_batches = {minibatches} * {micro_batches} is more than "
            f"num_envs = {samples.num_envs}; lower them or add environments"
        )
    order = torch.randperm(samples.num_envs, generator=generator).to(samples.device)
    dealt = order.tensor_split(minibatches)
    return [list(minibatch.tensor_split(micro_batches)) for minibatch in dealt]


def batches(
    samples: Batch, dealt: Sequence[Sequence[Tensor]], in_host: Sequence[str] = ()
) -> Iterator[Batch]:
    """Yields the batch of each micro-batch that `deal` has made, in order.

    A batch is built when it is requested. Images in host memory are copied to the device while the
    batch before is in use.

    Args:
        samples: What was dealt.
        dealt: By `deal`.
        in_host: Image groups in host memory.
    """
    pieces = [micro_batch for minibatch in dealt for micro_batch in minibatch]
    if not in_host:
        return (samples.rows(envs) for envs in pieces)
    host = {name: samples.observations[name] for name in in_host}
    images = ImagePrefetch(host, len(samples.start), samples.device).pieces(pieces)
    return (samples.rows(envs, images_of) for envs, images_of in zip(pieces, images))


def shares(samples: Batch, minibatch: Sequence[Tensor]) -> list[float]:
    """Fraction of a minibatch's valid steps in each of its micro-batches."""
    if samples.valid is None:
        counts = [len(micro_batch) for micro_batch in minibatch]
    else:
        counts = [int(samples.valid[:, micro_batch].sum()) for micro_batch in minibatch]
    return [count / max(sum(counts), 1) for count in counts]


def _micro_batches(samples: Batch, minibatches: int) -> int:
    """The smallest number that keeps the images of each within `_IMAGES_AT_ONCE`."""
    images = [tensor for tensor in samples.observations.values() if tensor.dim() > 3]
    pixels = max((prod(image.shape[2:]) for image in images), default=0)
    if not pixels:
        return 1
    device = "cuda" if samples.device.type == "cuda" else "cpu"
    at_once = max(_IMAGES_AT_ONCE[device], _PIXELS_AT_ONCE[device] // pixels)
    horizon, num_envs = samples.start.shape
    envs = max(num_envs // minibatches, 1)
    return -(-envs // max(at_once // horizon, 1))
