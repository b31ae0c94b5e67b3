"""Grasps of the scripted fabric policy: yaw, roll and width of a pinch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.tasks.grasp.scripted.reach import ROLLS_RAD, ReachMap

_YAWS = 9
"""Candidate yaws over the palm's range, besides those of the object's sides."""
_NEAR_M = 0.005
"""A palm this close to its place counts as being there."""
_AWAY_COST_PER_M = 200.0
_SKEW_COST_PER_RAD = 3.0
_WIDTH_COST_PER_M = 30.0
_WIDE_M, _WIDE_COST_PER_M = 0.07, 50.0
_WIDEST_M, _TOO_WIDE_COST_PER_M = 0.128, 1000.0
"""Wider objects do not fit into the open hand."""
_ROLL_COST = 0.5
_TRIES = 3
"""After this number of losses the plan no longer changes."""
_HALF_TURN = math.pi


class Objects(NamedTuple):
    """What the plan needs to know of the objects.

    Attributes:
        position: [N, 3] m, centres, base frame.
        rotation: [N, 3, 3], object axes as columns.
        extents_m: [N, 3], full extents along the object's own axes.
        is_round: [N] bool, whether the object is symmetric about its z axis.
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
    """Vertical extent [N] m of the bounding boxes, or bounding cylinders if round."""
    up = objects.rotation[:, 2].abs()
    box = (up * objects.extents_m).sum(1)
    x, y, z = (up * objects.extents_m).unbind(1)
    return torch.where(objects.is_round, torch.hypot(x, y) + z, box)


def plan(objects: Objects, reach: ReachMap, losses: Tensor) -> Grasp:
    """The cheapest pinch among those along the object's sides and at a few other yaws.

    The cost grows with the palm's distance from its place, the angle to the object's sides and the
    width.

    Args:
        objects: What to grasp.
        reach: Position errors of the palm.
        losses: [N] int64, failed attempts. Each one halves the cost of the angle, so that a grasp
            that fails is not repeated for ever.
    """
    rows = torch.arange(len(objects.position))
    upright = objects.rotation[:, 2].abs().argmax(1)  # [N], the axis nearest to vertical
    first, second = (upright + 1) % 3, (upright + 2) % 3
    side = objects.rotation[rows, :, first]  # [N, 3], a horizontal axis of the object
    side_yaw = torch.atan2(side[:, 1], side[:, 0])  # [N]
    yaw = _candidates(side_yaw, reach.axes[2])  # [N, K]
    off = torch.remainder(yaw - side_yaw[:, None] + _HALF_TURN / 2, _HALF_TURN) - _HALF_TURN / 2
    along = objects.extents_m[rows, first][:, None]  # [N, 1]
    across = objects.extents_m[rows, second][:, None]
    width = along * off.cos() + across * off.abs().sin()  # [N, K]
    skew = torch.minimum(off.abs(), _HALF_TURN / 2 - off.abs())
    any_yaw = (objects.is_round & (upright == 2))[:, None]
    width = torch.where(any_yaw, along, width)
    skew = torch.where(any_yaw, 0.0, skew)
    x, y = (objects.position[:, axis, None].expand_as(yaw) for axis in (0, 1))
    away = _AWAY_COST_PER_M * (reach.at(x, y, yaw) - _NEAR_M).clamp_min(0.0)  # [N, K, R]
    wide = (
        _WIDTH_COST_PER_M * width
        + _WIDE_COST_PER_M * (width - _WIDE_M).clamp_min(0.0)
        + _TOO_WIDE_COST_PER_M * (width - _WIDEST_M).clamp_min(0.0)
    )
    skew_weight = _SKEW_COST_PER_RAD * 0.5 ** losses.clamp(max=_TRIES)[:, None]  # [N, 1]
    turned = _ROLL_COST * (torch.tensor(ROLLS_RAD) != 0.0)  # [R]
    cost = away + (skew_weight * skew + wide)[..., None] + turned  # [N, K, R]
    best = cost.flatten(1).argmin(1)
    column, roll = best // len(ROLLS_RAD), best % len(ROLLS_RAD)
    return Grasp(
        yaw[rows, column], torch.tensor(ROLLS_RAD)[roll], width[rows, column], height(objects)
    )


def _candidates(side_yaw: Tensor, range_rad: Tensor) -> Tensor:
    """Yaws [N, K] within the palm's range: of the object's two sides, then evenly spread ones."""
    low, high = float(range_rad[0]), float(range_rad[-1])
    turns = torch.tensor([0.0, _HALF_TURN / 2])
    sides = torch.remainder(side_yaw[:, None] + turns - low, _HALF_TURN) + low
    # a side just below the range is nearer to its lower end than to the upper one
    sides = torch.where(sides > 0.5 * (low + high + _HALF_TURN), sides - _HALF_TURN, sides)
    between = torch.linspace(low, high, _YAWS).expand(len(side_yaw), -1)
    return torch.cat((sides.clamp(low, high), between), 1)
