"""Physics backend on MuJoCo Warp: all environments at once, on an NVIDIA GPU or on the CPU."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.physics.mujoco.object_geoms import OBJECT
from dexgrasp_sim.physics.mujoco_warp.kernels import apply_targets, read_state, replace_broken
from dexgrasp_sim.physics.mujoco_warp.launches import (
    Launches,
    Stopwatch,
    is_out_of_memory,
    start_warp,
)
from dexgrasp_sim.physics.mujoco_warp.looks import DeviceLooks
from dexgrasp_sim.physics.mujoco_warp.models import build_common_model, object_arrays
from dexgrasp_sim.physics.mujoco_warp.overflows import Overflows
from dexgrasp_sim.physics.mujoco_warp.parameters import (
    BATCHED,
    DeviceParameters,
    batched_arrays,
    give_objects,
)
from dexgrasp_sim.physics.mujoco_warp.reset_kernels import StateArrays, reset_state
from dexgrasp_sim.physics.mujoco_warp.views import ColorView, DepthView, World
from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraPoses
from dexgrasp_sim.warp_streams import current_stream

View = TypeVar("View", DepthView, ColorView)

_STATE = ("qpos", "qvel", "ctrl", "qacc", "qacc_warmstart", "xfrc_applied")
"""Fields of the data from which a run continues."""
_LARGEST = 1e10
"""Bound of positions and velocities, as MuJoCo's mjMAXVAL."""


_SPARE = 64
"""Contacts beyond the mean per environment, without which one environment would have few."""


class MujocoWarpEngine(PhysicsEngine):
    """N environments in MuJoCo Warp.

    On a GPU the order of sums is not fixed, so results differ in the last bits from run to run.
    """

    exact = False

    def __init__(self, scene: Scene, device: torch.device | str = "cpu", threads: int = 1) -> None:
        """Args:
        scene: What to simulate.
        device: A GPU, or the CPU, where everything runs in one thread.
        threads: Not used.

        Raises:
            ConfigError: The device cannot be used, or has too little memory for N environments.
        """
        del threads
        try:
            self._build(scene, *start_warp(torch.device(device)))
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        vars(self).clear()  # frees what was made
        raise _too_many(scene, torch.device(device))

    def _build(self, scene: Scene, device: torch.device, warp_device: wp.Device) -> None:
        self.scene, self.num_envs, self.device = scene, scene.num_envs, device
        used, object_of_env = np.unique(np.asarray(scene.object_of_env), return_inverse=True)
        objects = [scene.objects[index] for index in used]
        host = build_common_model(scene, objects)
        with wp.ScopedDevice(warp_device):
            model = mjw.put_model(host, batch_sizes=dict.fromkeys(BATCHED, self.num_envs))
            model.opt.warn_overflow = 0
            if not wp.is_conditional_graph_supported():
                model.opt.graph_conditional = False
            data = mjw.make_data(host, self.num_envs, **self._buffer_sizes())
            wp.synchronize_device()  # they were filled in another stream than they are used in
        graph = scene.physics.mujoco_warp.cuda_graph
        self._world = World(host, model, data, warp_device, self.device, graph)
        self._arrays = batched_arrays(model)
        of_env = torch.from_numpy(object_of_env.astype(np.int64)).to(self.device)
        give_objects(self._arrays, host, object_arrays(scene, objects), of_env)
        self._parameters = DeviceParameters(host, self._arrays, scene.robot)
        self.object_mass = self._parameters.object_mass
        self.velocity_lead_s = self._parameters.velocity_lead_s
        self._bind()
        self._allocate()
        self._physics = Launches(warp_device, self._launch_physics, graph)
        self._refresh = Launches(warp_device, self._launch_reading, graph)
        self._looks: DeviceLooks | None = None
        self._depth_view: DepthView | None = None
        self._stereo_view: ColorView | None = None
        self._views: dict[CameraConfig, ColorView] = {}
        self._watch = Stopwatch(self.device, ("physics", "render"))
        self._compile()

    def _buffer_sizes(self) -> dict[str, int]:
        settings = self.scene.physics.mujoco_warp
        shared = {
            "naconmax": settings.nconmax,
            "naccdmax": min(settings.nccdmax, settings.nconmax),
        }
        sizes = {name: size * self.num_envs + _SPARE for name, size in shared.items()}
        return sizes | {"njmax": settings.njmax}

    def _bind(self) -> None:
        """Takes the data's arrays as tensors and the indices of what is read from them."""
        host, data, robot = self._world.host, self._world.data, self.scene.robot
        self._data = {name: wp.to_torch(getattr(data, name)) for name in _STATE}
        self.overflows = Overflows(wp.to_torch(data.overflow))
        joints = [host.joint(name).id for name in robot.joint_names]
        columns = {
            "qpos": host.jnt_qposadr[joints],
            "dofs": host.jnt_dofadr[joints],
            "ctrl": [host.actuator(name).id for name in robot.joint_names],
            "sites": [host.site(name).id for name in (*robot.fingertips, robot.grasp_center)],
        }
        device = self.device
        self._index = {
            name: torch.tensor(np.asarray(values), dtype=torch.int64, device=device)
            for name, values in columns.items()
        }
        self._indices = {name: wp.from_torch(value.int()) for name, value in self._index.items()}
        joint = host.joint(OBJECT)
        self._object = int(joint.qposadr[0]), int(joint.dofadr[0]), int(host.body(OBJECT).id)
        self._start = wp.from_torch(torch.from_numpy(host.qpos0).float().to(device))

    def _allocate(self) -> None:
        self.allocate_state()
        shape = (self.scene.substeps, *self.joint_position.shape)
        self._targets = torch.zeros(shape, device=self.device)  # [S, N, J], of each physics step
        self._shown = [
            wp.from_torch(self.joint_position),
            wp.from_torch(self.joint_velocity),
            wp.from_torch(self.object_position),
            wp.from_torch(self.object_quaternion),
            wp.from_torch(self.object_rotation, dtype=wp.mat33),
            wp.from_torch(self.object_velocity),
            wp.from_torch(self.fingertip_position, dtype=wp.vec3),
            wp.from_torch(self.grasp_center_position, dtype=wp.vec3),
        ]
        self._sent = [wp.from_torch(targets) for targets in self._targets]
        self._broken = wp.from_torch(self.diverged)
        self._reset_arrays = self._arrays_of_reset()

    def _arrays_of_reset(self) -> Any:  # of StateArrays, which checkers take for a value
        given, data, (qpos, _, body) = StateArrays(), self._world.data, self._object
        joint_of_dof = torch.full((data.qvel.shape[1],), -1, dtype=torch.int32)
        joint_of_dof[self._index["dofs"].cpu()] = torch.arange(len(self._index["dofs"])).int()
        self._joint_of_dof = joint_of_dof.to(self.device)
        given.joint_of_dof = wp.from_torch(self._joint_of_dof)
        given.qpos_columns, given.ctrl_columns = self._indices["qpos"], self._indices["ctrl"]
        given.object_qpos, given.object_body = qpos, body
        for name in ("qpos", "qvel", "ctrl", "qacc", "qacc_warmstart", "time"):
            setattr(given, name, getattr(data, name))
        given.xfrc_applied = wp.from_torch(self._data["xfrc_applied"])
        given.diverged = self._broken
        return given

    def _compile(self) -> None:
        """Compiles the kernels of a step now: a step must not take minutes."""
        start = {name: value.clone() for name, value in self._data.items()}
        self._physics()
        self.diverged.zero_()
        for name, value in self._data.items():
            value.copy_(start[name])
        self._refresh()

    def _launch_physics(self) -> None:
        model, data = self._world.model, self._world.data
        for targets in self._sent:
            wp.launch(
                apply_targets,
                dim=targets.shape,
                inputs=[targets, self._indices["ctrl"]],
                outputs=[data.ctrl],
            )
            mjw.step(model, data)
        wp.launch(
            replace_broken,
            dim=self.num_envs,
            inputs=[self._start, _LARGEST],
            outputs=[data.qpos, data.qvel, data.qacc, data.qacc_warmstart, self._broken],
        )
        self._launch_reading()

    def _launch_reading(self) -> None:
        model, data, index = self._world.model, self._world.data, self._indices
        mjw.kinematics(model, data)
        states = [data.qpos, data.qvel, data.xmat, data.site_xpos]
        wp.launch(
            read_state,
            dim=self.num_envs,
            inputs=[*states, index["qpos"], index["dofs"], *self._object, index["sites"]],
            outputs=self._shown,
        )

    @override
    def step(self, joint_targets: Tensor) -> None:
        parts = self.in_parts(joint_targets).unsqueeze(1)  # [K, 1, N, J]
        self._targets.unflatten(0, (len(parts), -1)).copy_(parts)
        self._watch.time("physics", self._physics)

    @override
    def reset(
        self,
        env_ids: Tensor,
        joint_position: Tensor,
        object_pose: Tensor,
        joint_velocity: Tensor | None = None,
    ) -> None:
        self.overflows.collect(env_ids)
        if joint_velocity is None:
            joint_velocity = joint_position[:0]
        given = [
            each.contiguous() for each in (env_ids, joint_position, object_pose, joint_velocity)
        ]
        if len(env_ids):
            wp.launch(
                reset_state,
                (len(env_ids), self._data["qvel"].shape[1]),
                [*(wp.from_torch(each, return_ctype=True) for each in given), self._reset_arrays],
                device=self._world.device,
                stream=current_stream(self._world.device),
            )
        self._watch.time("physics", self._refresh)

    @override
    def set_parameters(self, env_ids: Tensor, parameters: PhysicsParameters) -> None:
        self._parameters.set(env_ids, parameters)

    @override
    def push_objects(self, force: Tensor, torque: Tensor) -> None:
        applied = self._data["xfrc_applied"]  # [N, bodies, 6]
        applied[:, self._object[2], :3] = force
        applied[:, self._object[2], 3:] = torque

    @override
    def render_depth(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        view, pose = self._own_depth_view(), _poses_of(poses, 1)
        self._watch.time("render", lambda: view.render(out, *pose))

    @override
    def depth_m(self) -> Tensor:
        view = self._own_depth_view()
        self._watch.time("render", view.draw)
        return view.depth_m

    def _own_depth_view(self) -> DepthView:
        if self._depth_view is None:
            self._depth_view = self._made(lambda: DepthView(self._world, self.scene.camera))
        return self._depth_view

    @override
    def render_stereo_rgb(self, out: Tensor, poses: CameraPoses | None = None) -> None:
        if self._stereo_view is None:
            pair = self.scene.camera.stereo_pair(self.scene.stereo_baseline_m)
            background = self._own_looks().background
            self._stereo_view = self._made(lambda: ColorView(self._world, pair, background))
        view, pose = self._stereo_view, _poses_of(poses, 2)
        self._watch.time("render", lambda: view.render(out, *pose))

    @override
    def render_rgb(self, camera: CameraConfig, out: Tensor) -> None:
        if camera not in self._views:
            background = self._own_looks().background
            view = self._made(lambda: ColorView(self._world, (camera,), background))
            self._views[camera] = view
        view, images = self._views[camera], out.unsqueeze(1)
        self._watch.time("render", lambda: view.render(images))

    def _made(self, make: Callable[[], View]) -> View:
        try:
            return make()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        raise ConfigError(
            f"mujoco_warp: the images of {self.num_envs} environments do not fit into the memory "
            f"of {str(self.device)!r}; lower simulators.num_envs or the camera's resolution"
        )

    @override
    def randomize_looks(self, env_ids: Tensor, keys: Tensor) -> None:
        self._own_looks().draw(env_ids, keys)

    def _own_looks(self) -> DeviceLooks:
        """Made on first use: depth images need none."""
        if self._looks is None:
            self._looks = DeviceLooks(self.scene, self._world.host, self._arrays)
        return self._looks

    @override
    def state_dict(self) -> dict[str, Tensor]:
        state = {name: value.clone() for name, value in self._data.items()}
        own = self._parameters.state_dict()
        return state | {f"parameters.{name}": value for name, value in own.items()}

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        names = [field.name for field in fields(PhysicsParameters)]
        own = {name: state[f"parameters.{name}"].to(self.device) for name in names}
        self._parameters.load_state_dict(own)
        for name, value in self._data.items():
            value.copy_(state[name])
        self.diverged.zero_()
        self._refresh()

    @override
    def timings(self) -> dict[str, float]:
        return self._watch.seconds()

    @override
    def close(self) -> None:
        self._depth_view = self._stereo_view = None
        self._views.clear()


def _poses_of(poses: CameraPoses | None, cameras: int) -> tuple[Tensor, ...]:
    """Positions [N, C, 3] and rotations [N, C, 3, 3] of the first cameras; empty without."""
    return () if poses is None else tuple(each[:, :cameras] for each in poses)


def _too_many(scene: Scene, device: torch.device) -> ConfigError:
    """Says that the environments do not fit, and how many do, found by halving."""
    count = scene.num_envs // 2
    while count and not _fits(replace(scene, object_of_env=scene.object_of_env[:count]), device):
        count //= 2
    return ConfigError(
        f"mujoco_warp: {scene.num_envs} environments do not fit into the memory of "
        f"{str(device)!r}, {count} do; lower simulators.num_envs or the camera's resolution"
    )


def _fits(scene: Scene, device: torch.device) -> bool:
    """Whether there is memory for the environments of a scene and for depth images of them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    engine = MujocoWarpEngine.__new__(MujocoWarpEngine)
    try:
        engine._build(scene, *start_warp(device))
        engine.depth_m()
    except (RuntimeError, ConfigError):
        return False
    return True
