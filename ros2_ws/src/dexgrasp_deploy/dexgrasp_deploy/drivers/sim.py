"""The simulated twin behind the driver interface: the physics of the training in real time.

Arm and hand share one world, stepped in the process of `robot_driver_node`. The camera runs in
its own process and renders the same scene from the joint states and the object pose that the world
publishes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import (
    ArmDriver,
    CameraSample,
    DriverContext,
    HandDriver,
    Health,
    Intrinsics,
    JointDriver,
    JointSample,
    Level,
    SceneCamera,
)
from dexgrasp_deploy.drivers.camera_config import SimCameraConfig
from dexgrasp_deploy.drivers.joint_config import NoParameters
from dexgrasp_deploy.drivers.registry import driver_config
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.physics.backends import make_engine
from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import RESULT_SPECS
from dexgrasp_sim.tasks.grasp.images import Images

_CATCH_UP_S = 0.25
"""Simulated time may lag the clock by at most this; a longer lag is dropped and reported."""


def _task_of(manifest: BundleManifest) -> GraspConfig:
    """The task of a bundle in MuJoCo's C engine, whatever engine the policy was trained in.

    The others are made for many environments: to start one takes them long, and may need a GPU.
    """
    physics = replace(manifest.task.physics, backend="mujoco")
    return replace(manifest.task, physics=physics)


class SimWorld:
    """Robot, table and object of the bundle's training task, advanced by the clock.

    Episode k of the world is the first episode of environment k of a training run with the same
    seed: its object is number k modulo the number of objects.
    """

    def __init__(self, context: DriverContext) -> None:
        """Raises ConfigError without a bundle."""
        task = _task_of(context.required_manifest("driver 'sim'"))
        self.task = replace(task, control_hz=1.0 / task.physics.timestep_s, stagger_starts=False)
        self.seed = context.seed
        self._clock = context.clock
        self._joint_names = context.robot.joint_names
        self._columns = {name: index for index, name in enumerate(self._joint_names)}
        self.episode = -1
        self.dropped_s = 0.0
        self._begin(0)

    @property
    def object(self) -> ObjectConfig:
        """Which object lies on the table."""
        return self.task.objects[int(self._env.object_index[0])]

    @property
    def start_height_m(self) -> float:
        """Height of the object's centre at rest on the table, base frame."""
        return float(self._env.start_height[0])

    @property
    def object_pose(self) -> NDArray[np.float64]:
        """[7] xyz m and quaternion wxyz, base frame."""
        return self._env.telemetry(0)["object_pose"].double().numpy()

    def reset(self, seed: int | None = None) -> None:
        """Begins the next episode: robot at the start posture, object at a new place.

        Args:
            seed: Another value begins the sequence of episodes of that seed; None keeps the seed.
        """
        if seed is not None and seed != self.seed:
            self.seed, self.episode = seed, -1
        self.episode += 1
        self._env.close()
        self._begin(self.episode)

    def _begin(self, episode: int) -> None:
        self._env = make_grasp_env(self.task, 1, self.seed, 1, (), env_offset=episode)
        self._env.reset({spec.name: spec.empty(1) for spec in RESULT_SPECS})
        self._targets = self._env.engine.joint_position.clone()
        self._time_s = self._clock()

    def advance(self) -> None:
        """Steps the physics to the present."""
        now_s, step_s = self._clock(), self.task.physics.timestep_s
        if now_s - self._time_s > _CATCH_UP_S:
            self.dropped_s += now_s - self._time_s - _CATCH_UP_S
            self._time_s = now_s - _CATCH_UP_S
        for _ in range(int((now_s - self._time_s) / step_s)):
            self._env.engine.step(self._targets)
            self._time_s += step_s

    def read(self, names: Sequence[str]) -> JointSample:
        """The named joints at the newest step."""
        columns = [self._columns[name] for name in names]
        engine = self._env.engine
        position = engine.joint_position[0, columns].double().numpy()
        velocity = engine.joint_velocity[0, columns].double().numpy()
        return JointSample(tuple(names), position, velocity, self._time_s)

    def write(self, positions: Mapping[str, float]) -> None:
        """Sets servo targets, rad by joint name."""
        for name, value in positions.items():
            self._targets[0, self._columns[name]] = value

    def close(self) -> None:
        """Frees the engine; idempotent."""
        self._env.close()


class _SimJoints(JointDriver):
    """Some joints of the shared world."""

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Needs a bundle; see `SimWorld`."""
        driver_config(NoParameters, self.kind, parameters)
        self.joint_names = self.own_joints(context.robot)
        self.world = context.shared(SimWorld)

    def read(self) -> JointSample:
        """Advances the world to the present and measures it."""
        self.world.advance()
        return self.world.read(self.joint_names)

    def write(self, positions: Mapping[str, float]) -> None:
        """Sets servo targets."""
        self.world.write({n: v for n, v in positions.items() if n in self.joint_names})

    def health(self) -> Health:
        """Warns when the computer is too slow for real time."""
        if self.world.dropped_s > 0:
            return Health(Level.WARN, f"simulation lost {self.world.dropped_s:.2f} s")
        return Health()


class SimArm(_SimJoints, ArmDriver):
    """The arm of the simulated world."""


class SimHand(_SimJoints, HandDriver):
    """The hand of the simulated world."""


class SimCamera(SceneCamera):
    """The training camera, which renders the given scene with the image errors of training.

    Errors of the camera's pose and of the scene's appearance, which training draws for each
    episode, are drawn once.

    Parameters: SimCameraConfig.
    """

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Renders once, so that the image kernels are compiled before the robot moves.

        Raises:
            ConfigError: No bundle was given, or a parameter is wrong.
        """
        config = driver_config(SimCameraConfig, self.kind, parameters)
        manifest = context.required_manifest("camera.driver = 'sim'")
        self._task = _task_of(manifest)
        read_by_policy = manifest.image.name if manifest.image else "depth"
        self._kind = read_by_policy if config.kind == "policy" else config.kind
        self._period_s = 1.0 / config.rate_hz
        self._order = context.robot.joint_names
        self._seed = context.seed
        self._engines: dict[str, PhysicsEngine] = {}
        self._images: dict[str, Images] = {}
        self._exposures = 0
        self._last_s = -np.inf
        self._stamp_s: float | None = None
        self._object_name = self._task.objects[0].name
        self._draw()

    def observe(
        self, joints: JointSample, object_pose: NDArray[np.float64], object_name: str
    ) -> None:
        """See `SceneCamera.observe`; scenes that arrive faster than the rate are skipped.

        Raises:
            ValueError: The task has no such object.
        """
        half_step_s = self._task.physics.timestep_s / 2
        if joints.stamp_s - self._last_s < self._period_s - half_step_s:
            return
        place = {name: index for index, name in enumerate(joints.names)}
        position = joints.position[[place[name] for name in self._order]]
        self._object_name, self._stamp_s = object_name, joints.stamp_s
        self._engine().reset(
            torch.zeros(1, dtype=torch.int64),
            torch.from_numpy(position).float().unsqueeze(0),
            torch.from_numpy(object_pose).float().unsqueeze(0),
        )

    def read(self) -> CameraSample | None:
        """The image of the newest scene; None if it was returned before."""
        if self._stamp_s is None:
            return None
        camera = self._task.camera
        intrinsics = Intrinsics.centered(camera.width, camera.height, camera.focal_px)
        sample = CameraSample(self._draw(), self._stamp_s, intrinsics)
        self._last_s, self._stamp_s = self._stamp_s, None
        return sample

    def deactivate(self) -> None:
        """Frees the renderers."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        self._images.clear()

    def _engine(self) -> PhysicsEngine:
        name = self._object_name
        if name not in self._engines:
            objects = tuple(item for item in self._task.objects if item.name == name)
            if not objects:
                raise ValueError(f"the bundle's task has no object {name!r}")
            task = replace(self._task, objects=objects)
            self._engines[name] = make_engine(task.scene(1))
            first = torch.zeros(1, dtype=torch.int64)
            streams = RandomStreams(self._seed, first)
            images = Images(task, self._engines[name], streams, (self._kind,))
            images.begin(ids=first, episode=first)
            self._images[name] = images
        return self._engines[name]

    def _draw(self) -> NDArray[Any]:
        camera = self._task.camera
        self._engine()
        draw = self._images[self._object_name]
        step = torch.tensor([self._exposures])
        self._exposures += 1
        if self._kind == "depth":
            depth = torch.zeros(1, camera.height, camera.width, dtype=torch.int16)
            draw.write_depth(step, depth)
            return depth[0].numpy().astype(np.uint16)
        images = torch.zeros(1, 2, 3, camera.height, camera.width, dtype=torch.uint8)
        draw.write_stereo_rgb(step, images)
        return np.ascontiguousarray(images[0].numpy().transpose(0, 2, 3, 1))
