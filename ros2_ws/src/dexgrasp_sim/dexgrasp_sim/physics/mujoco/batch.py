"""Physics backend on the MuJoCo C engine: `mujoco.batch.Batch` on CPU threads."""

import time
from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.physics.cpu_render.looks import LookRandomizer
from dexgrasp_sim.physics.cpu_render.renderer import BatchRenderer
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.physics.mujoco.models import OBJECT, build_models
from dexgrasp_sim.physics.mujoco.object_geoms import common_layout
from dexgrasp_sim.physics.mujoco.parameters import ModelParameters
from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import LEFT, CameraPoses

_POSITION_STAGE = int(mujoco.mjtStage.mjSTAGE_POS)
"""Poses of bodies, geoms and sites at the new state; velocities are read from the state itself."""
_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)
_RESET_TIME_S = 1000.0
"""An environment's time after `reset`, longer than any control period: MuJoCo sets the time to 0
when it discards a state that is not finite. A time that falls in a step marks such
environments."""

_BEHIND_M = 1000.0
"""A camera does not see what is this far behind it."""


class MujocoBatch(PhysicsEngine):
    """N environments in MuJoCo. Results do not depend on the number of threads."""

    exact = True

    def __init__(self, scene: Scene, device: torch.device | str = "cpu", threads: int = 1) -> None:
        """Args:
        scene: What to simulate.
        device: The CPU.
        threads: CPU threads for physics and images.
        """
        _keep_log_out_of_files()
        self.scene, self.num_envs, self.device = scene, scene.num_envs, torch.device(device)
        self._threads = threads
        used, model_of_env = np.unique(np.asarray(scene.object_of_env), return_inverse=True)
        # the layout of all objects: results must not depend on which worker simulates which object
        layout = common_layout(scene.objects)
        self._models = build_models(scene, [scene.objects[index] for index in used], layout)
        self._model_of_env = model_of_env.astype(np.int64)
        self._batch = Batch(self._models[0], nsim=self.num_envs, nthread=threads)
        if len(self._models) > 1:
            self._batch.set_models([self._models[index] for index in model_of_env])
        self._index_model(self._models[0], scene.robot)
        self._bind_views()
        self._allocate()
        self._renderers: dict[CameraConfig, BatchRenderer] = {}
        self._looks: LookRandomizer | None = None
        self._seconds = {"physics": 0.0, "render": 0.0}
        self._read()

    def _index_model(self, model: mujoco.MjModel, robot: Robot) -> None:
        joint_names = robot.joint_names
        joints = [model.joint(name).id for name in joint_names]
        self._qpos_columns = model.jnt_qposadr[joints]
        self._qvel_columns = model.jnt_dofadr[joints]
        self._ctrl_columns = np.array([model.actuator(name).id for name in joint_names])
        free_joint = model.joint(OBJECT).id
        position, velocity = model.jnt_qposadr[free_joint], model.jnt_dofadr[free_joint]
        self._object_qpos = slice(position, position + 7)
        self._object_qvel = slice(velocity, velocity + 6)
        self._object_body = model.body(OBJECT).id
        self._tip_sites = [model.site(name).id for name in robot.fingertips]
        self._grasp_site = model.site(robot.grasp_center).id

    def _bind_views(self) -> None:
        bind = self._batch.bind
        self._qpos, self._qvel, self._ctrl = bind("qpos"), bind("qvel"), bind("ctrl")
        self._xfrc_applied = bind("xfrc_applied")
        self._site_xpos, self._xmat = bind("site_xpos"), bind("xmat")
        self._geom_xpos, self._geom_xmat = bind("geom_xpos"), bind("geom_xmat")
        self._time_s = bind("time")
        self._time_s[:] = _RESET_TIME_S

    def _allocate(self) -> None:
        self.allocate_state()
        masses = [model.body_mass[self._object_body] for model in self._models]
        self.object_mass = torch.tensor(masses).float()[torch.from_numpy(self._model_of_env)]
        gains = self._models[0].actuator_gainprm[self._ctrl_columns, 0]
        damping = -self._models[0].actuator_biasprm[self._ctrl_columns, 2]
        self._nominal_lead_s = torch.from_numpy(damping / gains).float()
        self.velocity_lead_s = self._nominal_lead_s.repeat(self.num_envs, 1)
        self._parameters: ModelParameters | None = None

    @override
    def step(self, joint_targets: Tensor) -> None:
        started = time.perf_counter()
        began_s = self._time_s.copy()
        parts = self.in_parts(joint_targets).numpy()
        steps = self.scene.substeps // len(parts)
        if len(parts) > 1:
            self._step_through(parts[:-1].repeat(steps, axis=0))
        self._ctrl[:, self._ctrl_columns] = parts[-1]
        self._batch.step(nstep=steps, stage=_POSITION_STAGE)
        self.diverged |= torch.from_numpy(self._time_s < began_s).reshape(self.num_envs)
        self._read()
        self._seconds["physics"] += time.perf_counter() - started

    def _step_through(self, targets: np.ndarray) -> None:
        """Takes a physics step with each of the joint targets [P, N, J].

        In one call each environment makes all of its steps before the next one does, so that its
        data stay in the cache: a call per physics step takes half as much time again.
        """
        control = np.zeros((self.num_envs, len(targets), self._ctrl.shape[1]))
        control[:, :, self._ctrl_columns] = targets.swapaxes(0, 1)
        self._batch.rollout(len(targets), control, record=())

    @override
    def reset(
        self,
        env_ids: Tensor,
        joint_position: Tensor,
        object_pose: Tensor,
        joint_velocity: Tensor | None = None,
    ) -> None:
        started = time.perf_counter()
        ids = env_ids.numpy()
        rows = ids[:, None]
        self._batch.reset(ids, stage=_NO_STAGE)
        self._time_s[ids] = _RESET_TIME_S
        self.diverged[env_ids] = False
        self._qpos[rows, self._qpos_columns] = joint_position.numpy()
        self._qpos[ids, self._object_qpos] = object_pose.numpy()
        self._ctrl[rows, self._ctrl_columns] = joint_position.numpy()
        if joint_velocity is not None:
            self._qvel[rows, self._qvel_columns] = joint_velocity.numpy()
        self._batch.forward(ids, stage=_POSITION_STAGE)
        self._read(ids)
        self._seconds["physics"] += time.perf_counter() - started

    @override
    def set_parameters(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        """See `PhysicsEngine.set_parameters`. The first call copies a model per environment."""
        self._own_models().set(env_ids, parameters)
        self._use_own_models()

    @override
    def push_objects(self, force: Tensor, torque: Tensor) -> None:
        self._xfrc_applied[:, self._object_body, :3] = force.numpy()
        self._xfrc_applied[:, self._object_body, 3:] = torque.numpy()

    def _own_models(self) -> ModelParameters:
        if self._parameters is None:
            models = [self._models[index] for index in self._model_of_env]
            self._parameters = ModelParameters(models, self.scene.robot)
        return self._parameters

    def _use_own_models(self) -> None:
        own = self._own_models()
        self._batch.set_models(own.models)
        self.object_mass.copy_(own.object_mass)
        scale = own.values.damping_scale / own.values.stiffness_scale
        self.velocity_lead_s.copy_(scale * self._nominal_lead_s)

    @override
    def render_depth(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        started = time.perf_counter()
        renderer = self._renderer(self.scene.camera)
        renderer.depth(self._geom_xpos, self._geom_xmat, out.numpy(), *_pose_of(poses, LEFT))
        self._seconds["render"] += time.perf_counter() - started

    @override
    def depth_m(self) -> Tensor:
        renderer = self._renderer(self.scene.camera)
        return torch.from_numpy(renderer.render_float(self._geom_xpos, self._geom_xmat)[0])

    def object_pixels(self, camera: CameraConfig, alone: bool = False) -> Tensor:
        """How much of each object a camera sees, at its nominal pose.

        Args:
            camera: Any camera.
            alone: As if robot, table and ground were not there.

        Returns:
            [N] int64: pixels in which the object is seen and in the camera's range.
        """
        shape = (self.num_envs, camera.height, camera.width)
        depth, geom = np.empty(shape, np.int16), np.empty(shape, np.int16)
        is_object = self._models[0].geom_bodyid == self._object_body  # [G]
        xpos = self._geom_xpos
        if alone:
            xpos = np.where(
                is_object[:, None], xpos, camera.position + _BEHIND_M * camera.rotation[:, 2]
            )
        self._renderer(camera).depth(xpos, self._geom_xmat, depth, segmentation=geom)
        seen = (geom >= 0) & is_object[geom] & (depth > 0)
        return torch.from_numpy(seen.sum(axis=(1, 2)))

    @override
    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        for side, renderer in enumerate(self._stereo_renderers()):
            self._render_rgb(renderer, out[:, side], *_pose_of(poses, side))

    @override
    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        self._render_rgb(self._renderer(camera), out)

    def _render_rgb(self, renderer: BatchRenderer, out: Tensor, *pose: np.ndarray) -> None:
        started = time.perf_counter()
        renderer.rgb(self._geom_xpos, self._geom_xmat, out.numpy(), *pose)
        self._seconds["render"] += time.perf_counter() - started

    @override
    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        if self._looks is None:
            self._looks = LookRandomizer(self.scene.look, self._stereo_renderers())
        self._looks.draw(env_ids, keys)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        state = {"state": torch.from_numpy(np.array(self._batch.state))}
        if self._parameters is not None:
            own = self._parameters.state_dict()
            state |= {f"parameters.{name}": value for name, value in own.items()}
        return state

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        prefix = "parameters."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if own:
            self._own_models().load_state_dict(own)
            self._use_own_models()
        self._batch.state[:] = state["state"].numpy()
        self._batch.forward(stage=_POSITION_STAGE)
        # forward() may refresh the solver's warm start, which the next step reads
        self._batch.state[:] = state["state"].numpy()
        self.diverged.zero_()
        self._read()

    @override
    def timings(self) -> dict[str, float]:
        return dict(self._seconds)

    @override
    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _read(self, rows: np.ndarray | slice = slice(None)) -> None:
        """Copies the state of some environments from MuJoCo's float64 arrays to the tensors."""
        qpos, qvel, sites = self._qpos[rows], self._qvel[rows], self._site_xpos[rows]
        self.joint_position.numpy()[rows] = qpos[:, self._qpos_columns]
        self.joint_velocity.numpy()[rows] = qvel[:, self._qvel_columns]
        pose = qpos[:, self._object_qpos]
        self.object_position.numpy()[rows] = pose[:, :3]
        self.object_quaternion.numpy()[rows] = pose[:, 3:]
        rotation = self._xmat[rows, self._object_body].reshape(-1, 3, 3)
        self.object_rotation.numpy()[rows] = rotation
        velocity = qvel[:, self._object_qvel]
        self.object_velocity.numpy()[rows, :3] = velocity[:, :3]
        # a free joint's angular velocity is in the body frame
        turning = (rotation * velocity[:, None, 3:]).sum(axis=2)
        self.object_velocity.numpy()[rows, 3:] = turning
        self.fingertip_position.numpy()[rows] = sites[:, self._tip_sites]
        self.grasp_center_position.numpy()[rows] = sites[:, self._grasp_site]

    def _stereo_renderers(self) -> list[BatchRenderer]:
        pair = self.scene.camera.stereo_pair(self.scene.stereo_baseline_m)
        return [self._renderer(camera) for camera in pair]

    def _renderer(self, camera: CameraConfig) -> BatchRenderer:
        """Built on first use: a state policy needs none."""
        if camera not in self._renderers:
            self._renderers[camera] = BatchRenderer(
                self._models, self._model_of_env, camera, self._threads
            )
        return self._renderers[camera]


def _keep_log_out_of_files() -> None:
    """Stops MuJoCo from writing MUJOCO_LOG.TXT into the working folder; it still prints."""
    log = mujoco.MjLogConfig.get()
    log.logto_file = False
    log.set()


def _pose_of(poses: CameraPoses | None, side: int) -> tuple[np.ndarray, ...]:
    """Position [N, 3] and rotation [N, 3, 3] of one camera; empty without `poses`."""
    return () if poses is None else tuple(each[:, side].numpy() for each in poses)
