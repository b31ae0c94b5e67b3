"""The interface of drivers; `registry` finds one by its name.

`robot_driver_node` and `camera_node` give drivers their parameters, read them and publish what
they return; a lab adds its hardware by naming its class in a ROS parameter. Drivers do not need
ROS; those that speak to other nodes are under `nodes/drivers` and use the node of their process.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import Robot


@dataclass(frozen=True)
class JointSample:
    """One measurement of a stream of joints: all joints of a robot, or those of one device.

    Attributes:
        names: J joint names as in the URDF; the arrays are in this order.
        position: [J] float64 rad.
        velocity: [J] float64 rad/s.
        stamp_s: Monotonic time at which they were measured.
        effort: [J] float64 N m; None if not measured.
        arrival_s: Monotonic time at which the sample arrived here; None: it did not travel.
    """

    names: tuple[str, ...]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    stamp_s: float
    effort: NDArray[np.float64] | None = None
    arrival_s: float | None = None

    @property
    def received_s(self) -> float:
        """Monotonic time since which the sample is here."""
        return self.stamp_s if self.arrival_s is None else self.arrival_s

    @property
    def consistent(self) -> bool:
        """Whether all arrays have one value for each name, as a message need not."""
        arrays = [self.position, self.velocity, *([] if self.effort is None else [self.effort])]
        return all(len(array) == len(self.names) for array in arrays)


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion; pixel coordinates as in `CameraConfig`.

    Attributes:
        width: Pixels per row.
        height: Rows.
        focal_px: Focal lengths in x and y.
        center_px: Principal point, x and y; ((width - 1) / 2, (height - 1) / 2) at the centre.
    """

    width: int
    height: int
    focal_px: tuple[float, float]
    center_px: tuple[float, float]

    @staticmethod
    def centered(width: int, height: int, focal_px: float) -> "Intrinsics":
        """Square pixels and the principal point at the centre of the image."""
        center_px = ((width - 1) / 2, (height - 1) / 2)
        return Intrinsics(width, height, (focal_px, focal_px), center_px)


@dataclass(frozen=True)
class CameraSample:
    """One exposure.

    Attributes:
        image: Depth [H, W] uint16 millimetres (0 = no return), or left and right colour image
            [2, H, W, 3] uint8 RGB, rectified.
        stamp_s: Monotonic time of the exposure.
        intrinsics: Of the camera, or of both of a rectified pair; None if not known.
        arrival_s: Monotonic time at which the sample arrived here; None: it did not travel.
        pose: [7] xyz m and quaternion wxyz in the base, of the optical axes of the image (the
            left one of a pair); None: those of the training camera.
    """

    image: NDArray[Any]
    stamp_s: float
    intrinsics: Intrinsics | None = None
    arrival_s: float | None = None
    pose: NDArray[np.float64] | None = None

    @property
    def received_s(self) -> float:
        """Monotonic time since which the sample is here."""
        return self.stamp_s if self.arrival_s is None else self.arrival_s


class Level(IntEnum):
    """Health levels, numbered as in diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Health:
    """Health of a device as reported by its driver."""

    level: Level = Level.OK
    message: str = "ok"


Shared = TypeVar("Shared")


@dataclass
class DriverContext:
    """What the drivers of one process have in common.

    Attributes:
        robot: Its joint names are the names to use.
        clock: Monotonic seconds.
        manifest: Manifest of the policy bundle that will run; None if none was named.
        seed: Seed of the random draws of a simulated or mock driver.
        node: The ROS node of this process, for drivers on topics; None without ROS.
    """

    robot: Robot
    clock: Callable[[], float]
    manifest: BundleManifest | None = None
    seed: int = 0
    node: Any = None
    _shared: dict[Any, Any] = field(default_factory=dict)

    def shared(self, factory: Callable[["DriverContext"], Shared]) -> Shared:
        """The result of `factory(self)`, called once for all drivers (one simulated world)."""
        if factory not in self._shared:
            self._shared[factory] = factory(self)
        return self._shared[factory]

    def required_manifest(self, asker: str) -> BundleManifest:
        """The manifest.

        Raises:
            ConfigError: None was given.
        """
        if self.manifest is None:
            raise ConfigError(f"{asker} needs a policy bundle; set the parameter `bundle`")
        return self.manifest


class Driver(ABC):
    """Life cycle: configure, activate, (read and write)*, deactivate. One thread calls all.

    Attributes:
        kind: "arm", "hand" or "camera": the prefix of its parameters.
        profile: Values of the topic profile by which it was chosen.
    """

    kind: ClassVar[str]
    profile: Mapping[str, Any] = {}

    @abstractmethod
    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Connects and checks; moves nothing.

        Args:
            context: Shared by the drivers of this process.
            parameters: The ROS parameters under the driver's prefix (`arm.`, `hand.` or
                `camera.`), without it.

        Raises:
            ConfigError: A parameter is wrong or the device is not there.
        """

    def activate(self) -> None:  # noqa: B027 - many drivers need nothing here
        """Allows motion or starts streaming."""

    def deactivate(self) -> None:  # noqa: B027
        """Stops motion or streaming; idempotent."""

    def health(self) -> Health:
        """Health of the device; called about once a second."""
        return Health()


class JointDriver(Driver):
    """Position-controlled joints."""

    joint_names: tuple[str, ...]
    """Names as in the URDF, set by `configure`."""

    @abstractmethod
    def read(self) -> JointSample:
        """The newest measurement; a repeated one keeps its stamp."""

    @abstractmethod
    def write(self, positions: Mapping[str, float]) -> None:
        """Sends position targets.

        Args:
            positions: rad by joint name; joints that are absent keep their last target.
        """

    @abstractmethod
    def own_joints(self, robot: Robot) -> tuple[str, ...]:
        """The robot's joints that a driver of this kind moves."""


class ArmDriver(JointDriver):
    """The arm."""

    kind = "arm"

    @override
    def own_joints(self, robot: Robot) -> tuple[str, ...]:
        return robot.arm_joints


class HandDriver(JointDriver):
    """The hand."""

    kind = "hand"

    @override
    def own_joints(self, robot: Robot) -> tuple[str, ...]:
        return robot.hand_joints


class CameraDriver(Driver):
    """A depth camera or a stereo pair."""

    kind = "camera"

    @abstractmethod
    def read(self) -> CameraSample | None:
        """The newest exposure that was not returned yet; None when there is none."""


class SceneCamera(CameraDriver):
    """A camera that renders a given scene; `camera_node` sets the scene from topics."""

    @abstractmethod
    def observe(
        self, joints: JointSample, object_pose: NDArray[np.float64], object_name: str
    ) -> None:
        """Sets the scene of the next image.

        Args:
            joints: The robot, stamped; the image gets this stamp.
            object_pose: [7] xyz m and quaternion wxyz, base frame.
            object_name: Which object of the task it is.
        """
