"""The interface of a physics backend, and the parameters that differ between environments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses


@dataclass(frozen=True)
class PhysicsParameters:
    """What may differ between environments and episodes, for K environments, float32.

    Attributes:
        friction_scale: [K] factor on the friction of all contacts. One for all surfaces: engines
            combine those of two bodies in their own ways.
        restitution: [K], 0 (no bounce) to below 1; reached only with physics steps that resolve a
            contact. Measured with MuJoCo, drops from 0.1 m: 0.95 comes out as 0.9 at 1/120 s and
            as 0.4 at 1/60 s.
        stiffness_scale: [K, J] factor on the actuators' stiffness, in the robot's joint order.
        damping_scale: [K, J] factor on the actuators' damping.
        joint_friction_scale: [K, J] factor on the dry joint friction of the URDF; 0: none.
        object_mass_scale: [K] factor on the object's mass and inertia.
    """

    friction_scale: Tensor
    restitution: Tensor
    stiffness_scale: Tensor
    damping_scale: Tensor
    joint_friction_scale: Tensor
    object_mass_scale: Tensor

    @staticmethod
    def nominal(
        count: int, num_joints: int, device: torch.device | str = "cpu"
    ) -> "PhysicsParameters":
        """The parameters that an engine starts with."""
        joints = (count, num_joints)
        return PhysicsParameters(
            friction_scale=torch.ones(count, device=device),
            restitution=torch.zeros(count, device=device),
            stiffness_scale=torch.ones(joints, device=device),
            damping_scale=torch.ones(joints, device=device),
            joint_friction_scale=torch.zeros(joints, device=device),
            object_mass_scale=torch.ones(count, device=device),
        )


class PhysicsEngine(Protocol):
    """N copies of robot, table and one object each.

    All poses are in the robot's base frame, quaternions wxyz. The tensors are current after
    `reset` and `step` and are overwritten by the next call. All tensors are on `device`.
    """

    num_envs: int
    scene: Scene
    device: torch.device
    exact: bool
    """Whether the same calls give the same results to the last bit, at any split of the
    environments over engines, and whether `state_dict` continues exactly."""
    joint_position: Tensor
    """[N, J] rad, in the robot's joint order."""
    joint_velocity: Tensor
    """[N, J] rad/s."""
    object_position: Tensor
    """[N, 3] m."""
    object_quaternion: Tensor
    """[N, 4] wxyz."""
    object_rotation: Tensor
    """[N, 3, 3]: object axes as columns."""
    object_velocity: Tensor
    """[N, 6]: linear m/s and angular rad/s, base frame."""
    fingertip_position: Tensor
    """[N, F, 3] m, in the order of the robot's fingers."""
    grasp_center_position: Tensor
    """[N, 3] m."""
    object_mass: Tensor
    """[N] kg."""
    velocity_lead_s: Tensor
    """[N, J] s: the servos' damping over their stiffness. Joint targets that lead by so many
    times a velocity make the servos, which damp towards rest, damp towards that velocity."""
    diverged: Tensor
    """[N] bool: since its reset the environment's state was once not finite or beyond all bounds.
    The engine has put it in some harmless state, which means nothing: reset it."""

    def step(self, joint_targets: Tensor, hold_steps: Tensor | None = None) -> None:
        """Advances one control period.

        Args:
            joint_targets: [N, J] rad.
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
            joint_position: [K, J] rad; also the joint targets.
            object_pose: [K, 7] xyz m and quaternion wxyz.
            joint_velocity: [K, J] rad/s; None: at rest.
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
                scene has them.
        """
        ...

    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        """Writes [N, 2, 3, H, W] uint8: left and right image; `poses` as in `render_depth`."""
        ...

    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        """Writes [N, 3, H, W] uint8 as any camera sees it."""
        ...

    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        """Changes colours, textures and light in the stereo images as `scene.look` says.

        Args:
            env_ids: [K] int64, which environments.
            keys: [K] int64, their random streams; the same ones give the same look.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The integration state; with it a run continues, see `exact`."""
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
