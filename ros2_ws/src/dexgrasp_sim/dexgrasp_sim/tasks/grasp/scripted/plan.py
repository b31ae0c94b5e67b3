"""How the scripted fabric policy takes hold of an object: yaw, roll and opening of a pinch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.tasks.grasp.scripted.reach import ROLLS_RAD, ReachMap

_YAWS = 9
"""Candidates over the palm's range, besides the object's own sides."""
_NEAR_M = 0.005
"""A palm this close to its place counts as being there."""
_AWAY_COST_PER_M = 200.0
_SKEW_COST_PER_RAD = 3.0
_WIDTH_COST_PER_M = 30.0
_WIDE_M, _WIDE_COST_PER_M = 0.07, 50.0
_WIDEST_M, _TOO_WIDE_COST_PER_M = 0.128, 1000.0
"""The open hand leaves no room for objects that are wider."""
_ROLL_COST = 0.5
_TRIES = 3
"""After so many losses the plan changes no more."""
_HALF_TURN = math.pi


class Objects(NamedTuple):
    """Objects as far as the plan looks at them.

    Attributes:
        position: [N, 3] m, centres, base frame.
        rotation: [N, 3, 3], object axes as columns.
        extents_m: [N, 3], full extents along the object's own axes.
        is_round: [N] bool, whether turns about the object's z axis change nothing.
    """

    position: Tensor
    rotation: Tensor
    extents_m: Tensor
    is_round: Tensor


class Grasp(NamedTuple):
    """A pinch from above.

    Attributes:
        yaw_rad: [N], first ZYX Euler angle of the palm: the pinch closes along it.
        roll_rad: [N], turn of the palm about its own x axis, see `ROLLS_RAD`.
        width_m: [N], of the object along the pinch.
        height_m: [N], of the object, from its lowest to its highest point.
    """

    yaw_rad: Tensor
    roll_rad: Tensor
    width_m: Tensor
    height_m: Tensor


def height(objects: Objects) -> Tensor:
    """Vertical extent [N] m of the boxes, or upright round bodies, about the objects."""
    up = objects.rotation[:, 2].abs()
    box = (up * objects.extents_m).sum(1)
    x, y, z = (up * objects.extents_m).unbind(1)
    return torch.where(objects.is_round, torch.hypot(x, y) + z, box)


def plan(objects: Objects, reach: ReachMap, losses: Tensor) -> Grasp:
    """The pinch that costs least among those along the object's sides and at a few yaws between.

    Costs count how far the palm stays away, radians off the object's sides, and width.

    Args:
        objects: What to grasp.
        reach: Where the palm gets to.
        losses: [N] int64, failed attempts: with each one being off the sides counts half as much,
            so that a grasp that fails is not tried again and again.
    """
    rows = torch.arange(len(objects.position))
    upright = objects.rotation[:, 2].abs().argmax(1)
    first, second = (upright + 1) % 3, (upright + 2) % 3
    side = objects.rotation[rows, :, first]
    side_yaw = torch.atan2(side[:, 1], side[:, 0])
    yaw = _candidates(side_yaw, reach.axes[2])
    off = torch.remainder(yaw - side_yaw[:, None] + _HALF_TURN / 2, _HALF_TURN) - _HALF_TURN / 2
    along = objects.extents_m[rows, first][:, None]
    across = objects.extents_m[rows, second][:, None]
    width = along * off.cos() + across * off.abs().sin()
    skew = torch.minimum(off.abs(), _HALF_TURN / 2 - off.abs())
    any_yaw = (objects.is_round & (upright == 2))[:, None]
    width = torch.where(any_yaw, along, width)
    skew = torch.where(any_yaw, 0.0, skew)
    x, y = (objects.position[:, axis, None].expand_as(yaw) for axis in (0, 1))
    away = _AWAY_COST_PER_M * (reach.at(x, y, yaw) - _NEAR_M).clamp_min(0.0)
    wide = (
        _WIDTH_COST_PER_M * width
        + _WIDE_COST_PER_M * (width - _WIDE_M).clamp_min(0.0)
        + _TOO_WIDE_COST_PER_M * (width - _WIDEST_M).clamp_min(0.0)
    )
    patience = 0.5 ** losses.clamp(max=_TRIES)[:, None]
    turned = _ROLL_COST * (torch.tensor(ROLLS_RAD) != 0.0)
    cost = away + (_SKEW_COST_PER_RAD * patience * skew + wide)[..., None] + turned
    best = cost.flatten(1).argmin(1)
    column, roll = best // len(ROLLS_RAD), best % len(ROLLS_RAD)
    return Grasp(
        yaw[rows, column], torch.tensor(ROLLS_RAD)[roll], width[rows, column], height(objects)
    )


def _candidates(side_yaw: Tensor, range_rad: Tensor) -> Tensor:
    """Yaws [N, K]: of the object's sides as far as the palm can turn, then some over the range."""
    low, high = float(range_rad[0]), float(range_rad[-1])
    turns = torch.tensor([0.0, _HALF_TURN / 2])
    sides = torch.remainder(side_yaw[:, None] + turns - low, _HALF_TURN) + low
    # a side just below the range is nearer to its lower end than to the upper one
    sides = torch.where(sides > 0.5 * (low + high + _HALF_TURN), sides - _HALF_TURN, sides)
    between = torch.linspace(low, high, _YAWS).expand(len(side_yaw), -1)
    return torch.cat((sides.clamp(low, high), between), 1)
