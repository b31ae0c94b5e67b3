"""Reward terms of the grasp-and-lift task, each a small function of a batch, and their weights."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.schedules import PositiveRamp, Ramp
from dexgrasp_sim.vec_env import REWARD_TERMS

_NEAR_M = 0.05
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class RewardConfig:
    """Weights of the reward terms; a term of weight 0 is not computed.

    The defaults are the laptop's. The paper's (DEXTRAH): reach 1, goal 5 with a sharpness of 15
    to 20, height 5 to 0, curl -0.01 to -0.005, no lift, scale 0.01.

    Attributes:
        reach: Weight of `rewards.reach`; the next four are those of the functions of their names.
        reach_sharpness_per_m: How fast `reach` falls with the distance.
        goal_sharpness_per_m: The same of `goal`.
        height_sharpness_per_m: The same of `height`.
        scale: Factor on the sum.
    """

    reach: Ramp = Ramp(1.0)
    lift: Ramp = Ramp(5.0)
    goal: Ramp = Ramp(3.0)
    height: Ramp = Ramp(0.0)
    curl: Ramp = Ramp(0.0)
    reach_sharpness_per_m: Positive = 10.0
    goal_sharpness_per_m: PositiveRamp = Ramp(15.0)
    height_sharpness_per_m: Positive = 8.5
    scale: Positive = 0.1


class Situation(NamedTuple):
    """What a reward depends on, for N environments.

    Attributes:
        farthest_m: [N] largest distance of a fingertip or the grasp centre to the object centre.
        height_m: [N] of the object above its start.
        goal_height_m: [N] of the goal above the object's start.
        from_goal_m: [N, 3] object centre minus goal, base frame.
        off_flat_rad: [N, H] joints of the hand minus `Robot.flat_hand`.
    """

    farthest_m: Tensor
    height_m: Tensor
    goal_height_m: Tensor
    from_goal_m: Tensor
    off_flat_rad: Tensor


def reach(farthest_m: Tensor, sharpness_per_m: float) -> Tensor:
    """exp(-s d): 1 when all fingertips and the grasp centre are at the object centre (DEXTRAH).

    Args:
        farthest_m: See `Situation`.
        sharpness_per_m: s.
    """
    return torch.exp(-sharpness_per_m * farthest_m)


def lift(height_m: Tensor, goal_height_m: Tensor, farthest_m: Tensor) -> Tensor:
    """Fraction of the goal height, counted only while the hand is at the object."""
    in_hand = torch.exp(-10.0 * (farthest_m - _NEAR_M).clamp(min=0.0))
    return (height_m / goal_height_m).clamp(0.0, 1.0) * in_hand


def goal(from_goal_m: Tensor, sharpness_per_m: Tensor) -> Tensor:
    """exp(-s d) of the distance d of the object from the goal (DEXTRAH).

    Args:
        from_goal_m: See `Situation`.
        sharpness_per_m: s, [N].
    """
    return torch.exp(-sharpness_per_m * torch.linalg.norm(from_goal_m, dim=1))


def height(from_goal_m: Tensor, sharpness_per_m: float) -> Tensor:
    """exp(-s |dz|) of the height difference of object and goal: DEXTRAH's lift reward.

    Args:
        from_goal_m: See `Situation`.
        sharpness_per_m: s.
    """
    return torch.exp(-sharpness_per_m * from_goal_m[:, 2].abs())


def curl(off_flat_rad: Tensor) -> Tensor:
    """|q - q'|² in rad² of the hand from its flat posture (DEXTRAH); its weight is negative.

    Args:
        off_flat_rad: See `Situation`.
    """
    return off_flat_rad.square().sum(dim=1)


_TERMS: dict[str, Callable[[RewardConfig, Situation, Tensor], Tensor]] = {
    "reach": lambda config, now, _: reach(now.farthest_m, config.reach_sharpness_per_m),
    "lift": lambda config, now, _: lift(now.height_m, now.goal_height_m, now.farthest_m),
    "goal": lambda config, now, difficulty: goal(
        now.from_goal_m, config.goal_sharpness_per_m.at(difficulty)
    ),
    "height": lambda config, now, _: height(now.from_goal_m, config.height_sharpness_per_m),
    "curl": lambda config, now, _: curl(now.off_flat_rad),
}


def weighted_terms(config: RewardConfig, now: Situation, difficulty: Tensor) -> Tensor:
    """Each term times its weight and the scale; the reward is their sum.

    Args:
        config: The weights.
        now: The present state.
        difficulty: [N] in [0, 1], of the environments' present episodes.

    Returns:
        [N, T] in the order of `REWARD_TERMS`; 0 where the weight is.
    """
    weighted = difficulty.new_zeros(len(difficulty), len(REWARD_TERMS))
    for column, name in enumerate(REWARD_TERMS):
        weight = getattr(config, name).at(difficulty)
        if weight.any():
            value = _TERMS[name](config, now, difficulty)
            weighted[:, column] = config.scale * weight * value
    return weighted
