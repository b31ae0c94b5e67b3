"""MuJoCo's batch without the task: what benchmarks measure the task against."""

from collections.abc import Sequence

import numpy as np
from mujoco.batch import Batch
from torch import Tensor

from dexgrasp_sim.physics.mujoco.models import build_models
from dexgrasp_sim.robot.kuka_allegro import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig


class BareBatch:
    """The task's models and control period, and nothing that is not physics."""

    def __init__(
        self, config: GraspConfig, object_of_env: Sequence[int], state: Tensor, threads: int
    ) -> None:
        """Args:
        config: Scene, objects and physics.
        object_of_env: Index into `config.objects` for each environment.
        state: Where to start: `state` of `MujocoBatch.state_dict` with the same environments.
        threads: CPU threads.
        """
        robot = load_robot()
        kinds = build_models(robot, config.table, config.objects, config.physics)
        models = [kinds[index] for index in object_of_env]
        self._batch = Batch(models[0], nsim=len(models), nthread=threads)
        self._batch.set_models(models)
        self._batch.state[:] = state.numpy()
        self._control = self._batch.bind("ctrl")
        self._columns = [models[0].actuator(name).id for name in robot.joint_names]
        self._physics_steps = config.physics_steps

    def step(self, joint_targets: np.ndarray) -> None:
        """One control period with targets [N, 23] rad in the robot's joint order."""
        self._control[:, self._columns] = joint_targets
        self._batch.step(nstep=self._physics_steps)
