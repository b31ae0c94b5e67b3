"""An engine without physics, for any device: for tests and for benchmarks of everything else."""

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.rotation import quaternion_to_matrix
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses

_DEPTH_MM = 700
_GREY = 128


class StillEngine(PhysicsEngine):
    """Joints jump to their targets, objects keep their poses, and images show a wall.

    It is not in `backends.BACKENDS`, so a config cannot select it.
    """

    exact = True

    def __init__(self, scene: Scene, device: torch.device | str = "cpu", threads: int = 1) -> None:
        """Takes a scene; `threads` is not used."""
        del threads
        self.scene, self.num_envs, self.device = scene, scene.num_envs, torch.device(device)
        robot, count = scene.robot, scene.num_envs
        self._kinematics = Kinematics(robot, (*robot.fingertips, robot.grasp_center), device)

        self.allocate_state()
        masses = [item.total_mass_kg for item in scene.objects]
        of_env = torch.tensor(scene.object_of_env, device=device)
        self.object_mass = torch.tensor(masses, device=device)[of_env]
        self.velocity_lead_s = torch.zeros_like(self.joint_position)
        self.parameters = PhysicsParameters.nominal(count, robot.num_joints, device)

    @override
    def step(self, joint_targets: Tensor) -> None:
        self.joint_position.copy_(self.in_parts(joint_targets)[-1])
        self._place_hand()

    @override
    def reset(
        self,
        env_ids: Tensor,
        joint_position: Tensor,
        object_pose: Tensor,
        joint_velocity: Tensor | None = None,
    ) -> None:
        self.joint_position[env_ids] = joint_position
        self.joint_velocity[env_ids] = 0.0 if joint_velocity is None else joint_velocity
        self.object_position[env_ids] = object_pose[:, :3]
        self.object_quaternion[env_ids] = object_pose[:, 3:]
        self.object_rotation[env_ids] = quaternion_to_matrix(object_pose[:, 3:])
        self._place_hand()

    @override
    def set_parameters(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """Stores the parameters in `parameters`; they have no effect."""
        for field in fields(PhysicsParameters):
            getattr(self.parameters, field.name)[env_ids] = getattr(parameters, field.name)

    @override
    def push_objects(self, force: Tensor, torque: Tensor) -> None:
        """Has no effect."""

    @override
    def render_depth(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        del poses
        out.fill_(_DEPTH_MM)

    @override
    def depth_m(self) -> Tensor:
        camera = self.scene.camera
        shape = (self.num_envs, camera.height, camera.width)
        return torch.full(shape, _DEPTH_MM / 1e3, device=self.device)

    @override
    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        del poses
        out.fill_(_GREY)

    @override
    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        del camera
        out.fill_(_GREY)

    @override
    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        """Has no effect."""

    @override
    def state_dict(self) -> dict[str, Tensor]:
        pose = torch.cat((self.object_position, self.object_quaternion), dim=1)  # [N, 7]
        return {
            "joints": self.joint_position.clone(),
            "velocity": self.joint_velocity.clone(),
            "pose": pose,
        }

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        everywhere = torch.arange(self.num_envs, device=self.device)
        self.reset(everywhere, state["joints"], state["pose"], state["velocity"])

    @override
    def timings(self) -> dict[str, float]:
        return {"physics": 0.0, "render": 0.0}

    @override
    def close(self) -> None:
        """Nothing to free."""

    def _place_hand(self) -> None:
        points = self._kinematics.forward(self.joint_position).position  # [N, F + 1, 3]
        self.fingertip_position.copy_(points[:, :-1])
        self.grasp_center_position.copy_(points[:, -1])
