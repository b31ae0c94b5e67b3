"""A robot's tree: joints, links, primitive shapes and fixed frames, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.rotation import rpy_to_matrix

Vector = tuple[float, ...]
WHITE: Vector = (1.0, 1.0, 1.0, 1.0)


class UrdfError(ConfigError):
    """Something in the URDF is missing or wrong; the message names it and the remedy."""


@dataclass(frozen=True)
class Pose:
    """Position in m and URDF roll-pitch-yaw in rad, relative to a parent frame."""

    xyz: Vector = (0.0, 0.0, 0.0)
    rpy: Vector = (0.0, 0.0, 0.0)

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """The homogeneous transform [4, 4] from this frame to its parent."""
        transform = np.eye(4)
        transform[:3, :3] = rpy_to_matrix(torch.tensor(self.rpy, dtype=torch.float64)).numpy()
        transform[:3, 3] = self.xyz
        return transform


@dataclass(frozen=True)
class Shape:
    """A primitive in its link's frame.

    Attributes:
        kind: "box", "cylinder" (axis z) or "sphere".
        size: Full edge lengths of a box; radius and length of a cylinder; radius of a sphere; m.
        origin: Pose of the shape's centre in the link frame.
        rgba: Colour in [0, 1]; white for a collision shape.
    """

    kind: str
    size: Vector
    origin: Pose
    rgba: Vector = WHITE


@dataclass(frozen=True)
class Inertial:
    """Mass in kg, centre of mass frame, and inertia about it in kg m2.

    Attributes:
        mass: kg.
        origin: Centre of mass and axes of `inertia` in the link frame.
        inertia: ixx, iyy, izz, ixy, ixz, iyz.
    """

    mass: float
    origin: Pose
    inertia: Vector

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The inertia [3, 3] about the centre of mass, in the axes of `origin`."""
        xx, yy, zz, xy, xz, yz = self.inertia
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@dataclass(frozen=True)
class Link:
    """A rigid body; one without `inertial` and shapes is only a frame."""

    name: str
    inertial: Inertial | None
    visuals: tuple[Shape, ...]
    collisions: tuple[Shape, ...]


@dataclass(frozen=True)
class Joint:
    """A fixed or revolute joint; limits are zero for a fixed one.

    Attributes:
        name: Joint name.
        kind: "fixed" or "revolute".
        parent: Parent link.
        child: Child link, whose frame is the joint's frame.
        origin: Joint frame in the parent link's frame at angle zero.
        axis: Unit axis in the joint frame.
        lower: Lowest angle, rad.
        upper: Highest angle, rad.
        velocity: Highest speed, rad/s.
        effort: Highest torque, N m.
        damping: Viscous friction, N m s/rad.
        friction: Dry friction, N m.
    """

    name: str
    kind: str
    parent: str
    child: str
    origin: Pose
    axis: Vector = (0.0, 0.0, 1.0)
    lower: float = 0.0
    upper: float = 0.0
    velocity: float = 0.0
    effort: float = 0.0
    damping: float = 0.0
    friction: float = 0.0


@dataclass(frozen=True)
class RobotModel:
    """A robot tree. Every [J] quantity is in the order of `joint_names`, which the caller chose.

    Attributes:
        name: Robot name.
        joint_names: The movable joints in the project's order.
        joints: All joints, fixed ones too, by name.
        links: All links by name.
        root: The link without parent joint; its frame is the world.
    """

    name: str
    joint_names: tuple[str, ...]
    joints: Mapping[str, Joint]
    links: Mapping[str, Link]
    root: str

    @property
    def num_joints(self) -> int:
        """Number of movable joints, J."""
        return len(self.joint_names)

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames (a link and its frame share the name)."""
        return tuple(self.links)

    @cached_property
    def parent_joint(self) -> Mapping[str, Joint]:
        """The parent joint of each link, by link name; the root has none."""
        return {joint.child: joint for joint in self.joints.values()}

    @property
    def lower(self) -> NDArray[np.float64]:
        """Lower position limits [J], rad."""
        return self._gather("lower")

    @property
    def upper(self) -> NDArray[np.float64]:
        """Upper position limits [J], rad."""
        return self._gather("upper")

    @property
    def velocity_limit(self) -> NDArray[np.float64]:
        """Velocity limits [J], rad/s."""
        return self._gather("velocity")

    @property
    def effort_limit(self) -> NDArray[np.float64]:
        """Torque limits [J], N m."""
        return self._gather("effort")

    @property
    def total_mass(self) -> float:
        """Mass of all links, kg."""
        return sum(link.inertial.mass for link in self.links.values() if link.inertial)

    def joint_indices(self, names: Sequence[str]) -> list[int]:
        """Positions of the named joints in `joint_names`.

        Raises:
            UrdfError: A name is not one of this robot's movable joints.
        """
        unknown = [name for name in names if name not in self.joint_names]
        if unknown:
            raise UrdfError(
                f"{self.name} has no movable joint {unknown[0]!r}; it has "
                f"{', '.join(self.joint_names)}"
            )
        return [self.joint_names.index(name) for name in names]

    def _gather(self, field: str) -> NDArray[np.float64]:
        return np.array([getattr(self.joints[name], field) for name in self.joint_names])
