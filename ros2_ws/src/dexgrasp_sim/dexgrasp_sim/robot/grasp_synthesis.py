"""Hand postures that grasp primitive shapes, by batched optimisation of the kinematics.

For many random boxes, capsules and spheres, it searches joint positions that put the fingertips on
the surface, their normals against it, and no other part of the hand inside. Two thirds of the
shapes are enlarged by 2 or 4 cm, which gives postures shortly before a grasp. The postures are
used only to find the directions in which a hand moves when it grasps (`hand_pca`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.robot.rotation import quaternion_to_matrix

_FINGER_HALF_WIDTH_M = 0.012
"""Half width of the finger links' collision boxes, rounded up."""
_PALM_FACE_M = 0.012
"""Smallest height of shapes above `palm_link`; the palm's surface is at height 0."""
_SWELLINGS_M = (0.0, 0.02, 0.04)
_MILLIMETRE = 1e-3
_FLEXES = (False, True, True, True) * 4
"""Which joints of a hand with four fingers of four joints close it: not those that spread."""
_STIFFNESS = (30.0, 3.0, 3.0, 3.0) * 3 + (3.0,) * 4
"""Cost of a joint's distance from its start, 1/rad^2; high for joints that spread fingers."""
_GRIPS = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1]], dtype=torch.bool)
"""Which fingers touch, the thumb last: all, thumb with two, thumb with the index finger."""
_GRIP_SHARES = torch.tensor([0.6, 0.25, 0.15])


class Shapes(NamedTuple):
    """N rounded boxes; a sphere has no box, a cylinder is a capsule.

    Attributes:
        half_size: [N, 3] m, of the box inside.
        radius: [N, 1] m, of the rounding.
        rotation: [N, 3, 3], in the palm frame.
    """

    half_size: Tensor
    radius: Tensor
    rotation: Tensor


class Surface(NamedTuple):
    """Signed distance [N, P] in m of points to shapes (below 0 inside), and outward normals
    [N, P, 3] there.
    """

    distance: Tensor
    normal: Tensor


@dataclass(frozen=True)
class GraspSynthesis:
    """Settings of the search.

    Attributes:
        count: Grasps tried.
        iterations: Of the optimiser.
        step_rad: Step size of the optimiser.
        tolerance_m: A grasp is used if no contact error and no penetration exceeds this.
        seed: Of shapes and start postures.
    """

    count: int = 1024
    iterations: int = 300
    step_rad: float = 0.03
    tolerance_m: float = 0.005
    seed: int = 0


def random_shapes(count: int, generator: torch.Generator) -> Shapes:
    """Boxes, capsules and spheres in equal parts, 2 to 12 cm wide before enlargement, with random
    rotations.
    """

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator)

    kind = torch.arange(count) % 3
    half_size = uniform(0.008, 0.055, count, 3)
    radius = torch.full((count, 1), 0.002)
    capsule, sphere = kind == 1, kind == 2
    half_size[capsule, :2] = 0.0
    half_size[sphere] = 0.0
    radius[kind > 0] = uniform(0.01, 0.06, int((kind > 0).sum()), 1)
    radius += torch.tensor(_SWELLINGS_M)[torch.arange(count) // 3 % len(_SWELLINGS_M), None]
    rotation = quaternion_to_matrix(
        torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
    )
    return Shapes(half_size, radius, rotation)


def surface(shapes: Shapes, points: Tensor) -> Surface:
    """Distances and normals at points [N, P, 3] relative to the shapes' centres, palm frame."""
    local = points @ shapes.rotation  # [N, P, 3]
    beyond = local.abs() - shapes.half_size[:, None]  # [N, P, 3]
    outside = beyond.clamp_min(0.0)
    distance = (outside.square().sum(-1) + 1e-12).sqrt() + beyond.amax(-1).clamp(max=0.0)
    deepest = torch.nn.functional.one_hot(beyond.argmax(-1), 3).to(local)
    direction = torch.where((beyond.amax(-1) > 0)[..., None], outside, deepest) * local.sign()
    normal = torch.nn.functional.normalize(direction, dim=-1) @ shapes.rotation.mT
    return Surface(distance - shapes.radius, normal)


class _Hand:
    """Points of the hand in the palm frame at joint positions [N, 16] rad."""

    def __init__(self, robot: Robot) -> None:
        links = [
            robot.joints[name].child for finger in robot.fingers for name in finger.joints[1:]
        ]
        self._fingers = len(robot.fingers)
        frames = (robot.palm, robot.grasp_center, *robot.fingertips, *links)
        self._kinematics = Kinematics(robot, frames)
        self._columns = robot.hand
        self._num_joints = robot.num_joints

    def points(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Grasp centre [N, 3] m, tips [N, 4, 3] m, their outward normals [N, 4, 3], and points
        [N, P, 3] m along the finger links.
        """
        full = q.new_zeros(len(q), self._num_joints)
        full[:, self._columns] = q
        frames = self._kinematics.forward(full)
        palm, origin = frames.rotation[:, 0], frames.position[:, :1]
        places = (frames.position - origin) @ palm
        tips = slice(2, 2 + self._fingers)
        links = places[:, tips.stop :].unflatten(1, (self._fingers, -1))
        middles = 0.5 * (links[:, :, :-1] + links[:, :, 1:])
        normals = frames.rotation[:, tips, :, 0] @ palm
        bones = torch.cat((links, middles), 2).flatten(1, 2)
        return places[:, 1], places[:, tips], normals, bones


def synthesise(robot: Robot, config: GraspSynthesis) -> Tensor:
    """Hand postures [G, H] rad of successful grasps, columns in the order of `hand_joints`.

    Raises:
        ValueError: The hand is not one of four fingers with four joints each, the thumb last.
    """
    if [len(finger.joints) for finger in robot.fingers] != [4] * 4 or (
        robot.fingers[-1].name != robot.thumb
    ):
        raise ValueError(f"{robot.name}: grasps are known for hands of 4 x 4 joints, thumb last")
    generator = torch.Generator().manual_seed(config.seed)
    shapes = random_shapes(config.count, generator)
    grip = _GRIPS[torch.multinomial(_GRIP_SHARES, config.count, True, generator=generator)]
    hand = _Hand(robot)
    lower, upper = (torch.from_numpy(b[robot.hand]).float() for b in (robot.lower, robot.upper))
    # starts between a nearly flat and a nearly closed hand
    curl = 0.2 + 1.6 * torch.rand(config.count, 1, generator=generator)
    rest = torch.tensor(robot.postures["relaxed"][robot.hand])
    rest = torch.where(torch.tensor(_FLEXES), curl * rest, rest)
    q = rest.clamp(lower, upper).requires_grad_()
    shift = torch.zeros(config.count, 3, requires_grad=True)
    optimizer = torch.optim.Adam(
        [{"params": [q], "lr": config.step_rad}, {"params": [shift], "lr": 0.1 * config.step_rad}]
    )
    for _ in range(config.iterations):
        optimizer.zero_grad()
        _cost(hand, q, shift, shapes, grip, rest).sum().backward()
        optimizer.step()
        with torch.no_grad():
            q.copy_(torch.minimum(torch.maximum(q, lower), upper))
    with torch.no_grad():
        contact, depth = _errors(hand, q, shift, shapes, grip)
        good = torch.maximum(contact.amax(1), depth.amax(1)) < config.tolerance_m
        return q.detach()[good]


def _cost(
    hand: _Hand, q: Tensor, shift: Tensor, shapes: Shapes, grip: Tensor, rest: Tensor
) -> Tensor:
    """[N]: contact errors and penetrations in mm², and with much smaller weights the errors of
    normals, opposition and posture.
    """
    center, tips, normals, bones = hand.points(q)
    center = center + shift
    contact = surface(shapes, tips - center[:, None])
    depth = _depth(shapes, center, bones)
    touching = grip.float()
    facing = (1.0 + (normals * contact.normal).sum(-1)) * touching
    fingers = (normals[:, :3] * touching[:, :3, None]).sum(1) / touching[:, :3].sum(
        1, keepdim=True
    )
    opposed = 1.0 + (fingers * normals[:, 3]).sum(-1)
    apart = (tips[:, None] - tips[:, :, None]).square().sum(-1)
    crowded = (0.02 - (apart + 1e-9).sqrt()).clamp_min(0.0).triu(1)
    return (
        (contact.distance * touching / _MILLIMETRE).square().sum(1)
        + (depth / _MILLIMETRE).square().sum(1)
        + (crowded / _MILLIMETRE).square().sum((1, 2))
        + 10.0 * facing.sum(1)
        + 10.0 * opposed
        + (torch.tensor(_STIFFNESS) * (q - rest).square()).sum(1)
        + 0.05 * (shift / _MILLIMETRE).square().sum(1)
    )


def _errors(
    hand: _Hand, q: Tensor, shift: Tensor, shapes: Shapes, grip: Tensor
) -> tuple[Tensor, Tensor]:
    """Contact errors [N, 4] and penetrations [N, P + 1], both in m and not negative."""
    center, tips, _, bones = hand.points(q)
    center = center + shift
    distance = surface(shapes, tips - center[:, None]).distance
    return distance.abs() * grip, _depth(shapes, center, bones)


def _depth(shapes: Shapes, center: Tensor, bones: Tensor) -> Tensor:
    """[N, P + 1] m: penetration of the shape by the finger links and, last, by the palm."""
    inside = _FINGER_HALF_WIDTH_M - surface(shapes, bones - center[:, None]).distance
    down = (shapes.rotation[:, 2].abs() * shapes.half_size).sum(1) + shapes.radius[:, 0]
    palm = _PALM_FACE_M - (center[:, 2] - down)
    return torch.cat((inside, palm[:, None]), 1).clamp_min(0.0)
