"""MuJoCo's batch without the task: what benchmarks measure the task against."""

import numpy as np
from mujoco.batch import Batch
from torch import Tensor

from dexgrasp_sim.physics.mujoco.models import build_models
from dexgrasp_sim.physics.scene import Scene


class BareBatch:
    """The task's models and control period, and nothing that is not physics."""

    def __init__(self, scene: Scene, state: Tensor, threads: int) -> None:
        """Args:
        scene: What to simulate.
        state: Where to start: `state` of `MujocoBatch.state_dict` with the same environments.
        threads: CPU threads.
        """
        kinds = build_models(scene, scene.objects)
        models = [kinds[index] for index in scene.object_of_env]
        self._batch = Batch(models[0], nsim=len(models), nthread=threads)
        self._batch.set_models(models)
        self._batch.state[:] = state.numpy()
        self._control = self._batch.bind("ctrl")
        self._columns = [models[0].actuator(name).id for name in scene.robot.joint_names]
        self._physics_steps = scene.substeps

    def step(self, joint_targets: np.ndarray) -> None:
        """One control period with targets [N, J] rad in the robot's joint order."""
        self._control[:, self._columns] = joint_targets
        self._batch.step(nstep=self._physics_steps)
