"""Keeps body spheres out of boxes by never giving up a way to stop in time.

A state (joint positions, velocities) is called safe if the robot, braking with every joint as hard
as it may, comes to rest without a sphere entering a hard obstacle. At rest outside all obstacles is
safe. Each step either takes a velocity whose next state is certified safe, or brakes; braking from
a safe state leads to a safe state. By induction no sphere ever enters, whatever was asked.

The certificate is a lower bound on the gap along the braking path, delta(t) the path's joint
displacement, p(q) a sphere's centre, d the distance to the box, n its gradient:

    d(p(q + delta)) >= d(p(q)) + n . J delta - |remainder|

since d is convex and grows no faster than its argument moves, with Taylor's remainder
|remainder| <= 1/2 sum_jk |delta_j| |delta_k| r_max(j,k) <= 1/2 (sum_j |delta_j|) (sum_k r_k |delta_k|)
where joints are counted from the base, and r_k, which falls along the chain, is the length of the
chain from joint k to the sphere, an upper bound of their distance in any posture. n . J delta(t) is
looked at every `stride` steps; between two looks it lies below the chord by at most
stride^2 dt^2 / 8 sum_j r_j A_j, because no joint brakes harder than A_j.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.control.motion_limits import MotionLimits

_SHARES = (0.75, 0.5, 0.25)
"""Mixtures of the wanted velocity and braking that are tried, in this order, if that is unsafe."""
_LOOKS = 8
"""Points of the braking path that are looked at."""


class Gaps(NamedTuple):
    """Q pairs of a sphere and a hard obstacle.

    Attributes:
        gap: [N, Q] m, between the surfaces, less the margin.
        gradient: [N, Q, J], derivative by joint, m/rad.
    """

    gap: Tensor
    gradient: Tensor


class BrakingGuard:
    """See the module's docstring."""

    def __init__(self, limits: MotionLimits, moves: Tensor, chain_lengths: Tensor) -> None:
        """Args:
        limits: Of the joints; its braking is the guard's.
        moves: [Q, J], 1 where joint j moves the sphere of pair q.
        chain_lengths: [Q, J] m, from joint j to that sphere's centre along the chain; 0 where
            it does not move it.
        """
        self._limits = limits
        self._moves, self._chain_lengths = moves, chain_lengths
        self._bend = limits.dt_s**2 / 8.0 * (chain_lengths @ limits.acceleration)

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
            safe = self.certify(candidate, Gaps(gaps.gap[rows], gaps.gradient[rows]))
            chosen[rows[safe]] = candidate[safe]
            rows = rows[~safe]
        return chosen

    def certify(self, velocity: Tensor, gaps: Gaps) -> Tensor:
        """[N] bool: whether a step at `velocity` [N, J] leads to a safe state."""
        limits = self._limits
        last = limits.braking_steps(velocity).amax(dim=1)
        stride = (last / _LOOKS).ceil()
        looks = torch.arange(1, _LOOKS + 1, device=velocity.device, dtype=velocity.dtype)
        path = limits.braking_path(velocity[:, None], (stride[:, None] * looks)[..., None])
        along = gaps.gradient @ path.mT
        swept = path[:, -1].abs()
        remainder = 0.5 * (swept @ self._moves.mT) * (swept @ self._chain_lengths.mT)
        lowest = along.amin(dim=2)
        coarse = lowest.clamp(max=0.0) - stride.square()[:, None] * self._bend
        lowest = torch.where((stride > 1.0)[:, None], coarse, lowest)
        return (gaps.gap + lowest - remainder >= 0.0).all(dim=1)
