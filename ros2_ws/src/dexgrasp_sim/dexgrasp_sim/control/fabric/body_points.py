"""Points fixed to the robot's bodies: where they are, how they move, and how they pull back.

Body k moves with the spatial velocity V_k = sum of S_j qd_j over the joints j between base and k,
where S_j is the joint's screw (axis; moment about the world's origin). Sums over bodies and points
are matrix products with one constant matrix of zeros and ones, "joint j moves point p"
(Featherstone, Rigid Body Dynamics Algorithms, 2008, sections 2 and 6.2).

Tensors here have the batch LAST, [..., N]: then every operation runs over long contiguous rows,
which makes the fabric two to three times as fast on a CPU as with the batch first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp_sim.robot.kinematics import Chain, Kinematics
from dexgrasp_sim.robot.urdf import RobotModel

Vector3 = tuple[float, float, float]

_LANES = 32
"""Elements that a CPU's vector loop takes at once: two registers of 16 float32."""
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
        moves: [P, J], 1 where joint j moves point p.
        chain_lengths: [P, J] m, length of the chain from joint j to point p, an upper bound of
            their distance in any posture; 0 where the joint does not move the point.
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
        self._tree = _JointTree(joints, axes, chains, device, dtype)
        carriers = [chain[-1] for chain in point_chains]
        local = (torch.linalg.inv(joints[carriers]) @ placed[..., None]).squeeze(-1)
        self._read = self._tree.reader(carriers, local).to(**like)
        self.moves = _incidence(point_chains, robot.num_joints).to(**like)
        self._moves_joint = _incidence(chains, robot.num_joints).to(**like)
        lengths = _chain_lengths(joints[:, :3, 3], placed[:, :3], point_chains)
        self.chain_lengths = lengths.to(**like)
        self._symmetric = torch.tensor(_SYMMETRIC, device=device)

    def at(self, q: Tensor, qd: Tensor) -> PointState:
        """The points at joint positions [J, N] rad and velocities [J, N] rad/s."""
        joints, count = len(q), len(self.moves)
        read = self._read @ self._tree.poses(q)
        position, axes, origins = read.split((count, joints, joints), 1)
        screws = torch.cat((axes, cross(origins, axes)))
        rates = screws * qd
        spatial = self.moves @ rates
        velocity = _at_points(spatial, position)
        turning, moving = (self._moves_joint @ rates).split(3)
        axis_rates, moment_rates = rates.split(3)
        change = torch.cat(
            (cross(turning, axis_rates), cross(turning, moment_rates) + cross(moving, axis_rates))
        )
        curvature = _at_points(self.moves @ change, position) + cross(spatial[:3], velocity)
        return PointState(position, velocity, curvature, screws)

    def pull_back_metric(self, state: PointState, metric: Tensor) -> Tensor:
        """Lower triangle of sum over the points of J' M J.

        Args:
            state: Where the points are.
            metric: [6, P, N], each point's symmetric M as (xx, yy, zz, xy, xz, yz).

        Returns:
            [N, J, J], batch first; zero above the diagonal.
        """
        place = state.position[:, None]
        # a point's velocity is (-[p]x I) V: its metric acts on V as [[p]x M [p]x', [p]x M; ., M]
        mixed = cross(place, self._square(metric))
        angular = cross(place, mixed.transpose(0, 1))
        # what joint j carries: the points that it moves
        carried = self.moves.mT @ torch.stack((angular, mixed))
        angular, mixed = carried.unbind()
        linear = self._square(self.moves.mT @ metric)
        axes, moments = state.screws.split(3)
        momentum = torch.cat(
            (
                (angular * axes).sum(1) + (mixed * moments).sum(1),
                (mixed * axes[:, None]).sum(0) + (linear * moments).sum(1),
            )
        )
        # a joint nearer to the base moves all of that as well
        momentum, screws = momentum.permute(2, 1, 0), state.screws.permute(2, 0, 1).contiguous()
        return (momentum.contiguous() @ screws) * self._moves_joint

    def pull_back_force(self, state: PointState, force: Tensor) -> Tensor:
        """Joint forces [F, J, N], sum of J' f, of F sets of forces [3, F, P, N] at the points."""
        wrench = torch.cat((cross(state.position[:, None], force), force))
        return ((self.moves.mT @ wrench) * state.screws[:, None]).sum(0)

    def _square(self, metric: Tensor) -> Tensor:
        """Symmetric matrices [3, 3, K, N] from their six entries [6, K, N]."""
        return metric.index_select(0, self._symmetric).unflatten(0, (3, 3))


class _JointTree:
    """Poses of all joint frames, level by level of the tree, batch last."""

    def __init__(
        self,
        homes: Tensor,
        axes: Tensor,
        chains: Sequence[Sequence[int]],
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        """Args:
        homes: [J, 4, 4] float64, poses of the joint frames at zero.
        axes: [J, 3], in the joint frames.
        chains: Joints from the base to each joint, that one included.
        device: Of the tensors.
        dtype: Of the tensors.
        """
        self._order = sorted(range(len(chains)), key=lambda joint: len(chains[joint]))
        self._axes = axes.to(homes)
        identity = torch.eye(3).to(homes)
        parents = [chains[joint][-2] if len(chains[joint]) > 1 else None for joint in self._order]
        local = torch.stack(
            [
                homes[joint] if parent is None else torch.linalg.inv(homes[parent]) @ homes[joint]
                for joint, parent in zip(self._order, parents, strict=True)
            ]
        )
        # Rodrigues' formula: a turn by q is constant + cos q * even + sin q * odd
        axes = self._axes[self._order, :, None]
        along = axes @ axes.mT
        odd = torch.linalg.cross(axes.expand(-1, 3, 3), identity.expand_as(along), dim=1)
        turns = torch.zeros(3, len(chains), 4, 4).to(homes)
        turns[0, :, :3, :3], turns[0, :, 3, 3] = along, 1.0
        turns[1, :, :3, :3], turns[2, :, :3, :3] = identity - along, odd
        self._turns = (local @ turns)[:, :, :3].permute(0, 2, 3, 1)[..., None].to(device, dtype)
        self._select = torch.tensor(self._order, device=device)
        self._levels = []
        for depth in sorted({len(chain) for chain in chains}):
            rows = [row for row, joint in enumerate(self._order) if len(chains[joint]) == depth]
            above = [self._order.index(chains[self._order[row]][-2]) for row in rows if depth > 1]
            self._levels.append((rows[0], rows[-1] + 1, torch.tensor(above, device=device)))

    def poses(self, q: Tensor) -> Tensor:
        """Poses [3, 4 J, N] at joint positions [J, N] rad, column by column of all joints."""
        q = q.index_select(0, self._select)
        constant, even, odd = self._turns
        local = torch.addcmul(torch.addcmul(constant, q.cos(), even), q.sin(), odd)
        world = local.clone()
        for first, last, above in self._levels[1:]:
            parents = world.index_select(2, above)
            turned = (parents[:, :3, None] * local[None, :, :, first:last]).sum(1)
            turned[:, 3] += parents[:, 3]
            world[:, :, first:last] = turned
        return world.flatten(1, 2)

    def reader(self, carriers: Sequence[int], local: Tensor) -> Tensor:
        """Matrix that reads points, then all joints' axes, then their origins off `poses`.

        Args:
            carriers: Joint whose frame each of P points is fixed to.
            local: [P, 4], the points in those frames, homogeneous.

        Returns:
            [P + 2 J, 4 J].
        """
        joints = len(self._order)
        rows = torch.zeros(len(carriers) + 2 * joints, 4, joints).to(local)
        for point, carrier in enumerate(carriers):
            rows[point, :, self._order.index(carrier)] = local[point]
        for column, joint in enumerate(self._order):
            rows[len(carriers) + joint, :3, column] = self._axes[joint]
            rows[len(carriers) + joints + joint, 3, column] = 1.0
        return rows.flatten(1)


def full_lanes(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Indices [M] of `count` rows and then the last one again, up to whole vector loops.

    The end of a tensor that does not fill a loop is computed by other instructions, which round
    otherwise. With rows enough for whole loops each row's result is the same in any batch, so that
    how environments are split over workers changes nothing.
    """
    whole = -(-count // _LANES) * _LANES
    return torch.arange(whole, device=device).clamp_(max=count - 1)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along the first axis, of length 3; torch's own is slow for that axis."""
    (ax, ay, az), (bx, by, bz) = a.unbind(), b.unbind()
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def _at_points(spatial: Tensor, position: Tensor) -> Tensor:
    """Linear part [3, P, N] of spatial vectors [6, P, N] at points [3, P, N]."""
    return cross(spatial[:3], position) + spatial[3:]


def _incidence(chains: Sequence[Sequence[int]], num_joints: int) -> Tensor:
    """[chains, J]: 1 where the joint is in the chain."""
    matrix = torch.zeros(len(chains), num_joints)
    for row, chain in enumerate(chains):
        matrix[row, list(chain)] = 1.0
    return matrix


def _chain_lengths(origins: Tensor, points: Tensor, chains: Sequence[Sequence[int]]) -> Tensor:
    """See `BodyPoints`; lengths along a chain are the same in any posture."""
    lengths = torch.zeros(len(chains), len(origins)).to(origins)
    for row, chain in enumerate(chains):
        end, length = points[row], torch.zeros(()).to(origins)
        for joint in reversed(chain):
            length = length + (origins[joint] - end).norm()
            lengths[row, joint], end = length, origins[joint]
    return lengths
