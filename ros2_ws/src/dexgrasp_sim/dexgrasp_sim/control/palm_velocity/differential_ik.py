"""Batched differential inverse kinematics: damped least squares with a null-space posture."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from dexgrasp_sim.devices import known_empty
from dexgrasp_sim.linear_algebra import cross, solve, sum_rows
from dexgrasp_sim.robot.kinematics import Chain

_LIMIT_PASSES = 3
"""Solutions per iteration, each with the joints held that the one before put over a limit; out of
reach, two leave the joints swinging twice as often as three, and four are no better."""


class DifferentialIk:
    """Moves joint positions toward a frame pose, a few iterations per control step.

    Damped least squares (Nakamura and Hanafusa 1986, Wampler 1986):
    dq = J' (J J' + D)^-1 (e - J dq0) + dq0, where dq0 pulls toward a rest posture inside the null
    space of the task, and D damps rotations more: out of reach, place matters before attitude. A
    joint that dq would move over its limit is held at the limit and
    the others are solved again (Baerlocher and Boulic 2004).
    """

    def __init__(
        self,
        chain: Chain,
        rest_position: Tensor,
        lower: Tensor,
        upper: Tensor,
        max_step: Tensor,
        damping_m2: float = 1e-3,
        damping_rad2: float = 0.1,
        rest_gain: float = 0.05,
        iterations: int = 2,
    ) -> None:
        """Args:
        chain: Kinematics of the K joints that move the frame.
        rest_position: [K] rad, the posture that redundancy is resolved toward.
        lower: [K] rad joint limits, in chain order like all [K].
        upper: [K] rad joint limits.
        max_step: [K] rad, largest change per call of `solve`.
        damping_m2: Diagonal of D in the rows of translations.
        damping_rad2: The same of rotations. 100 times as much means that 10 cm count like 1 rad.
            Damped alike, the arm kept the palm upright at the expense of its place: 15 of 54
            points of a spawn area of 0.5 x 0.8 m were missed by up to 21 cm, now by at most 2.2.
        rest_gain: Fraction of the way to the rest posture per iteration.
        iterations: Iterations per call of `solve`.
        """
        self._chain = chain
        # joints at rest at zero: sums over a multiple of four joints are short for `sum_rows`
        self._idle = (0, 0, 0, -len(rest_position) % 4)
        self._rest, self._lower, self._upper = (
            pad(each[:, None], self._idle) for each in (rest_position, lower, upper)
        )  # [K, 1]
        self._max_step = pad(max_step[:, None] / iterations, self._idle, value=1.0)
        damping = torch.tensor([damping_m2] * 3 + [damping_rad2] * 3)
        self._regularizer = torch.diag(damping).to(rest_position)[..., None]  # [6, 6, 1]
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
        columns = self._chain.columns
        for _ in range(self._iterations):
            frame = self._chain.forward(position)
            turn = rotation_error(frame.rotation, target_rotation)
            error = torch.cat((target_position - frame.position, turn), dim=1)
            joints = pad(position.index_select(1, columns).mT, self._idle)  # [K, N]
            jacobian = pad(frame.jacobian.permute(1, 2, 0), self._idle)
            step = self._step(jacobian, error.mT[:, None], joints)
            # all joints slow down alike, so that the frame stays on its way
            slowdown = (self._max_step / step.abs()).amin(dim=0).clamp(max=1.0)
            moved = (joints + slowdown * step).clamp(self._lower, self._upper)
            position = position.index_copy(1, columns, moved[: len(columns)].mT)
        return position

    def _step(self, jacobian: Tensor, error: Tensor, joints: Tensor) -> Tensor:
        """Steps [K, N] rad, not over the limits but of any length.

        Args:
            jacobian: [6, K, N].
            error: [6, 1, N].
            joints: [K, N] rad.
        """
        rest_step = self._rest_gain * (self._rest - joints)
        constant = torch.cat((self._regularizer.expand(-1, -1, joints.shape[1]), error), 1)
        step, held = rest_step, torch.zeros_like(joints, dtype=torch.bool)
        for _ in range(_LIMIT_PASSES):
            # held joints make their step, the others what is left of the way
            given = torch.where(held, step, rest_step)
            free = jacobian.masked_fill(held, 0.0)
            factors = torch.cat((free, -given[None]))  # [7, K, N]
            equations = constant + sum_rows(jacobian[:, None] * factors, 2)  # [6, 7, N]
            wanted = joints + (sum_rows(free * solve(equations)) + given)
            inside = wanted.clamp(self._lower, self._upper)
            step, held = inside - joints, held | (inside != wanted)
            if known_empty(held):
                break  # another pass would solve the same equations again
        return step


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
    rotation, target = rotation.permute(1, 2, 0), target.permute(1, 2, 0)  # [3, 3, N]
    return 0.5 * cross(rotation, target).sum(dim=1).mT
