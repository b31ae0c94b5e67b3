"""A benchmark's peer: Gymnasium's vectorised loop over single MuJoCo environments."""

import importlib
import importlib.util
import math
import os
import sys
import time
from typing import Any, ClassVar

import mujoco
import numpy as np
from torch import Tensor

from dexgrasp_sim.physics.mujoco.models import build_models
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_ENVS = 8
"""The cost of this loop per environment does not fall with their number."""


def gymnasium_steps_per_s(
    config: GraspConfig, targets: Tensor, image: tuple[int, int] | None = None
) -> float | None:
    """Control steps per second of Gymnasium's `SyncVectorEnv`.

    Args:
        config: Scene, physics and camera.
        targets: [T, 1, 23] rad joint targets, played from the start posture.
        image: Width and height of depth images from MuJoCo's OpenGL renderer, None for none.

    Returns:
        None if Gymnasium, or OpenGL for the images, is not installed.
    """
    if importlib.util.find_spec("gymnasium") is None:
        return None
    os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo's renderer is first made
    vector = importlib.import_module("gymnasium.vector")

    environment = _environment_class(config, image)
    try:
        mode = vector.AutoresetMode.DISABLED
        envs = vector.SyncVectorEnv([environment] * _ENVS, autoreset_mode=mode)
    except Exception as error:  # a missing driver raises errors of many types
        print(f"no figures of Gymnasium's renderer: {error}", file=sys.stderr)
        return None
    try:
        envs.reset(seed=0)
        actions = targets.expand(-1, _ENVS, -1).numpy()
        started_s = time.perf_counter()
        for action in actions:
            envs.step(action)
        return len(actions) * _ENVS / (time.perf_counter() - started_s)
    finally:
        envs.close()


def _environment_class(config: GraspConfig, image: tuple[int, int] | None) -> Any:
    base = importlib.import_module("gymnasium.envs.mujoco").MujocoEnv
    box = importlib.import_module("gymnasium.spaces").Box
    scene = config.scene(1)
    model = build_models(scene, scene.objects[:1])[0]
    columns = [model.actuator(name).id for name in scene.robot.joint_names]
    width, height = image or (64, 48)
    shape = (height, width) if image else (model.nq + model.nv,)

    class Environment(base):
        """The robot and one object; an observation is the state or a depth image."""

        metadata: ClassVar = {"render_modes": ["depth_array"]}

        def __init__(self) -> None:
            super().__init__(
                __file__,  # a path is asked for; the model comes from `_initialize_simulation`
                config.physics_steps,
                box(-np.inf, np.inf, shape, np.float64),
                render_mode="depth_array" if image else None,
                width=width,
                height=height,
                default_camera_config=_camera_config(config),
            )
            if image:
                self.render()

        def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
            model.vis.global_.fovy = config.camera.fovy_deg
            return model, mujoco.MjData(model)

        def reset_model(self) -> np.ndarray:
            self.set_state(self.init_qpos, self.init_qvel)
            return self._observation()

        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            control = np.zeros(model.nu)
            control[columns] = action
            self.do_simulation(control, self.frame_skip)
            return self._observation(), 0.0, False, False, {}

        def _observation(self) -> np.ndarray:
            return np.asarray(self.render()) if image else self.state_vector()

    return Environment


def _camera_config(config: GraspConfig) -> dict[str, Any]:
    """The task's camera as MuJoCo's free camera, which turns about the point it looks at."""
    forward = config.camera.rotation_ros[:, 2]
    return {
        "lookat": config.camera.position + forward,
        "distance": 1.0,
        "azimuth": math.degrees(math.atan2(forward[1], forward[0])),
        "elevation": math.degrees(math.asin(forward[2])),
    }
