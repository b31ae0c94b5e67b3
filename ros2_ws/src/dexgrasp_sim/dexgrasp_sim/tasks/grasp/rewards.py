"""Reward terms of the grasp-and-lift task, each one entry of `TERMS`, and their weights."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.schedules import PositiveRamp, Ramp

_NEAR_M = 0.05
Positive = Annotated[float, Field(gt=0)]


class Situation(NamedTuple):
    """What a reward depends on, for N environments.

    Attributes:
        farthest_m: [N] largest distance of a fingertip or the grasp centre to the object centre.
        palm_offset_m: [N, 3] grasp centre minus object centre, base frame.
        height_m: [N] of the object's lowest point above the table.
        goal_height_m: [N] of that point when the object stands upright at the goal.
        from_goal_m: [N, 3] object centre minus goal, base frame.
        off_flat_rad: [N, H] joints of the hand minus `Robot.flat_hand`.
        difficulty: [N] in [0, 1], of the present episodes.
    """

    farthest_m: Tensor
    palm_offset_m: Tensor
    height_m: Tensor
    goal_height_m: Tensor
    from_goal_m: Tensor
    off_flat_rad: Tensor
    difficulty: Tensor


def reach(config: "RewardConfig", now: Situation) -> Tensor:
    """exp(-s d): 1 when all fingertips and the grasp centre are at the object centre (DEXTRAH)."""
    return torch.exp(-config.reach_sharpness_per_m * now.farthest_m)


def lift(config: "RewardConfig", now: Situation) -> Tensor:
    """Fraction of the goal height, counted only while the hand is at the object (own choice)."""
    del config
    in_hand = torch.exp(-10.0 * (now.farthest_m - _NEAR_M).clamp(min=0.0))  # [N]
    return (now.height_m / now.goal_height_m).clamp(0.0, 1.0) * in_hand


def goal(config: "RewardConfig", now: Situation) -> Tensor:
    """exp(-s d) of the distance d of the object from the goal (DEXTRAH)."""
    sharpness = config.goal_sharpness_per_m.at(now.difficulty)
    return torch.exp(-sharpness * torch.linalg.norm(now.from_goal_m, dim=1))


def height(config: "RewardConfig", now: Situation) -> Tensor:
    """exp(-s |dz|) of the height difference of object and goal: DEXTRAH's lift reward."""
    return torch.exp(-config.height_sharpness_per_m * now.from_goal_m[:, 2].abs())


def curl(config: "RewardConfig", now: Situation) -> Tensor:
    """|q - q'|² in rad² of the hand from its flat posture (DEXTRAH); its weight is negative."""
    del config
    return now.off_flat_rad.square().sum(dim=1)


def low_approach(config: "RewardConfig", now: Situation) -> Tensor:
    """How far the grasp centre is below a cone over the object, as a share of its height.

    The cone opens upwards at 45 degrees from 5 cm beside the object's centre. A hand that comes
    from below it sweeps the object away instead of closing around it. Its weight is negative
    (own choice).
    """
    height_m = config.approach_height_m
    beside_m = torch.linalg.norm(now.palm_offset_m[:, :2], dim=1)  # [N]
    cone_m = (beside_m - _NEAR_M).clamp(0.0, height_m)
    return (cone_m - now.palm_offset_m[:, 2]).clamp(0.0, height_m) / height_m


class Term(NamedTuple):
    """A reward term: its value [N] in a situation, and its weight unless a config sets another."""

    value: Callable[["RewardConfig", Situation], Tensor]
    default_weight: float


TERMS: dict[str, Term] = {
    "reach": Term(reach, 1.0),
    "lift": Term(lift, 5.0),
    "goal": Term(goal, 3.0),
    "height": Term(height, 0.0),
    "curl": Term(curl, 0.0),
    "low_approach": Term(low_approach, 0.0),
}
"""All terms by name. The default weights are the laptop's. The paper's (DEXTRAH): reach 1, goal 5
with a sharpness of 15 to 20, height 5 to 0, curl -0.01 to -0.005, no lift, scale 0.01."""


def _with_defaults(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    if unknown := [name for name in given if name not in TERMS]:
        raise ValueError(f"there is no term {unknown[0]!r}; there are {', '.join(TERMS)}")
    ramps = TypeAdapter(Ramp)
    weights = {name: term.default_weight for name, term in TERMS.items()} | dict(given)
    return tuple((name, ramps.validate_python(weight)) for name, weight in weights.items())


Weights = Annotated[
    tuple[tuple[str, Ramp], ...],
    BeforeValidator(_with_defaults),
    PlainSerializer(lambda weights: TypeAdapter(dict[str, Ramp]).dump_python(dict(weights))),
]
"""By term; in YAML a mapping that holds only the weights that differ from the defaults."""


@dataclass(frozen=True, config=STRICT)
class RewardConfig:
    """Weights of the reward terms; a term of weight 0 is not computed.

    Attributes:
        weights: By name of `TERMS`.
        reach_sharpness_per_m: Factor s in the exponent of `reach`.
        goal_sharpness_per_m: The same for `goal`.
        height_sharpness_per_m: The same for `height`.
        approach_height_m: Height of the cone of `low_approach`.
        scale: Factor on the sum.
    """

    weights: Weights = Field(default_factory=lambda: _with_defaults({}))
    reach_sharpness_per_m: Positive = 10.0
    goal_sharpness_per_m: PositiveRamp = Ramp(15.0)
    height_sharpness_per_m: Positive = 8.5
    approach_height_m: Positive = 0.12
    scale: Positive = 0.1


def weighted_terms(config: RewardConfig, now: Situation) -> Tensor:
    """Each term times its weight and the scale; the reward is their sum.

    Returns:
        [N, T] in the order of `TERMS`; 0 for terms of weight 0.
    """
    nothing = torch.zeros_like(now.difficulty)
    columns = {
        name: config.scale * weight.at(now.difficulty) * TERMS[name].value(config, now)
        for name, weight in config.weights
        if weight.initial or weight.end
    }
    return torch.stack([columns.get(name, nothing) for name in TERMS], dim=1)
