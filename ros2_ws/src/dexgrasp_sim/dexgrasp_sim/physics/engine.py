"""The interface of a physics backend, and the physics settings that all backends share."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses


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


@dataclasses.dataclass(frozen=True)
class PhysicsParameters:
    """What may differ between environments and episodes, for K environments, float32.

    Attributes:
        friction_scale: [K] factor on the friction of all contacts. One for all surfaces: engines
            combine those of two bodies in their own ways.
        restitution: [K], 0 (no bounce) to below 1; reached only with physics steps that resolve a
            contact. Measured with MuJoCo, drops from 0.1 m: 0.95 comes out as 0.9 at 1/120 s and
            as 0.4 at 1/60 s.
        stiffness_scale: [K, 23] factor on the actuators' stiffness, in the robot's joint order.
        damping_scale: [K, 23] factor on the actuators' damping.
        joint_friction_scale: [K, 23] factor on the dry joint friction of the URDF; 0: none.
        object_mass_scale: [K] factor on the object's mass and inertia.
    """

    friction_scale: Tensor
    restitution: Tensor
    stiffness_scale: Tensor
    damping_scale: Tensor
    joint_friction_scale: Tensor
    object_mass_scale: Tensor

    @staticmethod
    def nominal(count: int, num_joints: int) -> "PhysicsParameters":
        """The parameters that an engine starts with."""
        return PhysicsParameters(
            friction_scale=torch.ones(count),
            restitution=torch.zeros(count),
            stiffness_scale=torch.ones(count, num_joints),
            damping_scale=torch.ones(count, num_joints),
            joint_friction_scale=torch.zeros(count, num_joints),
            object_mass_scale=torch.ones(count),
        )


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
    object_mass: Tensor
    """[N] kg."""
    velocity_lead_s: Tensor
    """[N, 23] s: the servos' damping over their stiffness. Joint targets that lead by so many
    times a velocity make the servos, which damp towards rest, damp towards that velocity."""
    diverged: Tensor
    """[N] bool: since its reset the environment's state was once not finite or beyond all bounds.
    The engine has put it in some harmless state, which means nothing: reset it."""

    def step(self, joint_targets: Tensor, hold_steps: Tensor | None = None) -> None:
        """Advances one control period.

        Args:
            joint_targets: [N, 23] rad.
            hold_steps: [N] int64: for so many physics steps the targets before these stay in
                effect; None: for none.
        """
        ...

    def reset(
        self,
        env_ids: Tensor,
        joint_position: Tensor,
        object_pose: Tensor,
        joint_velocity: Tensor | None = None,
    ) -> None:
        """Puts K environments in a state, with the object at rest.

        Args:
            env_ids: [K] int64, rising.
            joint_position: [K, 23] rad; also the joint targets.
            object_pose: [K, 7] xyz m and quaternion wxyz.
            joint_velocity: [K, 23] rad/s; None: at rest.
        """
        ...

    def set_parameters(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """Changes the physics of environments [K]; call `reset` for these afterwards."""
        ...

    def push_objects(self, force: Tensor, torque: Tensor) -> None:
        """Applies a force [N, 3] N and a torque [N, 3] N m to the objects, base frame.

        They last until the next call, or until the environment's reset.
        """
        ...

    def render_depth(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        """Writes [N, H, W] int16 millimetres, 0 where nothing is in range.

        Args:
            out: The images.
            poses: Where the cameras are, the depth camera as the left one; None: where the
                config says.
        """
        ...

    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        """Writes [N, 2, 3, H, W] uint8: left and right image; `poses` as in `render_depth`."""
        ...

    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        """Writes [N, 3, H, W] uint8 as any camera sees it."""
        ...

    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        """Changes colours, textures and light in the stereo images as `config.image.look` says.

        Args:
            env_ids: [K] int64, which environments.
            keys: [K] int64, their random streams; the same ones give the same look.
        """
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
