"""Points fixed to the robot's bodies: where they are, how they move, and how they pull back.

Body k moves with the spatial velocity V_k = sum of S_j qd_j over the joints j between base and k,
where S_j is the joint's screw (axis; moment about the world's origin). Sums over bodies and points
are matrix products with one constant matrix of zeros and ones, "joint j moves point p", for the
whole batch at once (Featherstone, Rigid Body Dynamics Algorithms, 2008, sections 2 and 6.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexgrasp_sim.robot.kinematics import Chain, Kinematics
from dexgrasp_sim.robot.kuka_allegro import FINGERS, PALM
from dexgrasp_sim.robot.urdf import RobotModel

Vector3 = tuple[float, float, float]

_SYMMETRIC = (0, 3, 4, 3, 1, 5, 4, 5, 2)
"""Where the entries of a symmetric 3x3 matrix, row by row, stand in (xx, yy, zz, xy, xz, yz)."""


@dataclass(frozen=True)
class BodySphere:
    """A sphere that stands for a part of the robot.

    Attributes:
        frame: The frame it is fixed to.
        radius_m: Its radius.
        offset_m: Its centre in that frame.
    """

    frame: str
    radius_m: float
    offset_m: Vector3 = (0.0, 0.0, 0.0)


def _finger_spheres(finger: str) -> tuple[BodySphere, ...]:
    links = [f"{finger}_link_{number}" for number in range(4)]
    places = (
        ((1, 0.0), (1, 0.027), (2, 0.0), (3, 0.0))
        if finger != "thumb"
        else ((1, 0.0), (2, 0.0), (2, 0.025), (3, 0.0), (3, 0.025))
    )
    tip = (0.055 if finger == "thumb" else 0.035, 0.005, 0.0)
    along = (BodySphere(links[link], 0.02, (x, 0.0, 0.0)) for link, x in places)
    return (*along, BodySphere(links[3], 0.02, tip))


_UPPER_ARM = (
    BodySphere("iiwa7_link_2", 0.12),
    BodySphere("iiwa7_link_2", 0.10, (0.0, 0.15, 0.0)),
    BodySphere("iiwa7_link_2", 0.10, (0.0, 0.25, 0.0)),
)
_FOREARM = (
    BodySphere("iiwa7_link_4", 0.125),
    BodySphere("iiwa7_link_4", 0.10, (0.0, 0.15, 0.0)),
    BodySphere("iiwa7_link_4", 0.10, (0.0, 0.25, 0.0)),
    BodySphere("iiwa7_link_6", 0.10, (0.0, 0.0, 0.05)),
    BodySphere("iiwa7_link_7", 0.075),
    BodySphere("allegro_mount", 0.05),
)
_HAND = (
    BodySphere(PALM, 0.075, (0.0, 0.01, -0.05)),
    *(sphere for finger in FINGERS for sphere in _finger_spheres(finger)),
)
BODY_SPHERES = (*_UPPER_ARM, *_FOREARM, *_HAND)
"""The 31 spheres of the DEXTRAH fabric."""
UPPER_ARM_SPHERES = tuple(range(3))
"""Those of `BODY_SPHERES` that the hand must keep off."""
HAND_SPHERES = tuple(range(9, 31))
"""Palm and fingers among `BODY_SPHERES`."""


@dataclass(frozen=True)
class PointState:
    """P points of the robot at one joint position and velocity, in `base`.

    Attributes:
        position: [N, 3, P], m.
        velocity: [N, 3, P], m/s.
        curvature: [N, 3, P], m/s2: their acceleration at zero joint acceleration, Jdot qd.
        screws: [N, 6, J]: per joint the axis, then its moment about the origin (m).
    """

    position: Tensor
    velocity: Tensor
    curvature: Tensor
    screws: Tensor


class BodyPoints:
    """Kinematics of P points fixed to frames of the robot."""

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
            points: Frame and offset in it (m) of each point.
            device: Where all tensors live.
            dtype: Of all tensors.

        Raises:
            ValueError: The robot lacks a frame, or its joint order is not base first.
        """
        like = {"device": device, "dtype": dtype}
        joint_frames = [robot.joints[name].child for name in robot.joint_names]
        frames = list(dict.fromkeys([*joint_frames, *(frame for frame, _ in points)]))
        self._kinematics = Kinematics(robot, frames, device, dtype)
        axes = [(robot.joints[name].child, robot.joints[name].axis) for name in robot.joint_names]
        self._axes = _in_frames(frames, axes).to(**like)
        self._offsets = _in_frames(frames, points).to(**like)
        self._rows = torch.tensor([frames.index(frame) for frame, _ in points], device=device)
        self._num_joints = robot.num_joints
        chains = [Chain(robot, frame).joint_indices for frame in joint_frames]
        if any(chain != sorted(chain) for chain in chains):
            raise ValueError(f"{robot.name}: joints must be ordered base first")
        moves = torch.zeros(2, robot.num_joints, max(len(points), robot.num_joints))
        for column, chain in enumerate(chains):
            moves[0, chain, column] = 1.0
        for column, (frame, _) in enumerate(points):
            moves[1, Chain(robot, frame).joint_indices, column] = 1.0
        moves = moves.to(**like)
        self._moves_joint = moves[0, :, : robot.num_joints].contiguous()
        self.moves = moves[1, :, : len(points)].contiguous()
        """[J, P]: 1 where joint j moves point p."""
        self.chain_lengths = self._chain_lengths().contiguous()
        """[J, P] m: length of the chain from joint j to point p, an upper bound of their
        distance in any posture; 0 where the joint does not move the point."""
        self._symmetric = torch.tensor(_SYMMETRIC, device=device)

    def at(self, q: Tensor, qd: Tensor) -> PointState:
        """The points at joint positions [N, J] rad and velocities [N, J] rad/s."""
        frames = self._kinematics.forward(q)
        rotation = frames.rotation.transpose(1, 2).flatten(2)
        origin = frames.position.mT
        position = rotation @ self._offsets + origin.index_select(2, self._rows)
        axes = rotation @ self._axes
        moments = cross(origin[..., : self._num_joints], axes)
        screws = torch.cat((axes, moments), 1)
        rates = screws * qd[:, None, :]
        spatial = rates @ self.moves
        velocity = _at_points(spatial, position)
        turning, moving = (rates @ self._moves_joint).split(3, 1)
        axis_rates, moment_rates = rates.split(3, 1)
        change = torch.cat(
            (cross(turning, axis_rates), cross(turning, moment_rates) + cross(moving, axis_rates)),
            1,
        )
        curvature = _at_points(change @ self.moves, position) + cross(spatial[:, :3], velocity)
        return PointState(position, velocity, curvature, screws)

    def pull_back_metric(self, state: PointState, metric: Tensor) -> Tensor:
        """Lower triangle of sum over the points of J' M J.

        Args:
            state: Where the points are.
            metric: [N, 6, P], each point's symmetric M as (xx, yy, zz, xy, xz, yz).

        Returns:
            [N, J, J]; zero above the diagonal.
        """
        place = state.position[:, :, None]
        # a point's velocity is (-[p]x I) V, so its metric acts on V as [[p]x M [p]x', [p]x M; ., M]
        mixed = cross(place, self._square(metric))
        angular = cross(place, mixed.transpose(1, 2))
        # what joint j carries: the points that it moves
        angular, mixed = (torch.stack((angular, mixed), 1) @ self.moves.mT).unbind(1)
        linear = self._square(metric @ self.moves.mT)
        axes, moments = state.screws.split(3, 1)
        momentum = torch.cat(
            (
                (angular * axes[:, None]).sum(2) + (mixed * moments[:, None]).sum(2),
                (mixed * axes[:, :, None]).sum(1) + (linear * moments[:, None]).sum(2),
            ),
            1,
        )
        # a joint nearer to the base moves all of that as well
        return (momentum.mT @ state.screws) * self._moves_joint.mT

    def pull_back_force(self, state: PointState, force: Tensor) -> Tensor:
        """Joint forces [N, F, J], sum of J' f, of F sets of forces [N, F, 3, P] at the points."""
        wrench = torch.cat((cross(state.position[:, None], force, dim=2), force), 2)
        return ((wrench @ self.moves.mT) * state.screws[:, None]).sum(2)

    def gradient(self, state: PointState, direction: Tensor) -> Tensor:
        """[N, J, P]: how joint j moves point p along its direction [N, 3, P], m/rad.

        The first P points are meant when fewer directions than points are given.
        """
        count = direction.shape[2]
        wrench = torch.cat((cross(state.position[..., :count], direction), direction), 1)
        return (state.screws.mT @ wrench) * self.moves[:, :count]

    def _square(self, metric: Tensor) -> Tensor:
        """Symmetric matrices [N, 3, 3, K] from their six entries [N, 6, K]."""
        return metric.index_select(1, self._symmetric).unflatten(1, (3, 3))

    def _chain_lengths(self) -> Tensor:
        """See `chain_lengths`; distances along a chain are the same in any posture."""
        zero = torch.zeros_like(self.moves[:1, 0]).expand(1, self._num_joints)
        frames = self._kinematics.forward(zero)
        origins, points = frames.position[0, : self._num_joints], self.at(zero, zero).position[0].mT
        lengths = torch.zeros_like(self.moves)
        for column, moved_by in enumerate(self.moves.mT):
            end, length = points[column], torch.zeros_like(zero[0, 0])
            for joint in reversed(moved_by.nonzero().flatten().tolist()):
                length = length + (origins[joint] - end).norm()
                lengths[joint, column], end = length, origins[joint]
        return lengths


def cross(a: Tensor, b: Tensor, dim: int = 1) -> Tensor:
    """Cross product along an axis of length 3; faster than torch's for one that is not last."""
    (ax, ay, az), (bx, by, bz) = a.unbind(dim), b.unbind(dim)
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), dim)


def _in_frames(frames: Sequence[str], vectors: Sequence[tuple[str, Sequence[float]]]) -> Tensor:
    """[3 F, V]: what turns F rotation matrices side by side into V vectors fixed to the frames."""
    matrix = torch.zeros(len(frames), 3, len(vectors))
    for column, (frame, vector) in enumerate(vectors):
        matrix[frames.index(frame), :, column] = torch.tensor(vector)
    return matrix.flatten(0, 1)


def _at_points(spatial: Tensor, position: Tensor) -> Tensor:
    """Linear part [N, 3, P] of spatial vectors [N, 6, P] at points [N, 3, P]."""
    return cross(spatial[:, :3], position) + spatial[:, 3:]
