"""MuJoCo Warp without the task and without our engine's work, with which `gpu_sim` compares."""

import mujoco_warp as mjw
import torch
import warp as wp
from torch import Tensor

from dexgrasp_sim.physics.mujoco_warp.engine import MujocoWarpEngine
from dexgrasp_sim.physics.mujoco_warp.kernels import place_cameras
from dexgrasp_sim.physics.mujoco_warp.launches import Launches
from dexgrasp_sim.physics.mujoco_warp.views import DepthView


class RawWarp:
    """Physics steps and depth images of an engine's own model and state; one CUDA graph."""

    def __init__(self, engine: MujocoWarpEngine, substeps: int) -> None:
        """Args:
        engine: Its model, data and cameras are used.
        substeps: Physics steps of a control step.
        """
        self._world, self._substeps = engine._world, substeps
        self._view = DepthView(self._world, engine.scene.camera)
        host = self._world.host
        actuators = [host.actuator(name).id for name in engine.scene.robot.joint_names]
        self._columns = torch.tensor(actuators, device=engine.device)
        self._control = wp.to_torch(self._world.data.ctrl)
        self._run = Launches(self._world.device, self._launch)

    def step(self, joint_targets: Tensor) -> None:
        """One control step with an image.

        Args:
            joint_targets: [N, J] rad in the robot's joint order.
        """
        self._control[:, self._columns] = joint_targets
        self._run()

    def _launch(self) -> None:
        model, data = self._world.model, self._world.data
        for _ in range(self._substeps):
            mjw.step(model, data)
        # a step puts the cameras where the model has them; from there a ray costs less
        wp.launch(
            place_cameras,
            dim=data.nworld,
            inputs=[self._view._positions, self._view._rotations, model.light_dir],
            outputs=[data.cam_xpos, data.cam_xmat, data.light_xdir],
        )
        mjw.refit_bvh(model, data, self._view.context)
        mjw.render(model, data, self._view.context)
