"""Batched forward kinematics and Jacobians in torch.

All joint transforms are computed in one batched operation. Then the tree is processed level by
level, all joints of the same depth (the four fingers) at once. Fixed joints are merged with their
neighbours beforehand and cost nothing. Inside, the batch is the last axis, see `linear_algebra`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp_sim.linear_algebra import cross
from dexgrasp_sim.robot.model import RobotModel


@dataclass(frozen=True)
class FramePoses:
    """Poses of F frames in `base`.

    Attributes:
        position: [N, F, 3], m.
        rotation: [N, F, 3, 3], columns are the frame's axes.
    """

    position: Tensor
    rotation: Tensor


@dataclass(frozen=True)
class ChainState:
    """Pose of one frame in `base` and its Jacobian with respect to the K joints of its chain.

    Attributes:
        position: [N, 3], m.
        rotation: [N, 3, 3].
        jacobian: [N, 6, K]; rows: linear velocity (m/rad), then angular, both in `base`.
    """

    position: Tensor
    rotation: Tensor
    jacobian: Tensor


@dataclass(frozen=True)
class _Level:
    """The joints of one tree depth, which are consecutive among the used joints.

    Attributes:
        first: Index of the first one among the used joints.
        last: Index after the last one.
        parents: Rows of their parents in the previous level; None if no gather is needed, because
            row i's parent is row i or there is only one parent.
    """

    first: int
    last: int
    parents: Tensor | None


class _JointTransforms:
    """Transforms of K joint frames into their parent joints' frames, as functions of the angles.

    With Rodrigues' formula every transform is constant + cos q * even + sin q * odd.

    Attributes:
        axes: [3, K, 1], the joints' axes in their frames.
    """

    def __init__(
        self, robot: RobotModel, joints: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> None:
        constant, even, odd, axes = [], [], [], []
        for index in joints:
            joint = robot.joints[robot.joint_names[index]]
            _, offset = _anchor(robot, joint.parent)
            origin = offset @ joint.origin.matrix
            axis = np.array(joint.axis)
            along = np.outer(axis, axis)
            constant.append(origin @ _homogeneous(along, corner=1.0))
            even.append(origin @ _homogeneous(np.eye(3) - along, corner=0.0))
            odd.append(origin @ _homogeneous(_cross_matrix(axis), corner=0.0))
            axes.append(axis)
        self._constant, self._even, self._odd, self.axes = (
            torch.tensor(np.array(values), device=device, dtype=dtype).movedim(0, -1)[..., None]
            for values in (constant, even, odd, axes)
        )

    def __call__(self, q: Tensor) -> Tensor:
        """Transforms [4, 4, K, N] at angles [K, N] in rad."""
        return torch.addcmul(
            torch.addcmul(self._constant, q.cos(), self._even), q.sin(), self._odd
        )


class Kinematics:
    """Forward kinematics of chosen frames; `q` is [N, J] in `robot.joint_names` order, rad."""

    def __init__(
        self,
        robot: RobotModel,
        frames: Sequence[str],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Prepares the tree that leads to `frames`.

        Raises:
            ValueError: A frame is not one of the robot's.
        """
        self.frames = tuple(frames)
        self._robot, self._device, self._dtype = robot, torch.device(device), dtype
        carriers, fixed, needed = [], [], set()
        for frame in self.frames:
            carrier, offset = _anchor(robot, frame)
            carriers.append(carrier)
            fixed.append(offset)
            needed.update(_ancestors(robot, frame))
        by_depth = [(len(_chain_of(robot, index)), index) for index in sorted(needed)]
        self._used = [index for _, index in sorted(by_depth)]
        self._transforms = _JointTransforms(robot, self._used, self._device, dtype)
        self._select = torch.tensor(self._used, dtype=torch.int64, device=self._device)
        self._levels = _levels(robot, self._used, self._device)
        like = {"device": self._device, "dtype": dtype}
        self._fixed = torch.tensor(np.array(fixed), **like).permute(1, 2, 0)[..., None]
        self._base = torch.eye(4, **like)[:3, :, None, None]
        row = {joint: position for position, joint in enumerate(self._used)}
        # row 0 of the stacked transforms is the base itself
        rows = [0 if carrier is None else row[carrier] + 1 for carrier in carriers]
        self._carrier_rows = torch.tensor(rows, device=self._device)
        self._chains: dict[str, Chain] = {}

    def forward(self, q: Tensor) -> FramePoses:
        """Poses of all frames, in the order of `frames`, at joint positions `q` [N, J]."""
        local = self._transforms(q.mT.index_select(0, self._select))  # [4, 4, K, N]
        blocks = [self._base.expand(-1, -1, -1, len(q))]
        for level in self._levels:
            parents = blocks[-1]
            if level.parents is not None:
                parents = parents.index_select(2, level.parents)
            blocks.append(chained(parents, local[:, :, level.first : level.last]))
        carriers = torch.cat(blocks, 2).index_select(2, self._carrier_rows)
        poses = chained(carriers, self._fixed)  # [3, 4, F, N]
        return FramePoses(poses[:, 3].permute(2, 1, 0), poses[:, :3].permute(3, 2, 0, 1))

    def jacobian(self, q: Tensor, frame: str) -> Tensor:
        """Jacobian [N, 6, J] of one frame in `base`: linear rows (m/rad), then angular.

        Raises:
            ValueError: The frame is not one of the robot's.
        """
        chain = self.chain(frame)
        full = q.new_zeros(q.shape[0], 6, self._robot.num_joints)
        return full.index_copy_(2, chain.columns, chain.forward(q).jacobian)

    def chain(self, frame: str) -> "Chain":
        """Kinematics of one frame alone; any frame of the robot, built at its first use."""
        if frame not in self._chains:
            self._chains[frame] = Chain(self._robot, frame, self._device, self._dtype)
        return self._chains[frame]


class Chain:
    """Kinematics of one frame, computed from the joints between base and frame only.

    Attributes:
        joint_indices: The K joints that move the frame, base first, as positions in
            `robot.joint_names`.
        columns: [K] int64, the same on the chain's device.
    """

    def __init__(
        self,
        robot: RobotModel,
        frame: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Prepares the chain that leads to `frame`.

        Raises:
            ValueError: The robot has no such frame, or no joint moves it.
        """
        device = torch.device(device)
        self.joint_indices = _ancestors(robot, frame)
        if not self.joint_indices:
            raise ValueError(f"frame {frame!r} is fixed to the base; ask for one that joints move")
        self._transforms = _JointTransforms(robot, self.joint_indices, device, dtype)
        self.columns = torch.tensor(self.joint_indices, device=device)
        self._fixed = torch.tensor(_anchor(robot, frame)[1], device=device, dtype=dtype)

    def forward(self, q: Tensor) -> ChainState:
        """Pose and Jacobian at joint positions `q` [N, J] in rad."""
        local = self._transforms(q.mT.index_select(0, self.columns))  # [4, 4, K, N]
        first, *others = local.unbind(2)
        joint_frames = [first[:3]]
        for transform in others:
            joint_frames.append(chained(joint_frames[-1], transform))
        frame = chained(joint_frames[-1], self._fixed[..., None])  # [3, 4, N]
        joints = torch.stack(joint_frames, 2)  # [3, 4, K, N]
        axes = (joints[:, :3] * self._transforms.axes).sum(1)  # [3, K, N]
        linear = cross(axes, frame[:, 3, None] - joints[:, 3])
        jacobian = torch.cat((linear, axes)).permute(2, 0, 1)
        return ChainState(frame[:, 3].mT, frame[:, :3].permute(2, 0, 1), jacobian)


def chained(parents: Tensor, local: Tensor) -> Tensor:
    """Poses [3, 4, ..., N] that stand at `local` [4, 4, ..., N] in `parents` [3, 4, ..., N]."""
    return (parents[:, :, None] * local).sum(1)


def _anchor(robot: RobotModel, frame: str) -> tuple[int | None, NDArray[np.float64]]:
    """The last movable joint before a frame (None: the base), and the frame's pose in it."""
    if frame not in robot.links:
        raise ValueError(f"{robot.name} has no frame {frame!r}; it has {', '.join(robot.frames)}")
    offset = np.eye(4)
    while frame != robot.root:
        joint = robot.parent_joint[frame]
        if joint.kind == "revolute":
            return robot.joint_names.index(joint.name), offset
        offset = joint.origin.matrix @ offset
        frame = joint.parent
    return None, offset


def _ancestors(robot: RobotModel, frame: str) -> list[int]:
    """Movable joints between base and frame, base first."""
    carrier, _ = _anchor(robot, frame)
    return [] if carrier is None else _chain_of(robot, carrier)


def _chain_of(robot: RobotModel, joint: int) -> list[int]:
    """Movable joints from the base to a movable joint, that one included."""
    parent_link = robot.joints[robot.joint_names[joint]].parent
    return [*_ancestors(robot, parent_link), joint]


def _levels(robot: RobotModel, used: Sequence[int], device: torch.device) -> list[_Level]:
    """Groups joints, sorted by depth, into levels; parents are in the previous level."""
    depths = [len(_chain_of(robot, joint)) for joint in used]
    levels, previous = [], []
    for depth in sorted(set(depths)):
        members = [joint for joint, own in zip(used, depths, strict=True) if own == depth]
        rows = [previous.index(_chain_of(robot, joint)[-2]) for joint in members if depth > 1]
        broadcasts = len(previous) <= 1 or rows == list(range(len(previous)))
        first = used.index(members[0])
        parents = None if broadcasts else torch.tensor(rows, device=device)
        levels.append(_Level(first, first + len(members), parents))
        previous = members
    return levels


def _homogeneous(rotation: NDArray[np.float64], corner: float) -> NDArray[np.float64]:
    transform = np.zeros((4, 4))
    transform[:3, :3] = rotation
    transform[3, 3] = corner
    return transform


def _cross_matrix(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = axis
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
