"""Converts time-stamped sensor samples to the observation that the policy was trained on."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.control.episode import Reason
from dexgrasp_deploy.drivers.base import CameraSample, JointSample
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import STRICT, ConfigError
from dexgrasp_sim.control.decoder import Decoder
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.observations import GROUPS, Source
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.preprocess import resize_depth, resize_rgb

Positive = Annotated[float, Field(gt=0)]
_FIELD_OF_VIEW_TOLERANCE = 0.02


@dataclass(frozen=True, config=STRICT)
class FreshnessConfig:
    """Largest age of a measurement that the policy may act on.

    Attributes:
        max_joint_age_s: For joint measurements.
        max_image_age_s: For images.
    """

    max_joint_age_s: Positive = 0.2
    max_image_age_s: Positive = 0.3


class UnfitInput(RuntimeError):
    """A measurement must not be acted on.

    Attributes:
        reason: Which rule it breaks.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PolicyObserver:
    """Builds observations; refuses what is stale, not finite or of another robot."""

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
        self._names = robot.joint_names
        self._freshness = freshness
        self._manifest = manifest
        self._proprioception = Proprioception(robot, manifest.task.action)
        self._proprio = self._proprioception.spec.empty(1)
        self._sees_velocities = manifest.task.observation_noise.joint_velocities

    @property
    def needs_image(self) -> bool:
        """Whether the policy reads images."""
        return self._manifest.image is not None

    def image_is_fresh(self, image: CameraSample | None, now_s: float) -> bool:
        """Whether the image is recent enough; True for a policy that reads no images."""
        if not self.needs_image:
            return True
        return image is not None and now_s - image.stamp_s <= self._freshness.max_image_age_s

    def joints(
        self, sample: JointSample | None, now_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position [J] rad and velocity [J] rad/s in the robot's joint order.

        Raises:
            UnfitInput: No sample, too old, a joint is missing, or a value is not finite.
        """
        limit_s = self._freshness.max_joint_age_s
        if sample is None or now_s - sample.stamp_s > limit_s:
            age = "none arrived" if sample is None else f"{now_s - sample.stamp_s:.3f} s old"
            raise UnfitInput(Reason.STALE_JOINTS, f"joints: {age}, allowed {limit_s} s")
        order = _order(sample.names, self._names)
        position, velocity = sample.position[order], sample.velocity[order]
        if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
            raise UnfitInput(Reason.BAD_MEASUREMENT, "joints: a value is not finite")
        return position, velocity

    def observe(
        self,
        position: NDArray[np.float64],
        velocity: NDArray[np.float64],
        image: CameraSample | None,
        decoder: Decoder,
        last_action: NDArray[np.float32],
        time_fraction: float,
        now_s: float,
    ) -> dict[str, NDArray[Any]]:
        """The policy's observation.

        Args:
            position: [J] rad, from `joints`.
            velocity: [J] rad/s, from `joints`.
            image: The newest exposure; None if there is none.
            decoder: The decoder that turns the actions of this episode into joint targets.
            last_action: [A], the action of the previous control step.
            time_fraction: 0 at the start of the episode to 1 at its time-out.
            now_s: Monotonic time.

        Returns:
            Group name to an array with the shape and dtype of the manifest's spec.

        Raises:
            UnfitInput: The image is missing, too old or of another kind.
        """
        seen = velocity if self._sees_velocities else np.zeros_like(velocity)  # [J]
        self._proprioception.observe(
            torch.from_numpy(position).float().unsqueeze(0),
            torch.from_numpy(seen).float().unsqueeze(0),
            decoder,
            torch.from_numpy(last_action).unsqueeze(0),
            torch.tensor([time_fraction]),
            self._proprio,
        )
        observation: dict[str, NDArray[Any]] = {"proprio": self._proprio[0].numpy().copy()}
        spec = self._manifest.image
        if spec is not None:
            pixels = self._fresh_pixels(image, now_s)
            observation[spec.name] = policy_image(
                pixels, image.focal_px if image else None, self._manifest.task.camera, spec.name
            )
        return observation

    def _fresh_pixels(self, image: CameraSample | None, now_s: float) -> NDArray[Any]:
        if image is None or not self.image_is_fresh(image, now_s):
            age = "none arrived" if image is None else f"{now_s - image.stamp_s:.3f} s old"
            allowed_s = self._freshness.max_image_age_s
            raise UnfitInput(Reason.STALE_IMAGE, f"image: {age}, allowed {allowed_s} s")
        return image.image


def _is_measurable(group: str) -> bool:
    return group in GROUPS and GROUPS[group].source is not Source.NOTHING


def policy_image(
    pixels: NDArray[Any], focal_px: float | None, camera: CameraConfig, group: str
) -> NDArray[Any]:
    """Converts a camera's image to the format of the simulated camera in training.

    The image is cropped around its centre to the training camera's field of view and resized;
    depth outside the training camera's range becomes 0.

    Args:
        pixels: Depth [H, W] uint16 mm, or stereo [2, H, W, 3] uint8 RGB.
        focal_px: Focal length of the camera; None when it has the training camera's field of view.
        camera: The training camera.
        group: `depth` or `stereo_rgb`.

    Returns:
        [h, w] int16 mm or [2, 3, h, w] uint8, in the training camera's size.

    Raises:
        UnfitInput: The image is of another kind, or the camera sees less than the training camera.
    """
    wanted = ("uint16", 2) if group == "depth" else ("uint8", 4)
    if (pixels.dtype.name, pixels.ndim) != wanted:
        raise UnfitInput(
            Reason.BAD_MEASUREMENT,
            f"image: {pixels.dtype.name} {list(pixels.shape)} does not fit the group {group!r}",
        )
    size = (camera.height, camera.width)
    if group == "depth":
        rows, columns = _crop(pixels.shape[0], pixels.shape[1], focal_px, camera)
        depth = pixels[rows, columns]
        near_mm, far_mm = camera.near_m * 1000, camera.far_m * 1000
        in_range = np.where((depth < near_mm) | (depth > far_mm), 0, depth).astype(np.int16)
        return resize_depth(torch.from_numpy(in_range), *size).numpy()
    rows, columns = _crop(pixels.shape[1], pixels.shape[2], focal_px, camera)
    planes = np.ascontiguousarray(pixels[:, rows, columns].transpose(0, 3, 1, 2))
    return resize_rgb(torch.from_numpy(planes), *size).numpy()


def _crop(
    height: int, width: int, focal_px: float | None, camera: CameraConfig
) -> tuple[slice, slice]:
    """Rows and columns that show the training camera's field of view."""
    scale = height / camera.height if focal_px is None else focal_px / camera.focal_px
    rows, columns = round(scale * camera.height), round(scale * camera.width)
    slack = 1 + _FIELD_OF_VIEW_TOLERANCE
    if rows > slack * height or columns > slack * width:
        raise UnfitInput(
            Reason.BAD_MEASUREMENT,
            f"image: {width}x{height} shows less than the training camera, whose field of view "
            f"would be {columns}x{rows} pixels; use a wider lens or train with this camera",
        )
    rows, columns = min(rows, height), min(columns, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def _order(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The index of each wanted joint in a sample."""
    place = {name: index for index, name in enumerate(names)}
    missing = [name for name in wanted if name not in place]
    if missing:
        raise UnfitInput(Reason.BAD_MEASUREMENT, f"joints: {', '.join(missing)} not measured")
    return [place[name] for name in wanted]
