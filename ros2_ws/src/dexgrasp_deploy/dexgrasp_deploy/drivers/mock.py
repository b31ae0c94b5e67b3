"""Drivers without hardware or physics: joints that move at once, a camera with a test pattern."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dexgrasp_deploy.control.sensing.scene_check import table_depth
from dexgrasp_deploy.drivers.base import (
    ArmDriver,
    CameraDriver,
    CameraSample,
    DriverContext,
    HandDriver,
    Intrinsics,
    JointDriver,
    JointSample,
)
from dexgrasp_deploy.drivers.camera_config import MockCameraConfig
from dexgrasp_deploy.drivers.joint_config import NoParameters
from dexgrasp_deploy.drivers.registry import driver_config


class _MockJoints(JointDriver):
    """Joints that are at their last commanded position, first at the policy's start posture."""

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Needs no parameters; without a bundle the joints start at 0 inside their limits."""
        driver_config(NoParameters, self.kind, parameters)
        self.joint_names = self.own_joints(context.robot)
        self._clock = context.clock
        if context.manifest is not None:
            robot = context.manifest.robot
            start = dict(zip(robot.joint_names, robot.start_position_rad, strict=True))
        else:
            robot_model = context.robot
            zeros = np.clip(0.0, robot_model.lower, robot_model.upper)
            start = dict(zip(robot_model.joint_names, zeros.tolist(), strict=True))
        self._position = {name: start[name] for name in self.joint_names}

    def read(self) -> JointSample:
        """The last commanded positions, with velocity 0 and the present time."""
        position = np.array([self._position[name] for name in self.joint_names])
        return JointSample(self.joint_names, position, np.zeros_like(position), self._clock())

    def write(self, positions: Mapping[str, float]) -> None:
        """Moves there at once."""
        for name in self.joint_names:
            self._position[name] = positions.get(name, self._position[name])


class MockArm(_MockJoints, ArmDriver):
    """An arm that moves at once."""


class MockHand(_MockJoints, HandDriver):
    """A hand that moves at once."""


class MockCamera(CameraDriver):
    """The empty table behind a bar that moves from exposure to exposure, or a moving ramp of
    colour: whatever the policy reads, in the size of the training camera.

    Parameters: MockCameraConfig.
    """

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Raises ConfigError without a bundle or for a rate that is not positive."""
        config = driver_config(MockCameraConfig, self.kind, parameters)
        manifest = context.required_manifest("camera.driver = 'mock'")
        self._camera = manifest.task.camera
        self._table_mm = 1000 * table_depth(self._camera, manifest.task.table)
        self._stereo = manifest.image is not None and manifest.image.name == "stereo_rgb"
        self._period_s = 1.0 / config.rate_hz
        self._clock = context.clock
        self._next_s = context.clock()
        self._count = 0

    def read(self) -> CameraSample | None:
        """The next exposure if it is due, else None."""
        now_s = self._clock()
        if now_s < self._next_s:
            return None
        self._next_s = max(self._next_s + self._period_s, now_s)
        self._count += 1
        pixels = self._stereo_image() if self._stereo else self._depth_image()
        camera = self._camera
        intrinsics = Intrinsics.centered(camera.width, camera.height, camera.focal_px)
        return CameraSample(pixels, now_s, intrinsics)

    def _depth_image(self) -> np.ndarray:
        depth = self._table_mm.copy()
        depth[:, self._count % self._camera.width] *= 0.9
        return depth.round().astype(np.uint16)

    def _stereo_image(self) -> np.ndarray:
        camera = self._camera
        ramp = np.linspace(0, 255, camera.width).astype(np.uint8)
        pair = np.stack((np.roll(ramp, self._count), np.roll(ramp, self._count - 1)))
        shape = (2, camera.height, camera.width, 3)
        return np.broadcast_to(pair[:, np.newaxis, :, np.newaxis], shape).copy()
