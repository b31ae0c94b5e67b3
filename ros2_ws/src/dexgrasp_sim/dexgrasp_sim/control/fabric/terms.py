"""Terms of the fabric: each gives a metric and an acceleration in its own task space.

Formulas and numbers of the DEXTRAH fabric unless a docstring says "own choice". A term's
acceleration is either a pull that does not depend on speed (forcing), or one that grows with the
speed squared and so bends a path without changing how fast it is gone (geometric).
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.fabric.obstacles import Nearest
from dexgrasp_sim.linear_algebra import sum_rows

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class AttractorGains:
    """A pull of constant strength toward a goal, that fades and is damped close to it.

    Attributes:
        metric: Weight against the other terms.
        acceleration: Strength of the pull far from the goal, task units/s2.
        sharpness: Inverse of the distance at which the pull starts to fade, 1/task unit.
        damping_per_s: Damping at the goal.
        damping_radius: Distance at which the damping has fallen to half, task units.
        damping_sharpness: How steeply it falls there, 1/task unit.
    """

    metric: Positive
    acceleration: Positive = 50.0
    sharpness: Positive = 40.0
    damping_per_s: NonNegative = 50.0
    damping_radius: Positive = 0.2
    damping_sharpness: Positive = 10.0


@dataclass(frozen=True, config=STRICT)
class PostureGains:
    """The geometric pull that resolves redundancy toward a posture.

    Attributes:
        metric: Weight against the other terms.
        gain: Acceleration per squared speed far from the posture, 1/rad.
        sharpness: Inverse of the distance at which the pull starts to fade, 1/rad.
    """

    metric: Positive = 1.0
    gain: NonNegative = 1.0
    sharpness: Positive = 20.0


@dataclass(frozen=True, config=STRICT)
class LimitGains:
    """Barrier of each joint limit.

    Attributes:
        metric: Weight is metric / max(gap - offset, floor)^2.
        offset_rad: See `metric`.
        floor_rad: See `metric`.
        acceleration_rad_s2: Push away from the limit.
        damping_per_s: Damping of an approach.
        approach_sharpness_s_rad: How steeply metric and push come on with the approach speed. Own
            choice: DEXTRAH switches them on at zero, which makes a joint near its limit chatter.
    """

    metric: NonNegative = 0.02
    offset_rad: NonNegative = 0.1
    floor_rad: Positive = 0.01414
    acceleration_rad_s2: NonNegative = 8.0
    damping_per_s: NonNegative = 8.0
    approach_sharpness_s_rad: Positive = 5.0


@dataclass(frozen=True, config=STRICT)
class RepulsionGains:
    """Repulsion of body spheres by boxes and of the hand by the upper arm.

    Attributes:
        metric_m2: A sphere's weight is metric / max(least gap, floor)^2.
        floor_m: See `metric_m2`. Own choice, half of DEXTRAH's: then the push holds off a palm
            whose goal lies behind the obstacle, and the guard need not.
        reach_m: Obstacles farther away than this do not count.
        acceleration_m_s2: Forcing push at contact.
        push_reach_m: It falls to nothing at this gap. Own choice: DEXTRAH's reaches as far as the
            rest, so that redundant joints of a resting robot drift for minutes.
        geometric_gain_per_m: Geometric push per squared speed.
        leaving_sharpness_s_m: How steeply the repulsion goes off when the sphere begins to leave
            the obstacle. Own choice: DEXTRAH's 1000 makes a sphere that rests near an obstacle
            chatter at 60 Hz.
    """

    metric_m2: NonNegative = 0.01
    floor_m: Positive = 0.005
    reach_m: Positive = 0.5
    acceleration_m_s2: NonNegative = 1.0
    push_reach_m: Positive = 0.05
    geometric_gain_per_m: NonNegative = 5.0
    leaving_sharpness_s_m: Positive = 50.0


class PointTerm(NamedTuple):
    """A term at P points: metrics [6, P, N] as (xx, yy, zz, xy, xz, yz) and forces [3, P, N].

    The forces are what acts on the point: metric times acceleration.
    """

    metric: Tensor
    geometric: Tensor
    forcing: Tensor


class JointTerm(NamedTuple):
    """A term per joint: metric and force, both [J, N]."""

    metric: Tensor
    force: Tensor


def attract(error: Tensor, velocity: Tensor, gains: AttractorGains) -> Tensor:
    """Acceleration [K, N] of a task that lies `error` [K, N] from its goal."""
    distance = sum_rows(error.square()).sqrt()
    pull = gains.acceleration * (gains.sharpness * distance).tanh() / distance.clamp_min(1e-6)
    fall = (gains.damping_sharpness * (gains.damping_radius - distance)).tanh()
    return -pull * error - 0.5 * gains.damping_per_s * (1.0 + fall) * velocity


def posture_pull(error: Tensor, velocity: Tensor, gains: PostureGains) -> Tensor:
    """Geometric acceleration [J, N] of joints that lie `error` [J, N] from the posture."""
    squares = sum_rows(torch.stack((error, velocity), 1).square())  # [2, N]
    distance = squares[0].sqrt()
    fade = (gains.sharpness * distance).tanh() / distance.clamp_min(1e-6)
    return -gains.gain * squares[1] * fade * error


def limit_barrier(
    q: Tensor, qd: Tensor, lower: Tensor, upper: Tensor, gains: LimitGains
) -> JointTerm:
    """The barriers of both limits [J, 1] at joint positions and velocities [J, N]."""
    gap = torch.stack((q - lower, upper - q))
    opening = torch.stack((qd, -qd))
    gate = (-gains.approach_sharpness_s_rad * opening).relu_().tanh_()
    weight = gains.metric / (gap - gains.offset_rad).clamp_min(gains.floor_rad).square()
    metric = gate * weight
    force = metric * (gains.acceleration_rad_s2 * gate - gains.damping_per_s * opening)
    return JointTerm(metric[0] + metric[1], force[0] - force[1])


def repel(
    nearest: Nearest, clearance: Tensor, velocity: Tensor, gains: RepulsionGains
) -> PointTerm:
    """Repulsion of P spheres by B obstacles.

    The obstacles' metrics n n', n the direction away, are averaged with weights that fall with the
    gap as 1 / gap - 1 / reach (DEXTRAH: 1 / gap up to the reach, and it divides the sum by its
    Frobenius norm; close to an obstacle that is the same, but it jumps at the reach).

    Args:
        nearest: From the P centres to the B obstacles.
        clearance: [B, P, 1] m, distance at which the gap is zero: the radii; minus infinity where
            the obstacle does not count for the sphere.
        velocity: [3, P, N] m/s of the centres.
        gains: Strengths.
    """
    gap = (nearest.distance - clearance).clamp_min_(gains.floor_m)
    least = gap.amin(0)
    strength = gains.metric_m2 / least.square()
    weight = gap.reciprocal_().sub_(1.0 / gains.reach_m).relu_()
    strength = strength / (sum_rows(weight) + 1.0 / gains.reach_m)
    x, y, z = nearest.normal.unbind()
    vx, vy, vz = 2.0 * gains.leaving_sharpness_s_m * velocity
    # torch's own logistic function rounds otherwise where a row ends
    gate = (x * vx).addcmul_(y, vy).addcmul_(z, vz).exp_().add_(1.0).reciprocal_()
    push = nearest.normal * gate.mul_(weight).mul_(strength)  # [3, B, P, N]
    squares = sum_rows(push * nearest.normal, 1)
    xy_yz = sum_rows(push[:2] * nearest.normal[1:], 1)
    xz = sum_rows(push[0] * z)[None]
    push = sum_rows(push, 1)  # [3, P, N]
    return PointTerm(
        torch.cat((squares, xy_yz[:1], xz, xy_yz[1:])),
        gains.geometric_gain_per_m * sum_rows(velocity.square()) * push,
        gains.acceleration_m_s2 * (1.0 - least / gains.push_reach_m).relu() * push,
    )


def apply_metric(metric: Tensor, vector: Tensor) -> Tensor:
    """M v [3, P, N] of symmetric metrics [6, P, N] and vectors [3, P, N]."""
    xx, yy, zz, xy, xz, yz = metric
    x, y, z = vector
    return torch.stack(
        (
            (xx * x).addcmul_(xy, y).addcmul_(xz, z),
            (xy * x).addcmul_(yy, y).addcmul_(yz, z),
            (xz * x).addcmul_(yz, y).addcmul_(zz, z),
        )
    )
