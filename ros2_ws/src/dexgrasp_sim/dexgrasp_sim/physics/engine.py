"""The interface of a physics backend, and the physics settings that all backends share."""

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.vision.camera import CameraConfig


@dataclass(frozen=True, config=STRICT)
class PhysicsConfig:
    """Contact and integration settings.

    An elliptic friction cone with impratio 10 holds round objects that a pyramidal cone drops;
    fewer than 20 line-search iterations make the elliptic solver throw the object.

    Attributes:
        backend: Engine behind the interface.
        timestep_s: Physics step.
        integrator: `discrete` is stable up to 1/60 s and about a third faster; `implicitfast` at
            1/120 s is the reference.
        friction: Sliding friction coefficient of all contacts.
        actuator_gains: Which arm gains drive the joint targets, "stiff" or "paper".
    """

    backend: Literal["mujoco"] = "mujoco"
    timestep_s: Annotated[float, Field(gt=0.0, le=1 / 60 + 1e-9)] = 1 / 120
    integrator: Literal["implicitfast", "discrete"] = "implicitfast"
    impratio: Annotated[float, Field(ge=1.0)] = 10.0
    iterations: Annotated[int, Field(ge=10)] = 20
    line_search_iterations: Annotated[int, Field(ge=20)] = 20
    friction: Annotated[float, Field(gt=0.0)] = 1.0
    actuator_gains: Literal["stiff", "paper"] = "stiff"


class PhysicsEngine(Protocol):
    """N copies of robot, table and one object each.

    All poses are in the robot's base frame, quaternions wxyz. The tensors are current after
    `reset` and `step` and are overwritten by the next call.
    """

    num_envs: int
    joint_position: Tensor
    """[N, 23] rad, in the robot's joint order."""
    joint_velocity: Tensor
    """[N, 23] rad/s."""
    object_position: Tensor
    """[N, 3] m."""
    object_quaternion: Tensor
    """[N, 4] wxyz."""
    object_rotation: Tensor
    """[N, 3, 3]: object axes as columns."""
    object_velocity: Tensor
    """[N, 6]: linear m/s and angular rad/s, base frame."""
    fingertip_position: Tensor
    """[N, 4, 3] m: index, middle, ring, thumb."""
    grasp_center_position: Tensor
    """[N, 3] m."""

    def step(self, joint_targets: Tensor) -> None:
        """Holds joint position targets [N, 23] rad for one control period."""
        ...

    def reset(self, env_ids: Tensor, joint_position: Tensor, object_pose: Tensor) -> None:
        """Puts K environments at rest in a state.

        Args:
            env_ids: [K] int64, rising.
            joint_position: [K, 23] rad; also the joint targets.
            object_pose: [K, 7] xyz m and quaternion wxyz.
        """
        ...

    def render_depth(self, out: Tensor) -> None:
        """Writes [N, H, W] int16 millimetres, 0 where nothing is in range."""
        ...

    def render_stereo_rgb(self, out: Tensor) -> None:
        """Writes [N, 2, 3, H, W] uint8: left and right image."""
        ...

    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        """Writes [N, 3, H, W] uint8 as any camera sees it."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The integration state; with it a run continues bit-exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict` and makes all tensors current."""
        ...

    def timings(self) -> dict[str, float]:
        """Seconds spent in `physics` and `render` since construction."""
        ...

    def close(self) -> None:
        """Frees threads and memory; idempotent."""
        ...
