"""A calibrated camera against the one with which a policy was trained."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dexgrasp_deploy.calibration.results.camera_info import CameraInfo
from dexgrasp_deploy.calibration.results.extrinsics import Extrinsics
from dexgrasp_deploy.calibration.transforms import rotation_vectors, transform
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_UNSEEN_PX = 0.5
"""A shift of less than half a pixel of the policy's image is not visible to it."""
_VIEW_TOLERANCE = 0.02
"""As in `control/observation.py`: a camera may see that much less than the training camera."""


@dataclass(frozen=True)
class Deviation:
    """One quantity of the camera against its range in training.

    Attributes:
        name: What it is, with the unit.
        value: Calibrated minus trained.
        allowed: Largest absolute value.
    """

    name: str
    value: float
    allowed: float

    @property
    def is_inside(self) -> bool:
        """Whether training covered it."""
        return bool(abs(self.value) <= self.allowed)

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "name": self.name,
            "value": self.value,
            "allowed": self.allowed,
            "inside": self.is_inside,
        }

    def __str__(self) -> str:
        return f"{self.name} {self.value:+.3g} (trained with at most {self.allowed:.3g})"


def compare_pose(
    extrinsics: Extrinsics, task: GraspConfig, info: CameraInfo | None = None
) -> list[Deviation]:
    """Position and orientation of the (left) camera against `task.camera` and its jitter.

    What is allowed is the range of `task.image.camera_jitter`, and half a pixel of the policy's
    image on top, at the distance of the spawn area.

    Args:
        extrinsics: Of the camera whose images are not rectified.
        task: The training task.
        info: Its lens; a rectified image looks along other axes than the camera.

    Raises:
        ConfigError: The camera is on the hand, or in the frame of another robot.
    """
    root = task.load_robot().root
    if extrinsics.parent != root:
        raise ConfigError(
            f"the camera is calibrated in {extrinsics.parent!r}, the policy was trained with one "
            f"that stands still in {root!r}; calibrate the camera of the policy eye-to-base"
        )
    jitter, camera = task.image.camera_jitter, task.camera
    trained = transform(camera.rotation_ros, camera.position)
    spawn = np.array([*task.spawn.center_m, task.table.top_m])
    angle_rad = _UNSEEN_PX / camera.focal_px
    position_m = angle_rad * float(np.linalg.norm(spawn - camera.position))
    moved = extrinsics.matrix[:3, 3] - camera.position
    axes = extrinsics.matrix[:3, :3] @ (np.eye(3) if info is None else info.rectification.T)
    turned = rotation_vectors((trained[:3, :3].T @ axes)[None])[0]
    names = "xyz"
    return [
        Deviation(f"position {axis} in mm", 1e3 * value, 1e3 * (jitter.position_m + position_m))
        for axis, value in zip(names, moved.tolist())
    ] + [
        Deviation(
            f"rotation about the camera's {axis} in degrees",
            math.degrees(value),
            math.degrees(jitter.rotation_rad + angle_rad),
        )
        for axis, value in zip(names, turned.tolist())
    ]


def compare_lens(info: CameraInfo, task: GraspConfig) -> list[Deviation]:
    """Lens of the camera against that of training, an ideal pinhole centred in its image.

    The rectified image counts where there is one. Deployment crops an image around its centre to
    the training camera's field of view.
    """
    camera = task.camera
    fx, fy = info.projection[0, 0], info.projection[1, 1]
    centre = info.projection[:2, 2] - (np.array(info.size) - 1) / 2
    angle_rad = task.image.camera_jitter.rotation_rad + _UNSEEN_PX / camera.focal_px
    result = [
        Deviation(
            f"{name} of the principal point from the image centre in degrees",
            math.degrees(math.atan2(offset, focal)),
            math.degrees(angle_rad),
        )
        for name, offset, focal in zip(("offset u", "offset v"), centre.tolist(), (fx, fy))
    ]
    wanted = np.array([camera.width, camera.height]) / (2 * camera.focal_px)
    seen = np.array(info.size) / (2 * np.array([fx, fy]))
    for name, share in zip(("width", "height"), (wanted / seen - 1).tolist()):
        missing = 100 * max(0.0, share)
        result.append(
            Deviation(f"missing {name} of the field of view in %", missing, 100 * _VIEW_TOLERANCE)
        )
    # by how much a non-square pixel stretches the image at its edge
    stretch = abs(float(fy / fx) - 1) * camera.width / 2
    result.append(Deviation("stretch at the edge in px of the policy", stretch, _UNSEEN_PX))
    return result + list(_lens_distortion(info, task))


def _lens_distortion(info: CameraInfo, task: GraspConfig) -> Iterator[Deviation]:
    """Largest shift by distortion in the training camera's view; rectified images have none."""
    is_rectified = not np.allclose(info.projection[:, :3], info.matrix) or not np.allclose(
        info.rectification, np.eye(3)
    )
    if is_rectified or not info.distortion.any():
        return
    camera = task.camera
    u, v = np.meshgrid(np.linspace(-0.5, 0.5, 9) * camera.width, [-0.5 * camera.height, 0.0])
    rays = np.stack((u, v), -1).reshape(-1, 2) / camera.focal_px
    pixels = rays @ np.diag(np.diag(info.matrix)[:2]) + info.matrix[:2, 2]
    inside = np.all((pixels > 0) & (pixels < np.array(info.size) - 1), axis=1)
    shift = np.linalg.norm(info.ideal_pixels(pixels) - pixels, axis=1)[inside]
    if len(shift):
        scale = camera.focal_px / float(info.matrix[0, 0])
        yield Deviation(
            "shift by distortion in px of the policy", scale * float(shift.max()), _UNSEEN_PX
        )


def compare_pair(right: CameraInfo, task: GraspConfig) -> list[Deviation]:
    """Baseline of a rectified pair against `task.stereo_baseline_m` and its jitter.

    Raises:
        ConfigError: The right camera's projection matrix has no baseline.
    """
    baseline_m = right.baseline_m
    if not baseline_m > 0:
        raise ConfigError(
            "the right camera's projection matrix has no baseline (its [0, 3] must be negative); "
            "give the right.yaml of `dexgrasp calibrate stereo`"
        )
    camera = task.camera
    near = np.linalg.norm(np.array([*task.spawn.center_m, task.table.top_m]) - camera.position)
    allowed = task.image.camera_jitter.stereo_position_m
    allowed += _UNSEEN_PX / camera.focal_px * float(near)
    change = baseline_m - task.stereo_baseline_m
    return [Deviation("baseline in mm", 1e3 * change, 1e3 * allowed)]
