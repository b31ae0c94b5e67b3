"""MuJoCo's contact model, which several engines share: what touches what, and restitution."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# bits of contype and conaffinity: two geoms collide if one's type meets the other's affinity
TABLE_BIT, OBJECT_BIT, ROBOT_BIT = 1, 2, 4


@dataclass(frozen=True)
class CollisionBits:
    """MuJoCo `contype` and `conaffinity` of one kind of geom."""

    contype: int
    conaffinity: int


TABLE_COLLISION = CollisionBits(TABLE_BIT, 0)
OBJECT_COLLISION = CollisionBits(OBJECT_BIT, TABLE_BIT)
ROBOT_COLLISION = CollisionBits(ROBOT_BIT, TABLE_BIT | OBJECT_BIT)
"""The robot touches table and object but not itself."""
SELF_COLLISION = CollisionBits(ROBOT_BIT, TABLE_BIT | OBJECT_BIT | ROBOT_BIT)
"""The robot touches itself too (never a link and its parent)."""


def damping_ratio(restitution: Tensor) -> Tensor:
    """Damping ratio of MuJoCo's contact model for restitutions [K]; as for single numbers in
    `physics.mujoco.parameters.damping_ratio`.
    """
    loss = -torch.log(restitution.clamp_min(torch.finfo(restitution.dtype).tiny))
    ratio = loss / torch.sqrt(loss * loss + math.pi**2)
    return torch.where(restitution > 0.0, ratio, 1.0)
