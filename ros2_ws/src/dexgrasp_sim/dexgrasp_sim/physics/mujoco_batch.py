"""Physics backend on the MuJoCo C engine: `mujoco.batch.Batch` on CPU threads."""

import time
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from dexgrasp_sim.physics.object_geoms import common_layout
from dexgrasp_sim.physics.renderer import BatchRenderer
from dexgrasp_sim.physics.scene import OBJECT, build_models
from dexgrasp_sim.robot.kuka_allegro import FINGERTIPS, load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig

_VELOCITY_STAGE = int(mujoco.mjtStage.mjSTAGE_VEL)
_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)


class MujocoBatch:
    """See `PhysicsEngine`. Results do not depend on the number of threads."""

    def __init__(self, config: GraspConfig, object_of_env: Sequence[int], threads: int) -> None:
        """Args:
        config: Scene, objects, physics and cameras.
        object_of_env: Index into `config.objects` for each environment.
        threads: CPU threads for physics and images.
        """
        robot = load_robot()
        self.num_envs = len(object_of_env)
        self._config = config
        self._threads = threads
        used, model_of_env = np.unique(np.asarray(object_of_env), return_inverse=True)
        objects = [config.objects[index] for index in used]
        # the layout of all objects, so that results do not depend on who simulates which of them
        layout = common_layout(config.objects)
        self._models = build_models(robot, config.table, objects, config.physics, layout)
        self._model_of_env = model_of_env.astype(np.int64)
        self._batch = Batch(self._models[0], nsim=self.num_envs, nthread=threads)
        if len(self._models) > 1:
            self._batch.set_models([self._models[index] for index in model_of_env])
        self._index_model(self._models[0], robot.joint_names)
        self._bind_views()
        self._allocate(len(robot.joint_names))
        self._renderers: dict[CameraConfig, BatchRenderer] = {}
        self._seconds = {"physics": 0.0, "render": 0.0}
        self._read()

    def _index_model(self, model: mujoco.MjModel, joint_names: Sequence[str]) -> None:
        joints = [model.joint(name).id for name in joint_names]
        self._qpos_columns = model.jnt_qposadr[joints]
        self._qvel_columns = model.jnt_dofadr[joints]
        self._ctrl_columns = np.array([model.actuator(name).id for name in joint_names])
        free_joint = model.joint(OBJECT).id
        position, velocity = model.jnt_qposadr[free_joint], model.jnt_dofadr[free_joint]
        self._object_qpos = slice(position, position + 7)
        self._object_qvel = slice(velocity, velocity + 6)
        self._object_body = model.body(OBJECT).id
        self._tip_sites = [model.site(name).id for name in FINGERTIPS]
        self._grasp_site = model.site("grasp_center").id

    def _bind_views(self) -> None:
        bind = self._batch.bind
        self._qpos, self._qvel, self._ctrl = bind("qpos"), bind("qvel"), bind("ctrl")
        self._site_xpos, self._xmat = bind("site_xpos"), bind("xmat")
        self._geom_xpos, self._geom_xmat = bind("geom_xpos"), bind("geom_xmat")

    def _allocate(self, num_joints: int) -> None:
        count = self.num_envs
        self.joint_position = torch.zeros(count, num_joints)
        self.joint_velocity = torch.zeros(count, num_joints)
        self.object_position = torch.zeros(count, 3)
        self.object_quaternion = torch.zeros(count, 4)
        self.object_rotation = torch.zeros(count, 3, 3)
        self.object_velocity = torch.zeros(count, 6)
        self.fingertip_position = torch.zeros(count, len(FINGERTIPS), 3)
        self.grasp_center_position = torch.zeros(count, 3)

    def step(self, joint_targets: Tensor) -> None:
        """See `PhysicsEngine.step`."""
        started = time.perf_counter()
        self._ctrl[:, self._ctrl_columns] = joint_targets.numpy()
        self._batch.step(nstep=self._config.physics_steps, stage=_VELOCITY_STAGE)
        self._read()
        self._seconds["physics"] += time.perf_counter() - started

    def reset(self, env_ids: Tensor, joint_position: Tensor, object_pose: Tensor) -> None:
        """See `PhysicsEngine.reset`."""
        started = time.perf_counter()
        ids = env_ids.numpy()
        rows = ids[:, None]
        self._batch.reset(ids, stage=_NO_STAGE)
        self._qpos[rows, self._qpos_columns] = joint_position.numpy()
        self._qpos[ids, self._object_qpos] = object_pose.numpy()
        self._ctrl[rows, self._ctrl_columns] = joint_position.numpy()
        self._batch.forward(ids, stage=_VELOCITY_STAGE)
        self._read()
        self._seconds["physics"] += time.perf_counter() - started

    def render_depth(self, out: Tensor) -> None:
        """See `PhysicsEngine.render_depth`."""
        started = time.perf_counter()
        renderer = self._renderer(self._config.camera)
        renderer.depth(self._geom_xpos, self._geom_xmat, out.numpy())
        self._seconds["render"] += time.perf_counter() - started

    def render_stereo_rgb(self, out: Tensor) -> None:
        """See `PhysicsEngine.render_stereo_rgb`."""
        pair = self._config.camera.stereo_pair(self._config.stereo_baseline_m)
        for side, camera in enumerate(pair):
            self.render_rgb(camera, out[:, side])

    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        """See `PhysicsEngine.render_rgb`."""
        started = time.perf_counter()
        self._renderer(camera).rgb(self._geom_xpos, self._geom_xmat, out.numpy())
        self._seconds["render"] += time.perf_counter() - started

    def state_dict(self) -> dict[str, Tensor]:
        """See `PhysicsEngine.state_dict`."""
        return {"state": torch.from_numpy(np.array(self._batch.state))}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `PhysicsEngine.load_state_dict`."""
        self._batch.state[:] = state["state"].numpy()
        self._batch.forward(stage=_VELOCITY_STAGE)
        # forward() may refresh the solver's warm start, which the next step reads
        self._batch.state[:] = state["state"].numpy()
        self._read()

    def timings(self) -> dict[str, float]:
        """See `PhysicsEngine.timings`."""
        return dict(self._seconds)

    def close(self) -> None:
        """See `PhysicsEngine.close`."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _read(self) -> None:
        """Copies what the task reads out of MuJoCo's float64 arrays."""
        self.joint_position.numpy()[:] = self._qpos[:, self._qpos_columns]
        self.joint_velocity.numpy()[:] = self._qvel[:, self._qvel_columns]
        pose = self._qpos[:, self._object_qpos]
        self.object_position.numpy()[:] = pose[:, :3]
        self.object_quaternion.numpy()[:] = pose[:, 3:]
        rotation = self._xmat[:, self._object_body].reshape(-1, 3, 3)
        self.object_rotation.numpy()[:] = rotation
        velocity = self._qvel[:, self._object_qvel]
        self.object_velocity.numpy()[:, :3] = velocity[:, :3]
        # a free joint's angular velocity is in the body frame
        self.object_velocity.numpy()[:, 3:] = np.einsum("nij,nj->ni", rotation, velocity[:, 3:])
        self.fingertip_position.numpy()[:] = self._site_xpos[:, self._tip_sites]
        self.grasp_center_position.numpy()[:] = self._site_xpos[:, self._grasp_site]

    def _renderer(self, camera: CameraConfig) -> BatchRenderer:
        """Built on first use: a state policy needs none."""
        if camera not in self._renderers:
            self._renderers[camera] = BatchRenderer(
                self._models, self._model_of_env, camera, self._threads
            )
        return self._renderers[camera]
