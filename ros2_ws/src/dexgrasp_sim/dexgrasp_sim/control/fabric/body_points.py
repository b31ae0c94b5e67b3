"""Points fixed to the robot's bodies: where they are, how they move, and how they pull back.

Body k moves with the spatial velocity V_k = sum of S_j qd_j over the joints j between base and k,
where S_j is the joint's screw (axis; moment about the world's origin). Sums over bodies and points
follow the tree of joints (Featherstone, Rigid Body Dynamics Algorithms, 2008, sections 2 and 6.2).

Tensors here have the batch LAST, [..., N]: then every operation runs over long contiguous rows,
which makes the fabric two to three times as fast on a CPU as with the batch first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp_sim.control.fabric.chains import JointChains
from dexgrasp_sim.linear_algebra import cross, sum_products
from dexgrasp_sim.robot.kinematics import Chain, Kinematics, chained
from dexgrasp_sim.robot.model import RobotModel

Vector3 = tuple[float, float, float]

_SYMMETRIC = (0, 3, 4, 3, 1, 5, 4, 5, 2)
"""Where the entries of a symmetric 3x3 matrix, row by row, stand in (xx, yy, zz, xy, xz, yz)."""


@dataclass(frozen=True)
class PointState:
    """P points of the robot at one joint position and velocity, in `base`, batch last.

    Attributes:
        position: [3, P, N], m.
        velocity: [3, P, N], m/s.
        curvature: [3, P, N], m/s2: their acceleration at zero joint acceleration, Jdot qd.
        screws: [6, J, N]: per joint the axis, then its moment about the origin (m).
    """

    position: Tensor
    velocity: Tensor
    curvature: Tensor
    screws: Tensor


class BodyPoints:
    """Kinematics of P points fixed to frames of the robot.

    Attributes:
        chains: Which joints move which points.
    """

    def __init__(
        self,
        robot: RobotModel,
        points: Sequence[tuple[str, Vector3]],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Prepares the constant matrices.

        Args:
            robot: The robot; its joints must stand behind their parents in `joint_names`.
            points: Frame and offset in it (m) of each point; every frame is moved by some joint.
            device: Where all tensors live.
            dtype: Of all tensors.

        Raises:
            ValueError: The robot lacks a frame, a frame is fixed to the base, or the joint order
                is not base first.
        """
        frames = [robot.joints[name].child for name in robot.joint_names]
        chains = [Chain(robot, frame).joint_indices for frame in frames]
        if any(chain != sorted(chain) for chain in chains):
            raise ValueError(f"{robot.name}: joints must be ordered base first")
        point_chains = [Chain(robot, frame).joint_indices for frame, _ in points]
        zero = torch.zeros(1, robot.num_joints, dtype=torch.float64)
        kinematics = Kinematics(robot, [*frames, *(f for f, _ in points)], dtype=zero.dtype)
        poses = kinematics.forward(zero)
        homes = torch.eye(4, dtype=zero.dtype).repeat(poses.position.shape[1], 1, 1)
        homes[:, :3, :3], homes[:, :3, 3] = poses.rotation[0], poses.position[0]
        joints, homes = homes[: robot.num_joints], homes[robot.num_joints :]
        offsets = torch.tensor([(*offset, 1.0) for _, offset in points], dtype=zero.dtype)
        placed = (homes @ offsets[..., None]).squeeze(-1)
        axes = torch.tensor([robot.joints[name].axis for name in robot.joint_names])
        like = {"device": device, "dtype": dtype}
        carriers = [chain[-1] for chain in point_chains]
        local = (torch.linalg.inv(joints[carriers]) @ placed[..., None]).squeeze(-1)
        parents = [chain[-2] if len(chain) > 1 else None for chain in chains]
        origins = joints[:, :3, 3].to(**like)
        self.chains = JointChains(parents, carriers, origins, placed[:, :3].to(**like))
        self._tree = _JointTree(joints, axes, parents, self.chains, **like)
        self._local = local.mT[..., None].to(**like)  # [4, P, 1]
        self._order = torch.tensor(self.chains.order, device=device)
        self._back = self._order.argsort()
        self._half_below = _half_below(chains)[..., None].to(**like)  # [J, J, 1]
        self._symmetric = torch.tensor(_SYMMETRIC, device=device)

    def positions(self, q: Tensor) -> Tensor:
        """Where the points are, [3, P, N] m in `base`, at joint positions [J, N] rad."""
        return self._positions(self._poses(q))

    def _poses(self, q: Tensor) -> Tensor:
        """[3, 4, J, N], of the joints in `JointChains.order`."""
        return self._tree.poses(q.index_select(0, self._order))

    def _positions(self, poses: Tensor) -> Tensor:
        return (self._local * self.chains.at_points(poses)).sum(1)

    def at(self, q: Tensor, qd: Tensor) -> PointState:
        """The points at joint positions [J, N] rad and velocities [J, N] rad/s."""
        poses = self._poses(q)
        position = self._positions(poses)
        axes, origins = (self._tree.axes * poses[:, :3]).sum(1), poses[:, 3]
        screws = torch.cat((axes, cross(origins, axes)))  # [6, J, N]
        rates = screws * qd.index_select(0, self._order)
        bodies = self.chains.accumulate_(rates.clone())
        # how the screws turn and move with the bodies
        turns = rates.unflatten(0, (2, 3)).transpose(0, 1)  # [3, 2, J, N]
        angular, linear = cross(bodies[:3, None], turns).unbind(1)
        change = torch.cat((angular, linear + cross(bodies[3:], rates[:3])))
        change = self.chains.accumulate_(change)
        both = self.chains.at_points(torch.stack((bodies, change), 1))  # [6, 2, P, N]
        velocity, curvature = (cross(both[:3], position[:, None]) + both[3:]).unbind(1)
        curvature = curvature + cross(both[:3, 0], velocity)
        return PointState(position, velocity, curvature, screws)

    def pull_back(
        self, state: PointState, metric: Tensor, forces: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums over the points of J' M J and J' f, in the robot's joint order.

        Args:
            state: Where the points are.
            metric: [6, P, N], each point's symmetric M as (xx, yy, zz, xy, xz, yz).
            forces: [3, F, P, N], F sets of forces f.

        Returns:
            [J, J, N] and [F, J, N].
        """
        sets = forces.shape[1]
        given = torch.cat((metric, state.position, forces.flatten(0, 1)))
        metric, place, forces = self.chains.by_round(given).split((6, 3, 3 * sets))
        place, forces = place[:, None], forces.unflatten(0, (3, sets))  # [3, 1 or F, P, N]
        # a point's velocity is (-[p]x I) V: its metric acts on V as [[p]x M [p]x', [p]x M; ., M]
        mixed = cross(place, self._square(metric))  # [3, 3, P, N]
        angular = cross(place, torch.cat((mixed.transpose(0, 1), forces), 1))  # [3, 3 + F, P, N]
        parts = [part.flatten(0, 1) for part in (mixed, angular, forces)]
        # what joint j carries: the points that it moves
        carried = self.chains.collect(torch.cat((metric, *parts)))
        metric, mixed, angular, forces = carried.split((6, 9, 9 + 3 * sets, 3 * sets))
        axes, moments = state.screws.split(3)
        mixed, angular = mixed.unflatten(0, (3, 3)), angular.unflatten(0, (3, -1))
        turning = sum_products((*angular[:, :3], *mixed.transpose(0, 1)), (*axes, *moments))
        moving = sum_products((*mixed, *self._square(metric)), (*axes, *moments))
        wrenches = *angular[:, 3:], *forces.unflatten(0, (3, sets))
        pulled = sum_products(wrenches, state.screws)
        parts = torch.cat((turning, moving, state.screws, pulled)).index_select(1, self._back)
        momentum, screws, pulled = parts.split((6, 6, sets))
        # a joint nearer to the base moves all that this one carries as well
        below = sum_products(momentum[:, :, None], screws[:, None]).mul_(self._half_below)
        return below + below.transpose(0, 1), pulled

    def _square(self, metric: Tensor) -> Tensor:
        """Symmetric matrices [3, 3, K, N] from their six entries [6, K, N]."""
        return metric.index_select(0, self._symmetric).unflatten(0, (3, 3))


class _JointTree:
    """Poses of all joint frames, batch last; joints in `JointChains.order`.

    Attributes:
        axes: [3, J, 1], in the joint frames.
    """

    def __init__(
        self,
        homes: Tensor,
        axes: Tensor,
        parents: Sequence[int | None],
        chains: JointChains,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        """Args:
        homes: [J, 4, 4] float64, poses of the joint frames at zero, in the robot's order.
        axes: [J, 3], in the joint frames, in the robot's order.
        parents: Of each joint, in the robot's order.
        chains: The tree.
        device: Of the tensors.
        dtype: Of the tensors.
        """
        self._chains = chains
        axes = axes.to(homes)[chains.order, :, None]
        self.axes = axes.squeeze(2).mT[..., None].to(device, dtype)  # [3, J, 1]
        identity = torch.eye(3).to(homes)
        before = [torch.eye(4).to(homes) if p is None else homes[p] for p in parents]
        local = (torch.linalg.inv(torch.stack(before)) @ homes)[chains.order]
        # Rodrigues' formula: a turn by q is constant + cos q * even + sin q * odd
        along = axes @ axes.mT
        odd = torch.linalg.cross(axes.expand(-1, 3, 3), identity.expand_as(along), dim=1)
        turns = torch.zeros(3, len(homes), 4, 4).to(homes)
        turns[0, :, :3, :3], turns[0, :, 3, 3] = along, 1.0
        turns[1, :, :3, :3], turns[2, :, :3, :3] = identity - along, odd
        self._turns = (local @ turns).permute(0, 2, 3, 1)[..., None].to(device, dtype)

    def poses(self, q: Tensor) -> Tensor:
        """Poses [3, 4, J, N] of the joints at joint positions [J, N] rad."""
        constant, even, odd = self._turns
        poses = torch.addcmul(torch.addcmul(constant, q.cos(), even), q.sin(), odd)
        for parents, own in self._chains.walk(poses):
            own[:3] = chained(parents[:3], own)
        return poses[:3]


def _half_below(chains: Sequence[Sequence[int]]) -> Tensor:
    """[J, J]: 1 where the column's joint moves the row's, 1/2 on the diagonal, else 0."""
    matrix = 0.5 * torch.eye(len(chains))
    for row, chain in enumerate(chains):
        matrix[row, list(chain[:-1])] = 1.0
    return matrix
