"""Converts judged measurements to the observation that the policy was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_deploy.control.sensing.policy_image import policy_image
from dexgrasp_deploy.control.sensing.scene_check import SceneCheck
from dexgrasp_deploy.control.sensing.streams import (
    FreshnessConfig,
    ImageMonitor,
    JointMonitor,
    Measurement,
)
from dexgrasp_deploy.drivers.base import CameraSample, JointSample
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.control.decoder import Decoder
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.observations import GROUPS, Source


class PolicyObserver:
    """Judges what is measured and builds observations of it."""

    def __init__(self, manifest: BundleManifest, robot: Robot, freshness: FreshnessConfig) -> None:
        """Checks that policy and robot fit.

        Raises:
            ConfigError: The policy was trained on another robot or reads a group that no sensor
                measures.
        """
        if tuple(manifest.robot.joint_names) != robot.joint_names:
            raise ConfigError(
                f"bundle {manifest.bundle_id} is for {manifest.robot.name} with joints "
                f"{list(manifest.robot.joint_names)}, this robot has {list(robot.joint_names)}; "
                "use a bundle for this robot"
            )
        unknown = [spec.name for spec in manifest.groups if not _is_measurable(spec.name)]
        if unknown:
            raise ConfigError(
                f"bundle {manifest.bundle_id} reads {', '.join(unknown)}, which no sensor of the "
                "robot measures; distil it into a policy that reads images"
            )
        self._joints = JointMonitor(robot, freshness)
        self._images = ImageMonitor(robot, freshness, manifest.task.camera)
        self._scene = SceneCheck(manifest.task.camera, manifest.task.table)
        self._manifest = manifest
        self._proprioception = Proprioception(robot, manifest.task.action)
        self._proprio = self._proprioception.spec.empty(1)
        self._sees_velocities = manifest.task.observation_noise.joint_velocities

    @property
    def needs_image(self) -> bool:
        """Whether the policy reads images."""
        return self._manifest.image is not None

    def begin(self) -> None:
        """Forgets the images of the episode before."""
        self._images.reset()

    def commanded(self, position: NDArray[np.float64] | None) -> None:
        """Tells what was sent last, [J] rad; None: nothing is sent any more."""
        self._joints.commanded(position)

    def joints(self, samples: Sequence[JointSample], now_s: float) -> Measurement:
        """The measured joints; see `JointMonitor.judge` for the errors."""
        return self._joints.judge(samples, now_s)

    def image(
        self, sample: CameraSample | None, position: NDArray[np.float64], now_s: float
    ) -> NDArray[Any] | None:
        """The image as the policy reads it; None for a policy that reads none.

        Args:
            sample: The newest exposure.
            position: [J] rad, measured.
            now_s: Monotonic time.

        Raises:
            UnfitInput: The exposure is missing, too old, frozen, of another kind, without usable
                intrinsics, or cannot be the scene.
        """
        spec = self._manifest.image
        if spec is None:
            return None
        fit = self._images.judge(sample, position, now_s)
        self._scene.judge(fit, spec.name)
        task = self._manifest.task
        return policy_image(fit, task.camera, spec.name, task.table.top_m)

    def observe(
        self,
        measured: Measurement,
        image: NDArray[Any] | None,
        decoder: Decoder,
        last_action: NDArray[np.float32],
        time_fraction: float,
    ) -> dict[str, NDArray[Any]]:
        """The policy's observation.

        Args:
            measured: From `joints`.
            image: From `image`.
            decoder: The decoder that turns the actions of this episode into joint targets.
            last_action: [A], the action of the previous control step.
            time_fraction: 0 at the start of the episode to 1 at its time-out.

        Returns:
            Group name to an array with the shape and dtype of the manifest's spec.
        """
        velocity = measured.velocity
        seen = velocity if self._sees_velocities else np.zeros_like(velocity)  # [J]
        self._proprioception.observe(
            torch.from_numpy(measured.position).float().unsqueeze(0),
            torch.from_numpy(seen).float().unsqueeze(0),
            decoder,
            torch.from_numpy(last_action).unsqueeze(0),
            torch.tensor([time_fraction]),
            self._proprio,
        )
        observation: dict[str, NDArray[Any]] = {"proprio": self._proprio[0].numpy().copy()}
        if self._manifest.image is not None and image is not None:
            observation[self._manifest.image.name] = image
        return observation


def _is_measurable(group: str) -> bool:
    return group in GROUPS and GROUPS[group].source is not Source.NOTHING
