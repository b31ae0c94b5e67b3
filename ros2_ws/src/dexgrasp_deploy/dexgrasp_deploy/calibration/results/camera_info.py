"""Intrinsics of a camera in the YAML file that ROS' camera_info_manager reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from dexgrasp_sim.config import ConfigError, read_values

FISHEYE = "equidistant"
_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8,), FISHEYE: (4,)}
"""Numbers of distortion coefficients of the models of ROS' CameraInfo."""
_EXACT = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-10)
"""OpenCV's default of 5 iterations leaves up to 0.03 px at the edge of a wide lens."""


@dataclass(frozen=True, eq=False)
class CameraInfo:
    """Intrinsics, and the rectification of one camera of a pair.

    Attributes:
        name: Name of the camera.
        width: Pixels per row.
        height: Rows.
        matrix: [3, 3] px, of the image as the camera gives it.
        distortion: [D] coefficients in OpenCV's order: k1, k2, p1, p2, k3, ...
        model: `plumb_bob`, `rational_polynomial` or `equidistant` (fisheye lenses).
        rectification: [3, 3], turns the camera's axes into those of the rectified pair.
        projection: [3, 4] px, of the rectified image; [0, 3] is -focal length * baseline for the
            right camera of a pair.
    """

    name: str
    width: int
    height: int
    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    model: str
    rectification: NDArray[np.float64]
    projection: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def baseline_m(self) -> float:
        """Distance of this camera to the right of the left one of its pair, m; 0 for that one."""
        return -float(self.projection[0, 3]) / float(self.projection[0, 0])

    def ideal_pixels(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points at `pixels` [K, 2] would be without distortion, same camera matrix."""
        if not self.distortion.any():
            return pixels
        points = pixels[:, None]
        if self.model == FISHEYE:
            lens = (self.matrix, self.distortion)
            ideal = cv2.fisheye.undistortPoints(points, *lens, P=self.matrix, criteria=_EXACT)
            return np.asarray(ideal, np.float64).reshape(-1, 2)
        ideal = cv2.undistortImagePoints(points, self.matrix, self.distortion, None, _EXACT)
        return np.asarray(ideal, np.float64).reshape(-1, 2)

    def rectified_pixels(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points at `pixels` [K, 2] are in the rectified image."""
        ideal = self.ideal_pixels(pixels)
        rays = np.concatenate((ideal, np.ones((len(ideal), 1))), axis=1)  # [K, 3]
        turn = self.projection[:, :3] @ self.rectification @ np.linalg.inv(self.matrix)
        turned = rays @ turn.T
        return turned[:, :2] / turned[:, 2:]


def unrectified(
    name: str,
    size: tuple[int, int],
    matrix: NDArray[np.float64],
    distortion: NDArray[np.float64],
    model: str = "plumb_bob",
) -> CameraInfo:
    """Intrinsics of a camera that is not one of a pair."""
    projection = np.concatenate((matrix, np.zeros((3, 1))), axis=1)
    return CameraInfo(name, *size, matrix, distortion, model, np.eye(3), projection)


def project(info: CameraInfo, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels [K, 2] of points [K, 3] m in the camera's optical frame, with distortion."""
    place, lens = np.zeros(3), (info.matrix, info.distortion)
    if info.model == FISHEYE:
        pixels, _ = cv2.fisheye.projectPoints(points[:, None], place, place, *lens)
    else:
        pixels, _ = cv2.projectPoints(points, place, place, *lens)
    return np.asarray(pixels, np.float64).reshape(-1, 2)


def triangulate(
    left: CameraInfo,
    right: CameraInfo,
    left_pixels: NDArray[np.float64],
    right_pixels: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Points [K, 3] m in the left optical frame from their pixels [K, 2] in a rectified pair."""
    first = left.rectified_pixels(left_pixels)
    disparity = first[:, 0] - right.rectified_pixels(right_pixels)[:, 0]
    depth = -right.projection[0, 3] / disparity
    rays = np.concatenate((first, np.ones((len(first), 1))), axis=1)
    rays = rays @ np.linalg.inv(left.projection[:, :3]).T
    return (rays * depth[:, None]) @ left.rectification  # rows: the inverse turn


def write_camera_info(path: Path, info: CameraInfo) -> None:
    """Writes the file."""
    content = {
        "image_width": info.width,
        "image_height": info.height,
        "camera_name": str(info.name),
        "camera_matrix": _as_table(info.matrix),
        "distortion_model": str(info.model),
        "distortion_coefficients": _as_table(info.distortion[None]),
        "rectification_matrix": _as_table(info.rectification),
        "projection_matrix": _as_table(info.projection),
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None))


def read_camera_info(path: Path) -> CameraInfo:
    """Reads the file.

    Raises:
        ConfigError: It is missing or incomplete, a number is wrong, or the distortion model is
            another one.
    """
    values = read_values(path)
    matrix = _table(path, values, "camera_matrix", (3, 3))
    model = values.get("distortion_model")
    if model not in _COEFFICIENTS:
        raise ConfigError(
            f"{path}: `distortion_model` = {model!r}: not one of {', '.join(_COEFFICIENTS)}; "
            "calibrate with one of these, or give rectified images with their camera info"
        )
    distortion = _distortion(path, values, model)
    width, height = (_count(path, values, key) for key in ("image_width", "image_height"))
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and matrix[2].tolist() == [0, 0, 1]):
        raise ConfigError(
            f"{path}: `camera_matrix` has no positive focal lengths or its last row is not "
            "0, 0, 1; calibrate the camera"
        )
    projection = _table(path, values, "projection_matrix", (3, 4))
    if not (projection[0, 0] > 0 and projection[1, 1] > 0):
        raise ConfigError(
            f"{path}: `projection_matrix` has no positive focal lengths; calibrate the camera"
        )
    return CameraInfo(
        str(values.get("camera_name", "camera")),
        width,
        height,
        matrix,
        distortion,
        model,
        _table(path, values, "rectification_matrix", (3, 3)),
        projection,
    )


def _distortion(path: Path, values: dict[str, Any], model: str) -> NDArray[np.float64]:
    entry = values.get("distortion_coefficients")
    data = entry.get("data") if isinstance(entry, dict) else None
    length = len(data) if isinstance(data, list) else -1
    if length not in _COEFFICIENTS[model]:
        raise ConfigError(
            f"{path}: `distortion_coefficients` of {model} must be "
            f"{' or '.join(map(str, _COEFFICIENTS[model]))} numbers; calibrate the camera"
        )
    return _table(path, values, "distortion_coefficients", (1, length))[0]


def _as_table(matrix: NDArray[np.float64]) -> dict[str, Any]:
    rows, cols = matrix.shape
    return {"rows": rows, "cols": cols, "data": matrix.reshape(-1).tolist()}


def _table(
    path: Path, values: dict[str, Any], key: str, shape: tuple[int, int]
) -> NDArray[np.float64]:
    entry = values.get(key)
    entry = entry if isinstance(entry, dict) else {}
    given = entry.get("rows", shape[0]), entry.get("cols", shape[1])
    if given != shape:
        raise ConfigError(f"{path}: `{key}` is {given[0]}x{given[1]}, not {shape[0]}x{shape[1]}")
    try:
        matrix = np.array(entry.get("data"), dtype=np.float64).reshape(shape)
    except (TypeError, ValueError):
        matrix = None
    if matrix is None or not np.isfinite(matrix).all():
        raise ConfigError(
            f"{path}: `{key}` must have `data` of {shape[0] * shape[1]} finite numbers; "
            "calibrate the camera"
        )
    return matrix


def _count(path: Path, values: dict[str, Any], key: str) -> int:
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{path}: `{key}` = {value!r}: must be a positive whole number")
    return value
