"""How far the hand moves in the image, which tells a repeated image from a still scene."""

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.vision.camera import CameraConfig

Vector = NDArray[np.float64]

_BORDER_PX = 1
"""What is this near to the border may be out of view already."""


class RobotInView:
    """Palm, grasp centre and fingertips in the training camera's image."""

    def __init__(self, robot: Robot, camera: CameraConfig) -> None:
        """Args:
        robot: The robot.
        camera: The training camera; the robot's camera stands there too.
        """
        self._kinematics = Kinematics(robot, robot.task_frames)
        self._camera = camera

    def moved_px(self, before: Vector, now: Vector) -> float:
        """Largest motion in the image of a point that is in view at one of the joint positions.

        Args:
            before: [J] rad.
            now: [J] rad.

        Returns:
            Pixels of the training camera; 0 where no point is in view.
        """
        joints = torch.from_numpy(np.stack((before, now))).float()
        points = self._kinematics.forward(joints).position.double().numpy()  # [2, P, 3]
        pixels, _ = self._camera.project(points)  # [2, P, 2]
        size = np.array([self._camera.width, self._camera.height])
        inside = (np.abs(2 * pixels - size + 1) <= size - 2 * _BORDER_PX).all(axis=-1)
        seen = (inside & self._camera.sees(points)).any(axis=0)  # [P]
        moved = np.linalg.norm(pixels[1] - pixels[0], axis=-1)
        return float(moved[seen].max(initial=0.0))
