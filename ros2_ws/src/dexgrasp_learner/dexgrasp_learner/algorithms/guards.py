"""Checks that an update learns only from finite values and valid steps."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class NonFiniteLoss(RuntimeError):
    """A value of a rollout, a loss or a gradient was NaN or infinite.

    The optimizer step that would have used it was not taken.
    """


def check_finite(terms: Mapping[str, Tensor], where: str) -> dict[str, float]:
    """Converts scalars to floats.

    Raises:
        NonFiniteLoss: One is NaN or infinite; the message lists all of them.
    """
    values = dict(zip(terms, torch.stack([*terms.values()]).tolist(), strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        shown = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
        raise NonFiniteLoss(
            f"{', '.join(bad)} not finite in {where} ({shown}); look at the observations and "
            "rewards of this rollout, or lower the learning rate"
        )
    return values


def check_rollout(tensors: Mapping[str, Tensor]) -> None:
    """Checks that tensors [T, N, ...] of a rollout, given by name, are finite.

    Raises:
        NonFiniteLoss: One holds NaN or infinity; the message names the first step and environment.
    """
    for name, tensor in tensors.items():
        bad = (~tensor.isfinite()).nonzero()  # [K, dimensions]
        if len(bad) > 0:
            step, env = bad[0, :2].tolist()
            raise NonFiniteLoss(
                f"{name} of step {step}, environment {env} is {tensor[step, env].tolist()} "
                f"({len(bad)} such values); look at what that environment observed"
            )


def valid_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the steps that count, scalar; 0 without any.

    Args:
        values: [T, n, ...].
        valid: bool [T, n]; None: all count.
    """
    if valid is None:
        return values.mean()
    counted = values[valid]
    return counted.sum() / max(counted.numel(), 1)
