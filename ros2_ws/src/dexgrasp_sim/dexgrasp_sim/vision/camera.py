"""Pinhole cameras: image size, intrinsics and pose, in the conventions of MuJoCo and ROS."""

from typing import Annotated, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT, replace
from dexgrasp_sim.robot.rotation import quaternion_to_matrix

Vector3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Points = TypeVar("Points", np.ndarray, Tensor)

MAX_DEPTH_M = 32.767
"""The largest depth that an int16 image of millimetres holds."""

MUJOCO_TO_ROS = np.array([1.0, -1.0, -1.0])
"""Signs that turn MuJoCo's camera axes into ROS' optical axes."""


@dataclass(frozen=True, config=STRICT)
class CameraConfig:
    """An ideal pinhole camera with square pixels and the principal point at the image centre.

    Two conventions for its axes are offered. MuJoCo: x right, y up, the camera looks along -z.
    ROS optical (REP 103): x right, y down, z forward.

    Pixel coordinates follow OpenCV and ROS: u to the right, v down, whole numbers at pixel
    centres, so that (0, 0) is the centre of the top left pixel.

    Attributes:
        width: Pixels per row.
        height: Rows.
        fovy_deg: Vertical field of view, from the upper edge of the image to the lower.
        position_m: Optical centre in the base frame.
        look_at_m: Point in the base frame that appears at the image centre.
        quaternion_wxyz: Orientation of the MuJoCo camera axes in the base frame, a unit quaternion
            to give instead of `look_at_m`.
        up: Direction in the base frame that points up in the image; only used with `look_at_m`.
        near_m: Depth (along the viewing axis) below which a pixel is invalid.
        far_m: Depth above which a pixel is invalid.
    """

    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    fovy_deg: Annotated[float, Field(gt=0.0, lt=170.0)]
    position_m: Vector3
    look_at_m: Vector3 | None = None
    quaternion_wxyz: Quaternion | None = None
    up: Vector3 = (0.0, 0.0, 1.0)
    near_m: Annotated[float, Field(gt=0.0)] = 0.05
    far_m: Annotated[float, Field(le=MAX_DEPTH_M)] = 5.0

    @model_validator(mode="after")
    def _check(self) -> "CameraConfig":
        if self.near_m >= self.far_m:
            raise ValueError(
                f"near_m {self.near_m} must be below far_m {self.far_m}; change one of them"
            )
        if (self.look_at_m is None) == (self.quaternion_wxyz is None):
            raise ValueError(
                f"look_at_m {self.look_at_m} and quaternion_wxyz {self.quaternion_wxyz}: "
                "give exactly one of them"
            )
        if self.look_at_m is not None:
            self._check_look_at(np.subtract(self.look_at_m, self.position_m))
        elif abs(np.linalg.norm(self.quaternion_wxyz) - 1.0) > 1e-3:  # type: ignore[arg-type]
            raise ValueError(
                f"quaternion_wxyz {self.quaternion_wxyz} is not of unit length (within 1e-3); "
                "normalise it"
            )
        return self

    def _check_look_at(self, direction: np.ndarray) -> None:
        if np.linalg.norm(direction) < 1e-6:
            raise ValueError(
                f"look_at_m {self.look_at_m} must differ from position_m; move one of them"
            )
        sine = np.linalg.norm(np.cross(direction, self.up))
        if sine < 1e-6 * np.linalg.norm(direction) * max(1.0, float(np.linalg.norm(self.up))):
            raise ValueError(
                f"up {self.up} must not be zero or parallel to the viewing direction "
                f"{tuple(direction)}; for a camera that looks straight down use (1, 0, 0)"
            )

    @property
    def focal_px(self) -> float:
        """Focal length in pixels, the same in both directions."""
        return 0.5 * self.height / float(np.tan(np.deg2rad(self.fovy_deg) / 2))

    @property
    def intrinsics(self) -> np.ndarray:
        """[3, 3] float64, pixels: the matrix K of OpenCV and of ROS' CameraInfo."""
        center_u, center_v = (self.width - 1) / 2, (self.height - 1) / 2
        return np.array(
            [[self.focal_px, 0.0, center_u], [0.0, self.focal_px, center_v], [0.0, 0.0, 1.0]]
        )

    @property
    def position(self) -> np.ndarray:
        """[3] float64 m: the optical centre in the base frame."""
        return np.array(self.position_m)

    @property
    def rotation(self) -> np.ndarray:
        """[3, 3] float64: the camera's MuJoCo axes in the base frame, as columns."""
        if self.quaternion_wxyz is not None:
            unit = _unit(np.array(self.quaternion_wxyz))
            return quaternion_to_matrix(torch.from_numpy(unit)).numpy()
        forward = _unit(np.subtract(self.look_at_m, self.position_m))  # type: ignore[arg-type]
        right = _unit(np.cross(forward, self.up))
        return np.stack([right, np.cross(right, forward), -forward], axis=1)

    @property
    def rotation_ros(self) -> np.ndarray:
        """[3, 3] float64: the camera's ROS optical axes in the base frame, as columns."""
        return self.rotation * MUJOCO_TO_ROS

    def project(self, points: Points) -> tuple[Points, Points]:
        """Projects points of the base frame into the image.

        Args:
            points: [..., 3] m, a numpy array or a torch tensor.

        Returns:
            Pixel coordinates (u, v) [..., 2], meaningful where the depth is positive, and the
            depth [...] in m along the viewing axis; of the type of `points`.
        """
        axes, position = self.rotation_ros, self.position
        if isinstance(points, Tensor):
            axes = torch.as_tensor(axes, dtype=points.dtype, device=points.device)
            position = torch.as_tensor(position, dtype=points.dtype, device=points.device)
        in_camera = (points - position) @ axes  # type: ignore[operator]  # [..., 3]
        depth = in_camera[..., 2]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = in_camera[..., 0] / depth * self.focal_px + (self.width - 1) / 2
            v = in_camera[..., 1] / depth * self.focal_px + (self.height - 1) / 2
        stack = torch.stack if isinstance(points, Tensor) else np.stack
        return stack([u, v], -1), depth  # type: ignore[call-overload]

    def sees(self, points: np.ndarray) -> np.ndarray:
        """[...] bool: whether points [..., 3] m, base frame, are in the image and in range."""
        pixel, depth = self.project(points)
        u, v = pixel[..., 0], pixel[..., 1]
        in_image = (np.abs(2 * u - self.width + 1) <= self.width) & (
            np.abs(2 * v - self.height + 1) <= self.height
        )
        return in_image & (depth >= self.near_m) & (depth <= self.far_m)

    def shifted_right(self, distance_m: float) -> "CameraConfig":
        """The same camera moved along its x axis."""
        offset = distance_m * self.rotation[:, 0]
        look_at = None if self.look_at_m is None else _vector(self.look_at_m + offset)
        return replace(self, position_m=_vector(self.position + offset), look_at_m=look_at)

    def stereo_pair(self, baseline_m: float) -> tuple["CameraConfig", "CameraConfig"]:
        """The left camera (this one) and the right one.

        The images are rectified: a point at depth z lies focal_px * baseline_m / z pixels further
        to the left in the right image, in the same row.
        """
        return self, self.shifted_right(baseline_m)


def _vector(values: np.ndarray) -> Vector3:
    x, y, z = values.tolist()
    return x, y, z


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
