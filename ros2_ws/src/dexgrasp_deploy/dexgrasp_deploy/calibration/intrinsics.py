"""Intrinsics of a camera from images of the board in many positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.board import BoardConfig, BoardView
from dexgrasp_deploy.calibration.images import BoardImages
from dexgrasp_deploy.calibration.quality import Check, Verdict, image_coverage
from dexgrasp_deploy.calibration.results.camera_info import CameraInfo, unrectified
from dexgrasp_sim.config import ConfigError

LEAST_IMAGES = 6
"""Fewer do not determine focal length, centre and five distortion coefficients safely."""
_MODELS = {"plumb_bob": 0, "rational_polynomial": cv2.CALIB_RATIONAL_MODEL}
_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class IntrinsicsResult:
    """Intrinsics and how good they are.

    Attributes:
        info: The intrinsics.
        rms_px: Reprojection error of all corners of the used images.
        image_rms_px: The same for each used image, by name.
        residuals: [K, 4] px: place of each used corner, and measured minus predicted.
        rejected: Images that do not fit the others, with their error in px.
        focal_std_px: Standard deviation of the focal length.
        verdict: Verdict.
    """

    info: CameraInfo
    rms_px: float
    image_rms_px: dict[str, float]
    residuals: NDArray[np.float64]
    rejected: dict[str, float]
    focal_std_px: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "kind": "intrinsics",
            **self.verdict.to_dict(),
            "rms_px": self.rms_px,
            "focal_px": [self.info.matrix[0, 0], self.info.matrix[1, 1]],
            "focal_std_px": self.focal_std_px,
            "center_px": self.info.matrix[:2, 2].tolist(),
            "distortion": self.info.distortion.tolist(),
            "image_rms_px": self.image_rms_px,
            "rejected": self.rejected,
        }


def calibrate_intrinsics(
    images: BoardImages, name: str = "camera", model: str = "plumb_bob"
) -> IntrinsicsResult:
    """Calibrates one camera; images that do not fit the others are left out.

    Args:
        images: Views of the board, tilted and in all parts of the image.
        name: Name of the camera.
        model: `plumb_bob` (5 coefficients) or `rational_polynomial` (8, for wide lenses).

    Raises:
        ConfigError: There are too few images, or the board is never tilted.
    """
    if len(images.views) < LEAST_IMAGES:
        raise ConfigError(
            f"the board was found in {len(images.views)} images, at least {LEAST_IMAGES} are "
            "needed (15 or more are good); record more"
        )
    used, rejected = dict(images.views), {}
    for _ in range(_ROUNDS):
        fit = _fit(images, list(used.values()), model)
        errors = dict(zip(used, fit.image_rms_px))
        limit = max(3 * float(np.median(fit.image_rms_px)), 1.0)
        worse = {image: error for image, error in errors.items() if error > limit}
        if not worse or len(used) - len(worse) < LEAST_IMAGES:
            break
        rejected |= worse
        used = {image: view for image, view in used.items() if image not in worse}
    tilt_deg = _largest_tilt_deg(fit.rotations[:, :, 2])
    if tilt_deg < 5:
        raise ConfigError(
            "the board has the same tilt in all images, so that focal length and distance cannot "
            "be told apart; tilt it by 20 to 45 degrees in several directions"
        )
    info = unrectified(name, images.size, fit.matrix, fit.distortion, model)
    pixels = [view.pixels for view in used.values()]
    checks = _checks(fit, tilt_deg, image_coverage(pixels, images.size), len(rejected))
    return IntrinsicsResult(
        info, fit.rms_px, errors, fit.residuals, rejected, fit.focal_std_px, Verdict(checks)
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    matrix: NDArray[np.float64]
    distortion: NDArray[np.float64]
    rms_px: float
    image_rms_px: NDArray[np.float64]
    focal_std_px: float
    rotations: NDArray[np.float64]
    residuals: NDArray[np.float64]


def _fit(images: BoardImages, views: Sequence[BoardView], model: str) -> _Fit:
    points, pixels = opencv_points(images.board, views)
    result = cv2.calibrateCameraExtended(
        points,
        pixels,
        images.size,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        flags=_MODELS[model],  # type: ignore[arg-type]
    )
    matrix, distortion = np.asarray(result[1]), np.asarray(result[2]).reshape(-1)
    length = 5 if model == "plumb_bob" else 8
    distortion = distortion[:length]
    rotations, translations, std = result[3], result[4], np.asarray(result[5]).reshape(-1)
    residuals = []
    for view, flat, turn, shift in zip(views, points, rotations, translations, strict=True):
        predicted, _ = cv2.projectPoints(flat, turn, shift, matrix, distortion)
        error = view.pixels - np.asarray(predicted).reshape(-1, 2)
        residuals.append(np.concatenate((view.pixels, error), axis=1))
    return _Fit(
        matrix,
        distortion,
        float(result[0]),
        np.array([np.sqrt(np.mean(np.sum(each[:, 2:] ** 2, 1))) for each in residuals]),
        float(std[:2].max()),
        np.array([cv2.Rodrigues(turn)[0] for turn in rotations]),
        np.concatenate(residuals),
    )


def opencv_points(
    board: BoardConfig, views: Sequence[BoardView]
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Corners in m [K, 3] and in px [K, 2] of each view, as OpenCV's calibration takes them."""
    corners = board.corners_m.astype(np.float32)
    return (
        [corners[view.ids] for view in views],
        [view.pixels.astype(np.float32) for view in views],
    )


def _largest_tilt_deg(normals: NDArray[np.float64]) -> float:
    """Largest angle between two of the normals [N, 3]."""
    return float(np.rad2deg(np.arccos(np.clip(normals @ normals.T, -1, 1)).max()))


def _checks(fit: _Fit, tilt_deg: float, coverage: float, rejected: int) -> tuple[Check, ...]:
    count = len(fit.image_rms_px)
    focal = 100 * fit.focal_std_px / float(fit.matrix[0, 0])
    blur = "use sharp images of a flat board, and check --board"
    return (
        Check("images", count, 15, LEAST_IMAGES, "record more"),
        Check("reprojection error in px", fit.rms_px, 0.5, 1.5, blur),
        Check("uncertainty of the focal length in %", focal, 0.2, 1.0, "record more"),
        Check(
            "share of the image covered", coverage, 0.6, 0.3, "show the board at edges and corners"
        ),
        Check(
            "tilt of the board between images in degrees", tilt_deg, 30, 10, "tilt the board more"
        ),
        Check(
            "share of images rejected",
            rejected / (rejected + count),
            0.2,
            0.4,
            "hold board and camera still",
        ),
    )
