"""Physics backend on Isaac Lab 3.0 without Kit: Newton's physics, images by its Warp renderer."""

import time
from collections.abc import Mapping
from dataclasses import fields

import torch
from isaaclab.sim import SimulationContext
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.physics.isaaclab.looks import SceneColors
from dexgrasp_sim.physics.isaaclab.parameters import SceneParameters
from dexgrasp_sim.physics.isaaclab.simulation import DEPTH, LEFT, RIGHT, start_simulation
from dexgrasp_sim.physics.isaaclab.views import View
from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.rotation import quaternion_to_matrix
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses

_LARGEST = 1e10
"""Bound of positions and velocities, as MuJoCo's mjMAXVAL."""
_STATE = ("joint_position", "joint_velocity", "object_pose", "object_velocity", "targets", "push")


class IsaacLabEngine(PhysicsEngine):
    """N environments in Isaac Lab, of which a process can have one engine at a time."""

    exact = False

    def __init__(self, scene: Scene, device: torch.device | str = "cpu", threads: int = 1) -> None:
        """Args:
        scene: What to simulate.
        device: A GPU, or the CPU, where everything runs in one thread.
        threads: Not used.

        Raises:
            ConfigError: The scene asks for what Isaac Lab cannot do, or this process has an
                engine already.
        """
        del threads
        self.scene, self.num_envs, self.device = scene, scene.num_envs, torch.device(device)
        self._simulation = start_simulation(scene, self.device)
        self._parameters = SceneParameters(self._simulation, scene)
        self._colors = SceneColors(scene.look, scene.num_envs)
        self.object_mass = self._parameters.object_mass
        self.velocity_lead_s = self._parameters.velocity_lead_s
        robot = scene.robot
        frames = (*robot.fingertips, robot.grasp_center)
        self._kinematics = Kinematics(robot, frames, self.device)
        self._allocate()
        self._views = {name: View(camera) for name, camera in self._simulation.cameras.items()}
        self._seconds = {"physics": 0.0, "render": 0.0}
        self._is_open = True
        everywhere = torch.arange(self.num_envs, device=self.device)
        posture = torch.tensor(robot.postures["pregrasp"], device=self.device)
        start = torch.tensor([*scene.start_position_m, 1.0, 0.0, 0.0, 0.0], device=self.device)
        self._rest = posture.repeat(self.num_envs, 1), start.repeat(self.num_envs, 1)
        self._write_state(everywhere, *self._rest, None)
        self._advance(self._rest[0])  # compiles the kernels: a later step must not take minutes
        self._write_state(everywhere, *self._rest, None)
        self._read()

    def _allocate(self) -> None:
        self.allocate_state()
        self._targets = torch.zeros_like(self.joint_position)
        self._push = torch.zeros(self.num_envs, 2, 3, device=self.device)

    @override
    def step(self, joint_targets: Tensor) -> None:
        started = time.perf_counter()
        parts = self.in_parts(joint_targets)
        for targets in parts:
            for _ in range(self.scene.substeps // len(parts)):
                self._advance(targets)
        self._replace_broken()
        self._read()
        self._seconds["physics"] += time.perf_counter() - started

    def _advance(self, targets: Tensor) -> None:
        """One physics step with joint targets [N, J] rad."""
        parts = self._simulation
        self._targets.copy_(targets)
        parts.robot.actuators.target_command.set_position_index(value=self._targets)
        parts.object.permanent_wrench_composer.set_forces_and_torques_index(
            forces=self._push[:, :1], torques=self._push[:, 1:], is_global=True
        )
        parts.robot.write_data_to_sim()
        parts.object.write_data_to_sim()
        parts.context.step(render=False)
        self._refresh(self.scene.physics.timestep_s)

    def _refresh(self, elapsed_s: float) -> None:
        self._simulation.robot.update(elapsed_s)
        self._simulation.object.update(elapsed_s)

    @override
    def reset(
        self,
        env_ids: Tensor,
        joint_position: Tensor,
        object_pose: Tensor,
        joint_velocity: Tensor | None = None,
    ) -> None:
        started = time.perf_counter()
        if len(env_ids):
            self._targets[env_ids] = joint_position
            self._push.index_fill_(0, env_ids, 0.0)
            self.diverged.index_fill_(0, env_ids, False)
            self._write_state(env_ids, joint_position, object_pose, joint_velocity)
            self._read()
        self._seconds["physics"] += time.perf_counter() - started

    def _write_state(
        self, ids: Tensor, joints: Tensor, pose: Tensor, joint_velocity: Tensor | None
    ) -> None:
        """Sets joints [K, J] and the object's pose [K, 7] wxyz, with the object at rest."""
        if joint_velocity is None:
            joint_velocity = torch.zeros_like(joints)
        self._write(ids, joints, joint_velocity, _to_xyzw(pose), pose.new_zeros(len(pose), 6))

    def _write(
        self, ids: Tensor, joints: Tensor, speeds: Tensor, pose: Tensor, velocity: Tensor
    ) -> None:
        robot, item, rows = self._simulation.robot, self._simulation.object, ids.int()
        robot.write_joint_position_to_sim_index(position=joints.contiguous(), env_ids=rows)
        robot.write_joint_velocity_to_sim_index(velocity=speeds.contiguous(), env_ids=rows)
        item.write_root_pose_to_sim_index(root_pose=pose.contiguous(), env_ids=rows)
        item.write_root_velocity_to_sim_index(root_velocity=velocity.contiguous(), env_ids=rows)
        self._simulation.context.forward()
        self._refresh(0.0)

    def _replace_broken(self) -> None:
        """Puts environments whose state is not finite at their start."""
        robot, item = self._simulation.robot.data, self._simulation.object.data
        state = (
            robot.joint_pos.torch,
            robot.joint_vel.torch,
            item.root_link_pose_w.torch,
            item.root_com_vel_w.torch,
        )
        # Newton leaves out a force that overflows, after which all is finite and the object still
        gained = self._push[:, 0] * (self.scene.physics.timestep_s / self.object_mass.unsqueeze(1))
        # not below also where it is no number
        sound = [(value.abs() < _LARGEST).all(dim=1) for value in (*state, gained)]
        broken = ~torch.stack(sound).all(dim=0)
        if broken.any():
            self.diverged |= broken
            ids = broken.nonzero().squeeze(1)
            self._push.index_fill_(0, ids, 0.0)
            joints, pose = self._rest
            self._write_state(ids, joints[ids], pose[ids], None)

    def _read(self) -> None:
        """Copies the state to the tensors."""
        robot, item = self._simulation.robot.data, self._simulation.object.data
        self.joint_position.copy_(robot.joint_pos.torch)
        self.joint_velocity.copy_(robot.joint_vel.torch)
        pose = item.root_link_pose_w.torch
        self.object_position.copy_(pose[:, :3])
        self.object_quaternion.copy_(pose[:, [6, 3, 4, 5]])
        self.object_rotation.copy_(quaternion_to_matrix(self.object_quaternion))
        self.object_velocity.copy_(item.root_com_vel_w.torch)
        frames = self._kinematics.forward(self.joint_position).position  # [N, F + 1, 3]
        self.fingertip_position.copy_(frames[:, :-1])
        self.grasp_center_position.copy_(frames[:, -1])

    @override
    def set_parameters(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        if len(env_ids):
            self._parameters.set(env_ids, parameters)

    @override
    def push_objects(self, force: Tensor, torque: Tensor) -> None:
        self._push.copy_(torch.stack((force, torque), dim=1))

    @override
    def render_depth(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        started = time.perf_counter()
        camera = self.scene.camera
        depth = self._view(DEPTH, camera).draw(_pose_of(poses, 0))[..., 0]  # [N, H, W]
        seen = (depth >= camera.near_m) & (depth <= camera.far_m)
        out.copy_(torch.where(seen, (1e3 * depth + 0.5).floor(), 0.0))
        self._seconds["render"] += time.perf_counter() - started

    @override
    def depth_m(self) -> Tensor:
        return self._view(DEPTH, self.scene.camera).draw()[..., 0]

    @override
    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        pair = self.scene.camera.stereo_pair(self.scene.stereo_baseline_m)
        for side, (name, camera) in enumerate(zip((LEFT, RIGHT), pair, strict=True)):
            self._render_rgb(name, camera, out[:, side], _pose_of(poses, side))

    @override
    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        """See `PhysicsEngine.render_rgb`.

        Raises:
            ConfigError: The camera has another image size or field of view than the scene's.
        """
        own = self.scene.camera
        if (camera.width, camera.height, camera.fovy_deg) != (own.width, own.height, own.fovy_deg):
            raise ConfigError(
                "isaaclab draws colour images of the task's camera only, "
                f"{own.width}x{own.height} with fovy_deg {own.fovy_deg:g}; take "
                "task.physics.backend mujoco for other views"
            )
        self._render_rgb(LEFT, camera, out, None)

    def _render_rgb(
        self, name: str, camera: CameraConfig, out: Tensor, pose: tuple[Tensor, Tensor] | None
    ) -> None:
        started = time.perf_counter()
        image = self._view(name, camera).draw(pose)  # [N, H, W, 3]
        out.copy_(image.permute(0, 3, 1, 2))
        self._seconds["render"] += time.perf_counter() - started

    def _view(self, name: str, camera: CameraConfig) -> View:
        view = self._views[name]
        view.nominal = camera
        return view

    @override
    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        """See `PhysicsEngine.randomize_looks`.

        Raises:
            ConfigError: The scene's looks vary in more than colours.
        """
        if len(env_ids):
            self._colors.draw(env_ids, keys)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        robot, item = self._simulation.robot.data, self._simulation.object.data
        values = (
            robot.joint_pos.torch,
            robot.joint_vel.torch,
            item.root_link_pose_w.torch,
            item.root_com_vel_w.torch,
            self._targets,
            self._push,
        )
        state = {name: value.clone() for name, value in zip(_STATE, values, strict=True)}
        own = self._parameters.values
        names = [field.name for field in fields(PhysicsParameters)]
        return state | {f"parameters.{name}": getattr(own, name).clone() for name in names}

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        everywhere = torch.arange(self.num_envs, device=self.device)
        names = [field.name for field in fields(PhysicsParameters)]
        own = {name: state[f"parameters.{name}"].to(self.device) for name in names}
        self._parameters.set(everywhere, PhysicsParameters(**own))
        joints, speeds, pose, velocity, targets, push = (
            state[name].to(self.device) for name in _STATE
        )
        self._targets.copy_(targets)
        self._push.copy_(push)
        self._write(everywhere, joints, speeds, pose, velocity)
        self.diverged.zero_()
        self._read()

    @override
    def timings(self) -> dict[str, float]:
        return dict(self._seconds)

    @override
    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            SimulationContext.clear_instance()


def _to_xyzw(pose: Tensor) -> Tensor:
    """Isaac Lab's poses [K, 7] of ours: it has the real part of a quaternion last."""
    return pose[:, [0, 1, 2, 4, 5, 6, 3]]


def _pose_of(poses: CameraPoses | None, side: int) -> tuple[Tensor, Tensor] | None:
    """Positions [N, 3] and rotations [N, 3, 3] of one camera."""
    return None if poses is None else (poses.position[:, side], poses.rotation[:, side])
