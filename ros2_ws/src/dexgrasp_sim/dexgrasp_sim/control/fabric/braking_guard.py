"""Keeps body spheres out of boxes by never giving up a way to stop in time.

A state (joint positions, velocities) is called safe if the robot, braking with every joint as hard
as it may, comes to rest without a sphere entering a box. At rest outside all boxes is safe. Each
step either takes a velocity whose next state is certified safe, or brakes; braking from a safe
state leads to a safe state. By induction no sphere ever enters a box, whatever was asked.

The certificate is a lower bound on the gap along the braking path, delta(t) the path's joint
displacement, p(q) a sphere's centre, d its distance from the box, n the gradient of d:

    d(p(q + delta)) >= d(p(q)) + n . J delta - |remainder|

since d is convex and grows no faster than its argument moves, with Taylor's remainder

    |remainder| <= 1/2 sum_jk |delta_j| |delta_k| r_max(j,k)
                <= 1/2 (sum_j |delta_j|) (sum_k r_k |delta_k|)

where joints are counted from the base, and r_k, which falls along the chain, is the length of the
chain from joint k to the sphere, an upper bound of their distance in any posture. n . J delta(t)
is looked at every `stride` steps; between two looks it lies below the chord by at most
stride^2 dt / 8 sum_j r_j c_j, where c_j is how much joint j's velocity changes in a braking step.
Targets between two steps lie on the straight line that joins them, for which all of it holds too.

What is not certified is first turned away from the worst pair of sphere and box, a few times, so
that the robot slides along a box instead of stopping, and then mixed with braking.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.control.fabric.chains import JointChains
from dexgrasp_sim.control.fabric.motion_limits import MotionLimits, VelocityBounds
from dexgrasp_sim.device_graphs import Fused
from dexgrasp_sim.devices import known_empty, rows_to_compute
from dexgrasp_sim.linear_algebra import cross, sum_products, sum_rows

_TURNS = 4
"""How often an unsafe velocity is turned away from a box."""
_SHARES = (0.75, 0.5, 0.25)
"""Shares, the rest being braking, that are tried after that, in this order."""
_OVERSHOOT_M = 2e-4
"""A turn makes up for this much more than is lacking, so that rounding does not decide."""
_LOOKS = 4
"""Points of the braking path that are looked at."""
_TINY = 1e-9


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

    def __init__(self, limits: MotionLimits, chains: JointChains) -> None:
        """Args:
        limits: Of the joints; its braking is the guard's.
        chains: Which joints move which spheres' centres.
        """
        self._limits, self._chains = limits, chains
        self._order = torch.tensor(chains.order, device=limits.acceleration.device)
        self._back = self._order.argsort()
        self._looks = torch.arange(1, _LOOKS + 1).to(limits.acceleration)
        self._lack, self._turn = Fused(self.lack), Fused(self._turn_of)

    def admit(self, qd: Tensor, wanted: Tensor, bounds: VelocityBounds, gaps: Gaps) -> Tensor:
        """A certified next velocity close to the wanted one, else braking.

        Args:
            qd: [N, J] rad/s, present velocity, of a safe state.
            wanted: [N, J] rad/s, next velocity within `bounds`.
            bounds: What the joints can do.
            gaps: At the present positions.

        Returns:
            [N, J] rad/s within the bounds; the next state is safe.
        """
        lack = self._lack(wanted, gaps)
        refused = ~_safe(lack)  # [N]
        rows = rows_to_compute(refused)  # [K]
        if not len(rows):
            return wanted
        open_rows = refused[rows]
        braking, candidate = self._limits.brake(qd[rows]), wanted[rows]
        bounds, gaps, lack = bounds.rows(rows), gaps.rows(rows), lack.index_select(-1, rows)
        chosen = torch.where(open_rows[:, None], braking, candidate)  # [K, J]
        for attempt in range(_TURNS + len(_SHARES)):
            if attempt < _TURNS:
                candidate = bounds.clip(candidate + self._turn(candidate, lack, gaps))
                tried = candidate
            else:
                tried = braking + _SHARES[attempt - _TURNS] * (candidate - braking)
            lack = self._lack(tried, gaps)
            safe = _safe(lack) & open_rows
            chosen = torch.where(safe[:, None], tried, chosen)
            open_rows &= ~safe
            if known_empty(open_rows):
                break
        return wanted.index_copy(0, rows, chosen)

    def lack(self, velocity: Tensor, gaps: Gaps) -> Tensor:
        """By how much a step at `velocity` [N, J] fails to be certified, [B, P, N] m.

        At most zero where sphere p keeps out of box b.
        """
        limits = self._limits
        stride = (limits.braking_steps(velocity).amax(dim=1) / _LOOKS).ceil()
        path = limits.braking_path(velocity[:, None], (stride[:, None] * self._looks)[..., None])
        path = path.permute(1, 2, 0).index_select(1, self._order)  # [looks, J, N]
        turns = torch.stack((path[-1].abs(), limits.change(velocity).mT[self._order]))  # [2, J, N]
        moves = torch.cat(((gaps.screws[:, None] * path).flatten(0, 1), turns))
        moves = self._chains.accumulate_(moves)  # [6 looks + 2, J, N]
        spatial, swept, _ = self._chains.at_points(moves).split((6 * _LOOKS, 1, 1))
        spatial = spatial.unflatten(0, (6, _LOOKS))  # [6, looks, P, N]
        x, y, z = cross(spatial[:3], gaps.position[:, None]) + spatial[3:]
        along = x[:, None] * gaps.normal[0]  # [looks, B, P, N]
        along.addcmul_(y[:, None], gaps.normal[1]).addcmul_(z[:, None], gaps.normal[2])
        lowest = along.amin(dim=0)
        reach, bending_reach = self._chains.reach(moves[-2:])  # [P, N]
        remainder = 0.5 * swept[0] * reach
        coarse = stride > 1.0
        bend = torch.where(coarse, stride.square() * limits.dt_s / 8.0, 0.0) * bending_reach
        lowest = lowest - lowest.relu() * coarse
        return remainder + bend - gaps.gap - lowest

    def _turn_of(self, velocity: Tensor, lack: Tensor, gaps: Gaps) -> Tensor:
        """Change of velocity [N, J] that makes up for the largest lack [B, P, N], if any."""
        worst, pair = lack.flatten(0, 1).max(dim=0)
        sphere = pair % gaps.position.shape[1]
        normal = gaps.normal.flatten(1, 2).gather(1, pair.expand(3, 1, -1)).squeeze(1)  # [3, N]
        center = gaps.position.gather(1, sphere.expand(3, 1, -1)).squeeze(1)
        wrench = torch.cat((cross(center, normal), normal))
        gradient = sum_products(gaps.screws, wrench) * self._chains.moves(sphere)  # [J, N]
        gradient = gradient.index_select(0, self._back)
        weighted = gradient * self._limits.braking_time(velocity).mT
        per_unit = sum_rows(gradient * weighted).clamp_min(_TINY)
        needed = torch.where(worst > 0.0, worst + _OVERSHOOT_M, 0.0)
        return (gradient * (needed / per_unit)).mT


def _safe(lack: Tensor) -> Tensor:
    """[N] bool: no pair lacks anything; what is not a number is not safe."""
    return (lack <= 0.0).flatten(0, 1).all(dim=0)
