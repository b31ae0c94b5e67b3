"""Pinches within the five principal components of the hand, found by optimisation.

A pinch of a given opening puts the tips of index, middle and ring finger in a line and the thumb's
tip opposite to them at that distance. All tips are as low as the rest of the hand allows, to reach
objects that lie on a table. The pinch closes horizontally when the palm is pitched by
`PALM_PITCH_RAD`; with less pitch the thumb lies flat and its back keeps its tip off the table.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.control.fabric.config import FabricConfig, fabric_of
from dexgrasp_sim.robot.hand_pca import NUM_COMPONENTS
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.robot.rotation import rpy_to_matrix

PALM_PITCH_RAD = math.radians(17.0)
"""Second ZYX Euler angle of a pinching palm that faces down: the fingers point below the thumb.
Between 15 and 20 degrees all four tips are at about the same height at all openings."""
TIP_RADIUS_M = 0.012
"""Radius of the spheres at the fingers' ends (URDF); tip frames lie on them, x axis outward."""

_LEAST_M, _STEP_M, _STEPS = -0.06, 0.01, 22
_ITERATIONS = 400
_LEARNING_RATE = 0.05
_ROUGHNESS = 300.0
"""Cost on squared second differences between openings, so that the hand closes smoothly."""


class Pinches(NamedTuple):
    """Pinches by opening, the distance between the surfaces of thumb and fingers.

    Attributes:
        openings_m: [W], rising in equal steps; negative ones are goals of a hand that squeezes.
        components: [W, 5] rad, principal components of the hand.
        centers_m: [W, 3], midpoints between the tip of the thumb and the mean of the fingers'
            tips, palm frame; sideways between the thumb and the middle finger.
    """

    openings_m: Tensor
    components: Tensor
    centers_m: Tensor

    def at(self, opening_m: Tensor) -> tuple[Tensor, Tensor]:
        """Components [N, 5] and centres [N, 3] at openings [N], clamped to the table's."""
        last = len(self.openings_m) - 1
        place = ((opening_m - self.openings_m[0]) / _STEP_M).clamp(0.0, last)  # [N]
        left = place.long().clamp(max=last - 1)  # [N]
        share = (place - left)[:, None]  # [N, 1]
        return (
            torch.lerp(self.components[left], self.components[left + 1], share),
            torch.lerp(self.centers_m[left], self.centers_m[left + 1], share),
        )


class _Hand:
    """Tips and lowest point of hands, in a frame at the palm: x horizontal along the closing
    direction, z down.
    """

    def __init__(self, config: FabricConfig, robot: Robot) -> None:
        spec = fabric_of(robot)
        self._spheres = [spec.body.spheres[index] for index in spec.body.hand]
        self._fingers = len(robot.fingers)
        frames = [robot.palm, *robot.fingertips]
        frames += sorted({sphere.frame for sphere in self._spheres} - {robot.palm})
        self._kinematics = Kinematics(robot, frames)
        self._carriers = [frames.index(sphere.frame) for sphere in self._spheres]
        self._offsets = torch.tensor([sphere.offset_m for sphere in self._spheres])
        self._radii = torch.tensor([sphere.radius_m for sphere in self._spheres])
        self._columns = robot.hand
        self._num_joints = robot.num_joints
        self._axes = spec.hand_pca.axes.clone()  # tensors made in inference mode have no gradients
        start = torch.tensor(config.start_position(robot))[self._columns]
        # the part of the posture outside the components hardly moves while the fabric acts
        self._rest = start - self._axes.T @ (self._axes @ start)
        limits = torch.tensor([robot.lower.tolist(), robot.upper.tolist()])[:, self._columns]
        self._lower, self._upper = limits
        self.level = rpy_to_matrix(torch.tensor([0.0, -PALM_PITCH_RAD, 0.0]))

    def joints(self, components: Tensor) -> Tensor:
        """Joint positions [W, 16] rad at components [W, 5]."""
        return components @ self._axes + self._rest

    def beyond(self, joints: Tensor) -> Tensor:
        """[W] rad², squared distance beyond the joint limits."""
        return (joints - joints.clamp(self._lower, self._upper)).square().sum(1)

    def tips_and_lowest(self, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Centres of the tips' spheres [W, 4, 3] m and the lowest point's z [W] m."""
        full = joints.new_zeros(len(joints), self._num_joints)
        full[:, self._columns] = joints
        frames = self._kinematics.forward(full)
        origin = frames.position[:, :1]  # [W, 1, 3]
        turn = frames.rotation[:, 0] @ self.level.T  # [W, 3, 3]
        tip = slice(1, 1 + self._fingers)
        tips = frames.position[:, tip] - TIP_RADIUS_M * frames.rotation[:, tip, :, 0]
        spheres = frames.position[:, self._carriers] + (
            frames.rotation[:, self._carriers] @ self._offsets[..., None]
        ).squeeze(-1)  # [W, S, 3]
        lowest = (((spheres - origin) @ turn)[..., 2] + self._radii).amax(1)
        return (tips - origin) @ turn, lowest


@cache
@torch.inference_mode(False)
def find_pinches(config: FabricConfig, robot: Robot) -> Pinches:
    """Pinches with openings from -6 to 15 cm, within the hand range of the config.

    The robot's fingers are index, middle, ring and thumb, in this order.
    """
    hand = _Hand(config, robot)
    openings = _LEAST_M + _STEP_M * torch.arange(_STEPS)
    low, high = (torch.tensor(bound) for bound in config.hand_range_rad(robot))
    share = torch.zeros(_STEPS, NUM_COMPONENTS, requires_grad=True)  # [W, 5], logits in the range
    optimizer = torch.optim.Adam([share], lr=_LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(_ITERATIONS):
            optimizer.zero_grad()
            bends = share[2:] - 2.0 * share[1:-1] + share[:-2]
            components = low + (high - low) * share.sigmoid()
            cost = _cost(hand, components, openings) + _ROUGHNESS * bends.square().sum()
            cost.backward()
            optimizer.step()
    components = low + (high - low) * share.detach().sigmoid()
    tips, _ = hand.tips_and_lowest(hand.joints(components))
    centers = 0.5 * (tips[:, :3].mean(1) + tips[:, 3])
    centers[:, 1] = 0.5 * (tips[:, 1, 1] + tips[:, 3, 1])
    return Pinches(openings, components, centers @ hand.level)


def _cost(hand: _Hand, components: Tensor, openings: Tensor) -> Tensor:
    """Cost in mm²: error of the opening with weight 1; tips out of line, not opposite or too high
    with less; reach of the fingers lowers it.
    """
    joints = hand.joints(components)
    tips, lowest = hand.tips_and_lowest(joints)
    tips, lowest = 1e3 * tips, 1e3 * lowest
    fingers, thumb = tips[:, :3], tips[:, 3]
    middle = fingers.mean(1)
    opening = middle[:, 0] - thumb[:, 0] - 2e3 * TIP_RADIUS_M
    raised = lowest[:, None] - tips[:, :, 2]
    cost = (
        (opening - 1e3 * openings).square()
        + 0.3 * (fingers[..., 0] - middle[:, :1]).square().sum(1)
        + 0.03 * (thumb[:, 1] - middle[:, 1]).square()
        + 0.3 * (raised[:, :3].square().mean(1) + raised[:, 3].square())
        - middle[:, 2]
        + 1e3 * hand.beyond(joints)
    )
    return cost.sum()
