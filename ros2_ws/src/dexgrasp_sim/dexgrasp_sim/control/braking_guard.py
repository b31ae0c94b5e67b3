"""Keeps body spheres out of boxes by never giving up a way to stop in time.

A state (joint positions, velocities) is called safe if the robot, braking with every joint as hard
as it may, comes to rest without a sphere entering a box. At rest outside all boxes is safe. Each
step either takes a velocity whose next state is certified safe, or brakes; braking from a safe
state leads to a safe state. By induction no sphere ever enters a box, whatever was asked.

The certificate is a lower bound on the gap along the braking path, delta(t) the path's joint
displacement, p(q) a sphere's centre, d its distance from the box, n the gradient of d:

    d(p(q + delta)) >= d(p(q)) + n . J delta - |remainder|

since d is convex and grows no faster than its argument moves, with Taylor's remainder
|remainder| <= 1/2 sum_jk |delta_j| |delta_k| r_max(j,k) <= 1/2 (sum_j |delta_j|) (sum_k r_k |delta_k|)
where joints are counted from the base, and r_k, which falls along the chain, is the length of the
chain from joint k to the sphere, an upper bound of their distance in any posture. n . J delta(t) is
looked at every `stride` steps; between two looks it lies below the chord by at most
stride^2 dt^2 / 8 sum_j r_j a_j, where a_j, the most that joint j's velocity changes in a step,
over dt, is its braking or, if less, what stops it at once.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.control.fabric_body import cross
from dexgrasp_sim.control.motion_limits import MotionLimits

_SHARES = (0.75, 0.5, 0.25)
"""Mixtures of the wanted velocity and braking that are tried, in this order, if that is unsafe."""
_LOOKS = 4
"""Points of the braking path that are looked at."""


class Gaps(NamedTuple):
    """P spheres and B boxes at the present joint positions, batch last.

    Attributes:
        gap: [B, P, N] m, between the surfaces, less the margin.
        normal: [3, B, P, N], from box to sphere.
        position: [3, P, N] m, of the centres.
        screws: [6, J, N], see `PointState`.
    """

    gap: Tensor
    normal: Tensor
    position: Tensor
    screws: Tensor

    def rows(self, indices: Tensor) -> "Gaps":
        """Those of some environments."""
        return Gaps(*(tensor.index_select(-1, indices) for tensor in self))


class BrakingGuard:
    """See the module's docstring."""

    def __init__(self, limits: MotionLimits, moves: Tensor, chain_lengths: Tensor) -> None:
        """Args:
        limits: Of the joints; its braking is the guard's.
        moves: [P, J], 1 where joint j moves sphere p.
        chain_lengths: [P, J] m, from joint j to the sphere's centre along the chain; 0 where it
            does not move it.
        """
        self._limits, self._moves, self._chain_lengths = limits, moves, chain_lengths

    def admit(self, qd: Tensor, wanted: Tensor, gaps: Gaps) -> Tensor:
        """The share of the wanted next velocity, else of braking, that is certified.

        Args:
            qd: [N, J] rad/s, present velocity, of a safe state.
            wanted: [N, J] rad/s, next velocity, admissible by `MotionLimits`.
            gaps: At the present positions.

        Returns:
            [N, J] rad/s, admissible too; the next state is safe.
        """
        safe = self.certify(wanted, gaps)
        braking = self._limits.brake(qd)
        chosen = torch.where(safe[:, None], wanted, braking)
        rows = torch.nonzero(~safe).squeeze(1)
        for share in _SHARES:
            if not len(rows):
                break
            candidate = torch.lerp(braking[rows], wanted[rows], share)
            safe = self.certify(candidate, gaps.rows(rows))
            chosen[rows[safe]] = candidate[safe]
            rows = rows[~safe]
        return chosen

    def certify(self, velocity: Tensor, gaps: Gaps) -> Tensor:
        """[N] bool: whether a step at `velocity` [N, J] leads to a safe state."""
        limits = self._limits
        stride = (limits.braking_steps(velocity).amax(dim=1) / _LOOKS).ceil()
        looks = torch.arange(1, _LOOKS + 1, device=velocity.device, dtype=velocity.dtype)
        path = limits.braking_path(velocity[:, None], (stride[:, None] * looks)[..., None])
        path = path.permute(1, 2, 0)
        spatial = self._moves @ (path[:, None] * gaps.screws)
        moved = cross(spatial[:, :3].transpose(0, 1), gaps.position[:, None])
        x, y, z = moved + spatial[:, 3:].transpose(0, 1)
        normal_x, normal_y, normal_z = gaps.normal
        along = (
            (x[:, None] * normal_x).addcmul_(y[:, None], normal_y).addcmul_(z[:, None], normal_z)
        )
        lowest = along.amin(dim=0)
        swept = path[-1].abs()
        reach = self._chain_lengths @ torch.stack((swept, limits.change(velocity).mT))
        remainder = 0.5 * (self._moves @ swept) * reach[0]
        coarse = stride > 1.0
        bend = torch.where(coarse, stride.square() * limits.dt_s / 8.0, 0.0) * reach[1]
        lowest = lowest - lowest.relu() * coarse
        return (gaps.gap + lowest >= remainder + bend).flatten(0, 1).all(dim=0)
