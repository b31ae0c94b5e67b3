"""Batched differential inverse kinematics: damped least squares with a null-space posture."""

import torch
from torch import Tensor

from dexgrasp_sim.robot.kinematics import Chain

_MAX_JOINT_STEP_RAD = 0.2
"""Largest change of a joint in one iteration; keeps a far target from folding the arm."""


class DifferentialIk:
    """Moves joint positions toward a frame pose, a few iterations per control step.

    Damped least squares (Nakamura and Hanafusa 1986, Wampler 1986):
    dq = J' (J J' + lambda I)^-1 (e - J dq0) + dq0, where dq0 pulls toward a rest posture inside
    the null space of the task.
    """

    def __init__(
        self,
        chain: Chain,
        rest_position: Tensor,
        lower: Tensor,
        upper: Tensor,
        damping: float = 1e-3,
        rest_gain: float = 0.05,
        iterations: int = 2,
    ) -> None:
        """Args:
        chain: Kinematics of the K joints that move the frame.
        rest_position: [K] rad, the posture that redundancy is resolved toward.
        lower: [K] rad joint limits, in chain order like all [K].
        upper: [K] rad joint limits.
        damping: lambda, m^2 (rad^2 for the rotational rows).
        rest_gain: Fraction of the way to the rest posture per iteration.
        iterations: Iterations per call of `solve`.
        """
        self._chain = chain
        self._rest = rest_position
        self._lower = lower
        self._upper = upper
        self._regularizer = damping * torch.eye(6, dtype=rest_position.dtype)
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
            error = torch.cat(
                (
                    target_position - frame.position,
                    rotation_error(frame.rotation, target_rotation),
                ),
                dim=1,
            )
            joints = position[:, columns]
            rest_step = self._rest_gain * (self._rest - joints)
            residual = error.unsqueeze(2) - frame.jacobian @ rest_step.unsqueeze(2)
            transposed = frame.jacobian.transpose(1, 2)
            factor = torch.linalg.cholesky(frame.jacobian @ transposed + self._regularizer)
            step = (transposed @ torch.cholesky_solve(residual, factor)).squeeze(2) + rest_step
            joints = joints + step.clamp(-_MAX_JOINT_STEP_RAD, _MAX_JOINT_STEP_RAD)
            position[:, columns] = torch.minimum(torch.maximum(joints, self._lower), self._upper)
        return position


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
