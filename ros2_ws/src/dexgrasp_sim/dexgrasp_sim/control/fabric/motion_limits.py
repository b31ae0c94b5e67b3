"""Limits that a sequence of joint targets keeps by construction, whatever is asked of it.

The sequence q_k has the step dt. Its derivatives are backward differences, so that anyone can
measure them on the output:

    velocity v_k = (q_k - q_k-1) / dt    acceleration a_k = (v_k - v_k-1) / dt
    jerk j_k = (a_k - a_k-1) / dt

Jerk: accelerations within +-min(acceleration limit, jerk limit * dt / 2) differ by no more than
jerk limit * dt (DEXTRAH). This bound is written A below.

Position: joint j may move toward its upper limit U at no more than w(U - q), the root of
w^2 / (2 A) + dt w = U - q. Let the next velocity v obey it. Then q' = q + dt v <= U, and at q' the
velocity v - A dt (or 0 if that is negative) obeys it again, since
(v - A dt)^2 / (2 A) + dt (v - A dt) = v^2 / (2 A) - A dt^2 / 2 < v^2 / (2 A) <= U - q'.
So a joint that once obeyed it can always brake in time, with A. The lower limit is alike.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_TINY = 1e-12


class VelocityBounds(NamedTuple):
    """Lowest and highest next velocities [N, J], rad/s; braking lies between them."""

    lowest: Tensor
    highest: Tensor

    def clip(self, velocity: Tensor) -> Tensor:
        """Velocities [N, J] brought between the bounds."""
        return velocity.clamp(self.lowest, self.highest)

    def rows(self, indices: Tensor) -> "VelocityBounds":
        """Those of some environments."""
        return VelocityBounds(self.lowest[indices], self.highest[indices])


class MotionLimits:
    """Position, velocity, acceleration and jerk limits of J joints, for a given time step.

    Attributes:
        acceleration: [J], the bound A of the module's docstring, rad/s2.
        dt_s: The time step.
    """

    def __init__(
        self,
        lower: Tensor,
        upper: Tensor,
        velocity: Tensor,
        acceleration: Tensor,
        jerk: Tensor,
        dt_s: float,
    ) -> None:
        """All limits [J], in rad, rad/s, rad/s2 and rad/s3."""
        self._lower, self._upper, self._velocity = lower, upper, velocity
        self.acceleration = torch.minimum(acceleration, 0.5 * jerk * dt_s)
        self.dt_s = dt_s
        self._max_change = self.acceleration * dt_s

    def bounds(self, q: Tensor, qd: Tensor) -> VelocityBounds:
        """Admissible next velocities.

        Args:
            q: [N, J] rad, at which every joint can brake in time (see the module).
            qd: [N, J] rad/s.
        """
        fastest = self._fastest(torch.stack((q - self._lower, self._upper - q)))  # [2, N, J]
        down, up = torch.minimum(fastest, self._velocity).unbind()
        return VelocityBounds(
            torch.maximum(-down, qd - self._max_change), torch.minimum(up, qd + self._max_change)
        )

    def next_velocity(self, qd: Tensor, qdd: Tensor, bounds: VelocityBounds) -> Tensor:
        """The admissible next velocity [N, J] closest in kind to what is wanted.

        One factor for all joints shrinks the acceleration to its bound and another the velocity
        that results, so that directions are kept; then each joint is clipped to what it can do.

        Args:
            qd: [N, J] rad/s.
            qdd: [N, J] rad/s2, wanted; what is not finite becomes full braking of the whole robot.
            bounds: At `qd`.
        """
        finite = qdd.abs().amax(dim=1, keepdim=True) < torch.inf
        wanted = qd + _shrink(self.dt_s * torch.where(finite, qdd, 0.0), self._max_change)
        wanted = torch.where(finite, _shrink(wanted, self._velocity), self.brake(qd))
        return bounds.clip(wanted)

    def brake(self, qd: Tensor) -> Tensor:
        """Next velocities [N, J] when every joint brakes as hard as it may; always admissible."""
        return qd - qd.clamp(-self._max_change, self._max_change)

    def change(self, qd: Tensor) -> Tensor:
        """How much of their speed [N, J] braking joints lose in a step, rad/s."""
        return torch.minimum(qd.abs(), self._max_change)

    def advance(self, q: Tensor, velocity: Tensor) -> Tensor:
        """Next joint positions [N, J]; the clamp only takes off rounding errors."""
        return (q + self.dt_s * velocity).clamp(self._lower, self._upper)

    def braking_steps(self, velocity: Tensor) -> Tensor:
        """Steps [N, J] (whole floats, at least 1) that end at rest: one at `velocity`, then
        braking.
        """
        return (velocity.abs() / self._max_change).ceil().clamp_min(1.0)

    def braking_path(self, velocity: Tensor, steps: Tensor) -> Tensor:
        """Displacements of a joint that goes at `velocity` for a step and then brakes.

        Args:
            velocity: [N, 1, J] rad/s.
            steps: [N, K, 1], whole floats, after how many steps.

        Returns:
            [N, K, J] rad: dt (|v| + (|v| - A dt) + ...), `steps` terms and none below zero.
        """
        speed = velocity.abs()
        moving = torch.minimum(steps, self.braking_steps(velocity))
        travel = moving * (speed - 0.5 * self._max_change * (moving - 1.0))
        return (self.dt_s * travel).copysign(velocity)

    def braking_time(self, velocity: Tensor) -> Tensor:
        """[N, J] s: displacement on the whole braking path over the velocity that begins it."""
        steps = self.braking_steps(velocity)
        speed = velocity.abs().clamp_min(_TINY)
        return self.dt_s * (steps - 0.5 * self._max_change * steps * (steps - 1.0) / speed)

    def _fastest(self, gap: Tensor) -> Tensor:
        """w(gap) of the module's docstring, in the form that keeps its digits for small gaps."""
        squared = 2.0 * self.acceleration * gap.clamp_min(0.0)
        root = (self._max_change.square() + squared).sqrt()
        return squared / (root + self._max_change)


def _shrink(vectors: Tensor, bounds: Tensor) -> Tensor:
    """Each row of [N, J] times the largest factor up to 1 that fits it into +-bounds [J]."""
    factor = (bounds / vectors.abs().clamp_min(_TINY)).amin(dim=1, keepdim=True)
    return vectors * factor.clamp(max=1.0)
