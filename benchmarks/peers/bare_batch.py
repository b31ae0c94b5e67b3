"""MuJoCo's batch without the task, with which benchmarks compare the task."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from mujoco.batch import Batch
from torch import Tensor

from dexgrasp_sim.physics.mujoco.models import build_models
from dexgrasp_sim.physics.mujoco.parameters import ModelParameters
from dexgrasp_sim.physics.scene import Scene


class Restart(NamedTuple):
    """Environments [K] to reset, and their MuJoCo states [K, S]."""

    ids: np.ndarray
    states: np.ndarray

    @staticmethod
    def of(ids: Tensor, state: Tensor) -> "Restart":
        """The rows of environments [K] in the state [N, S] of all."""
        return Restart(ids.numpy(), state[ids].numpy())


class BareBatch:
    """The scene's models and control period, and only the physics."""

    def __init__(self, scene: Scene, state: Mapping[str, Tensor], threads: int) -> None:
        """Args:
        scene: What to simulate.
        state: `MujocoBatch.state_dict` of the same environments: where to start, and their
            physical parameters if they have their own.
        threads: CPU threads.
        """
        kinds = build_models(scene, scene.objects)
        models = [kinds[index] for index in scene.object_of_env]
        prefix = "parameters."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if own:
            parameters = ModelParameters(models, scene.robot)
            parameters.load_state_dict(own)
            models = parameters.models
        self._batch = Batch(models[0], nsim=len(models), nthread=threads)
        self._batch.set_models(models)
        self._batch.state[:] = state["state"].numpy()
        self._control = self._batch.bind("ctrl")
        self._columns = [models[0].actuator(name).id for name in scene.robot.joint_names]
        self._physics_steps = scene.substeps

    def step(self, joint_targets: np.ndarray) -> None:
        """One control period with targets [N, J] rad in the robot's joint order."""
        self._control[:, self._columns] = joint_targets
        self._batch.step(nstep=self._physics_steps)

    def restart(self, restart: Restart) -> None:
        """Puts environments into other states, if any."""
        if len(restart.ids):
            self._batch.state[restart.ids] = restart.states
