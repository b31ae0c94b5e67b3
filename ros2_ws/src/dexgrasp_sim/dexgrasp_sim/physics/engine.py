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
    """Physical parameters of K environments, which may differ between episodes; float32.

    Attributes:
        friction_scale: [K] factor on the friction of all contacts. It is one for all surfaces,
            because engines combine the friction of two bodies in different ways.
        restitution: [K], 0 (no bounce) to below 1; reached only with physics steps short enough to
            resolve a contact. Measured with MuJoCo, drops from 0.1 m: 0.95 becomes 0.9 at 1/120 s
            and 0.4 at 1/60 s.
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
    """N environments with robot, table and one object each.

    All poses are in the robot's base frame, quaternions wxyz. The tensors are current after
    `reset` and `step`; the next call overwrites them. All tensors are on `device`.
    """

    num_envs: int
    scene: Scene
    device: torch.device
    exact: bool
    """Whether the same calls give bit-identical results, for any split of the environments over
    engines and after `load_state_dict`."""
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
    """[N, J] s: damping of the servos divided by their stiffness. Servos damp towards velocity 0;
    joint targets with this time multiplied by a velocity added make them damp towards it."""
    diverged: Tensor
    """[N] bool: since its last reset the environment's state was not finite or out of bounds. The
    engine has replaced it by a meaningless but valid state: reset the environment."""

    def allocate_state(self) -> None:
        """Makes the tensors of the state, all zero, for `scene` on `device`."""
        robot = self.scene.robot

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(self.num_envs, *shape, device=self.device)

        self.joint_position, self.joint_velocity = zeros(robot.num_joints), zeros(robot.num_joints)
        self.object_position, self.object_quaternion = zeros(3), zeros(4)
        self.object_rotation, self.object_velocity = zeros(3, 3), zeros(6)
        self.fingertip_position = zeros(len(robot.fingers), 3)
        self.grasp_center_position = zeros(3)
        self.diverged = zeros().bool()

    def in_parts(self, joint_targets: Tensor) -> Tensor:
        """Joint targets as `step` takes them, as [K, N, J]; ValueError if K is wrong."""
        parts = joint_targets if joint_targets.ndim == 3 else joint_targets[None]
        if not len(parts) or self.scene.substeps % len(parts):
            raise ValueError(
                f"there are {len(parts)} targets for a period of {self.scene.substeps} physics "
                "steps; give a number that divides them"
            )
        return parts

    def step(self, joint_targets: Tensor) -> None:
        """Advances one control period.

        Args:
            joint_targets: [N, J] rad, or [K, N, J], one after the other for equal parts of the
                period; K divides `scene.substeps`, else ValueError.
        """
        ...

    def reset(
        self,
        env_ids: Tensor,
        joint_position: Tensor,
        object_pose: Tensor,
        joint_velocity: Tensor | None = None,
    ) -> None:
        """Sets the state of K environments, with the object at rest.

        Args:
            env_ids: [K] int64, rising.
            joint_position: [K, J] rad; also the joint targets.
            object_pose: [K, 7] xyz m and quaternion wxyz.
            joint_velocity: [K, J] rad/s; None: at rest.
        """
        ...

    def set_parameters(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """Changes the physics of environments [K] int64; call `reset` for them afterwards."""
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
            poses: Poses of the cameras, of which the left one takes the depth image; None: as in
                the scene.
        """
        ...

    def depth_m(self) -> Tensor:
        """Depth [N, H, W] float32 m, at the nominal pose and not limited to the camera's range.

        0 where nothing is seen. For comparisons of engines; the next call may overwrite it.
        """
        ...

    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        """Writes [N, 2, 3, H, W] uint8: left and right image; `poses` as in `render_depth`."""
        ...

    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        """Writes the images [N, 3, H, W] uint8 of a given camera."""
        ...

    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        """Draws colours, textures and light of the stereo images, with the strengths `scene.look`.

        Args:
            env_ids: [K] int64, which environments.
            keys: [K] int64, their random streams; equal keys give equal looks.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The integration state, from which a run continues; see `exact`."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict` and updates all tensors."""
        ...

    def timings(self) -> dict[str, float]:
        """Seconds spent in `physics` and `render` since construction."""
        ...

    def close(self) -> None:
        """Frees threads and memory; idempotent."""
        ...
