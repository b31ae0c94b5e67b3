"""Gradients of micro-batches, whose many small kernels a GPU replays from a recording."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dexgrasp_learner.rollout.minibatches import Batch
from dexgrasp_sim.device_graphs import Captured

Losses = Callable[[Batch, Tensor], dict[str, Tensor]]
"""All terms of the loss for a batch and the log deviations [A] of the actions; scalars."""


class Gradients:
    """Differentiates a loss with respect to parameters.

    A GPU records it for each size of batch, unless a net has a memory, whose code may not be
    recorded, or some steps do not count, whose number the host would have to ask for.
    """

    def __init__(
        self,
        losses: Losses,
        total: Callable[[Mapping[str, Tensor]], Tensor],
        parameters: Sequence[nn.Parameter],
        has_memory: bool,
    ) -> None:
        """Args:
        losses: Its terms.
        total: Their weighted sum.
        parameters: Of all nets that the loss trains; they stay where they are.
        has_memory: Whether a net has one.
        """
        self._losses, self._total = losses, total
        self._parameters, self._has_memory = tuple(parameters), has_memory
        self._recorded: dict[tuple[str, ...], Captured] = {}
        self._names: tuple[str, ...] = ()

    def add(self, batch: Batch, old_log_std: Tensor, share: float) -> dict[str, Tensor]:
        """Adds the gradients of a share of the loss to those of the parameters.

        Args:
            batch: Of single steps, [1, n, ...], where no net has a memory.
            old_log_std: float32 [A], of the distribution that drew the actions.
            share: Of the minibatch's steps that the batch has.

        Returns:
            The terms times the share, scalars.
        """
        if self._has_memory or batch.valid is not None:
            terms, *gradients = self._of_batch(batch, old_log_std, share)
        else:
            terms, *gradients = self._replayed(batch, old_log_std, share)
        if before := self.present():
            torch._foreach_add_(before, gradients)
        else:
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
        return dict(zip(self._names, terms, strict=True))

    def present(self) -> list[Tensor]:
        """The parameters' gradients so far."""
        return [each.grad for each in self._parameters if each.grad is not None]

    def _of_batch(
        self, batch: Batch, old_log_std: Tensor, share: float | Tensor
    ) -> tuple[Tensor, ...]:
        """The terms [K], then the gradient of each parameter."""
        with torch.enable_grad():
            losses = self._losses(batch, old_log_std)
            total = share * self._total(losses)
            gradients = torch.autograd.grad(
                total, self._parameters, allow_unused=True, materialize_grads=True
            )
        self._names = tuple(losses)
        return share * torch.stack([loss.detach() for loss in losses.values()]), *gradients

    def _replayed(self, batch: Batch, old_log_std: Tensor, share: float) -> tuple[Tensor, ...]:
        """As `_of_batch`, by a replay where the device has any."""
        names = tuple(batch.observations)
        if names not in self._recorded:
            self._recorded[names] = Captured(lambda *inputs: self._of_tensors(names, *inputs))
        fields = (getattr(batch, name) for name in _FIELDS)
        results = self._recorded[names](
            torch.full((1,), share, device=batch.device),
            old_log_std.unsqueeze(0),
            *fields,
            *batch.observations.values(),
        )
        return tuple(result.squeeze(0) for result in results)

    def _of_tensors(
        self, names: Sequence[str], share: Tensor, old_log_std: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """`_of_batch` of tensors [1, ...], as `Captured` has them."""
        fields = dict(zip(_FIELDS, tensors, strict=False))
        observations = dict(zip(names, tensors[len(_FIELDS) :], strict=True))
        empty = torch.zeros(2, fields["start"].shape[1], 0, device=share.device)
        batch = Batch(
            observations=observations,
            memory={"actor": empty, "critic": empty},
            valid=None,
            **fields,
        )
        results = self._of_batch(batch, old_log_std[0], share)
        return tuple(result.unsqueeze(0) for result in results)


_FIELDS = ("start", "actions", "mean", "log_prob", "values", "returns", "advantages")
"""Fields of `Batch` that are tensors of every step."""
