"""Reward terms of the grasp-and-lift task, each a small function of a batch."""

import torch
from torch import Tensor

from dexgrasp_sim.tasks.grasp.config import RewardConfig

_NEAR_M = 0.05


def reach(farthest_m: Tensor) -> Tensor:
    """exp(-10 d): 1 when all fingertips and the grasp centre are at the object centre.

    Args:
        farthest_m: [N] largest distance of a fingertip or the grasp centre to the object centre.
    """
    return torch.exp(-10.0 * farthest_m)


def lift(height_m: Tensor, goal_height_m: float, farthest_m: Tensor) -> Tensor:
    """Fraction of the goal height, counted only while the hand is at the object.

    Args:
        height_m: [N] object height above its start.
        goal_height_m: Height that counts as 1.
        farthest_m: As in `reach`.
    """
    in_hand = torch.exp(-10.0 * (farthest_m - _NEAR_M).clamp(min=0.0))
    return (height_m / goal_height_m).clamp(0.0, 1.0) * in_hand


def goal(distance_m: Tensor) -> Tensor:
    """exp(-15 d) of the distance [N] of the object from the goal position."""
    return torch.exp(-15.0 * distance_m)


def total(weights: RewardConfig, terms: dict[str, Tensor]) -> Tensor:
    """Weighted sum of the terms times `weights.scale`.

    Args:
        weights: One field per term name.
        terms: Term name to [N].
    """
    weighted = [getattr(weights, name) * value for name, value in terms.items()]
    return weights.scale * torch.stack(weighted).sum(dim=0)
