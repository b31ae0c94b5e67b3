"""Batched differential inverse kinematics: damped least squares with a null-space posture."""

import torch
from torch import Tensor

from dexgrasp_sim.devices import known_empty
from dexgrasp_sim.linear_algebra import solve, sum_rows
from dexgrasp_sim.robot.kinematics import Chain

_LIMIT_PASSES = 3
"""Solutions per iteration, each with the joints held that the one before put over a limit; out of
reach, two leave the joints swinging twice as often as three, and four are no better."""


class DifferentialIk:
    """Moves joint positions toward a frame pose, a few iterations per control step.

    Damped least squares (Nakamura and Hanafusa 1986, Wampler 1986):
    dq = J' (J J' + lambda I)^-1 (e - J dq0) + dq0, where dq0 pulls toward a rest posture inside
    the null space of the task. A joint that dq would move over its limit is held at the limit and
    the others are solved again (Baerlocher and Boulic 2004).
    """

    def __init__(
        self,
        chain: Chain,
        rest_position: Tensor,
        lower: Tensor,
        upper: Tensor,
        max_step: Tensor,
        damping: float = 1e-3,
        rest_gain: float = 0.05,
        iterations: int = 2,
    ) -> None:
        """Args:
        chain: Kinematics of the K joints that move the frame.
        rest_position: [K] rad, the posture that redundancy is resolved toward.
        lower: [K] rad joint limits, in chain order like all [K].
        upper: [K] rad joint limits.
        max_step: [K] rad, largest change per call of `solve`.
        damping: lambda, m^2 (rad^2 for the rotational rows).
        rest_gain: Fraction of the way to the rest posture per iteration.
        iterations: Iterations per call of `solve`.
        """
        self._chain = chain
        self._rest, self._lower, self._upper = (
            values[:, None] for values in (rest_position, lower, upper)
        )
        self._max_step = max_step[:, None] / iterations
        self._regularizer = damping * torch.eye(6).to(rest_position)[..., None]
        self._rest_gain = rest_gain
        self._iterations = iterations

    def solve(self, position: Tensor, target_position: Tensor, target_rotation: Tensor) -> Tensor:
        """One call of a few iterations from `position`.

        Args:
            position: [N, J] rad, where to start, in the robot's joint order.
            target_position: [N, 3] m, base frame.
            target_rotation: [N, 3, 3], frame axes as columns, base frame.

        Returns:
            [N, J] rad: the chain's K joints moved, inside their limits; the others unchanged.
        """
        position = position.clone()
        columns = self._chain.joint_indices
        for _ in range(self._iterations):
            frame = self._chain.forward(position)
            turn = rotation_error(frame.rotation, target_rotation)
            error = torch.cat((target_position - frame.position, turn), dim=1)  # [N, 6]
            joints = position[:, columns].mT
            step = self._step(frame.jacobian.permute(1, 2, 0).contiguous(), error.mT, joints)
            # all joints slow down alike, so that the frame stays on its way
            slowdown = (self._max_step / step.abs()).amin(dim=0).clamp(max=1.0)
            position[:, columns] = self._clamp(joints + slowdown * step).mT
        return position

    def _step(self, jacobian: Tensor, error: Tensor, joints: Tensor) -> Tensor:
        """[K, N] rad for an error [6, N], not over the limits but of any length; batch last."""
        rest_step = self._rest_gain * (self._rest - joints)
        held = torch.zeros_like(joints, dtype=torch.bool)  # [K, N]
        step = rest_step
        for _ in range(_LIMIT_PASSES):
            given = torch.where(held, step, rest_step)
            residual = error - sum_rows(jacobian * given, 1)
            free = jacobian.masked_fill(held, 0.0)  # [6, K, N]
            square = sum_rows(free[:, None] * free, 2) + self._regularizer  # [6, 6, N]
            solved = solve(square, residual[:, None])  # [6, 1, N]
            wanted = joints + sum_rows(free * solved) + given
            step = self._clamp(wanted) - joints
            held |= (wanted < self._lower) | (wanted > self._upper)
            if known_empty(held):
                break  # another pass would solve the same equations again
        return step

    def _clamp(self, joints: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(joints, self._lower), self._upper)


def rotation_error(rotation: Tensor, target: Tensor) -> Tensor:
    """Rotation vector in the base frame that turns `rotation` toward `target`.

    Half the sum of the cross products of the axes, sin(angle) times the axis: exact to first
    order and monotonic up to 90 degrees (Luh, Walker and Paul 1980).

    Args:
        rotation: [N, 3, 3], axes as columns.
        target: [N, 3, 3], axes as columns.

    Returns:
        [N, 3] rad.
    """
    return 0.5 * torch.linalg.cross(rotation, target, dim=1).sum(dim=2)
