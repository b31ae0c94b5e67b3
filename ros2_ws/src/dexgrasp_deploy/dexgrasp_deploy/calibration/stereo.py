"""Extrinsics and rectification of a stereo pair from pairs of images of the board."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.board import BoardView
from dexgrasp_deploy.calibration.images import BoardImages
from dexgrasp_deploy.calibration.intrinsics import LEAST_IMAGES
from dexgrasp_deploy.calibration.quality import Check, Verdict
from dexgrasp_deploy.calibration.results.camera_info import FISHEYE, CameraInfo
from dexgrasp_deploy.calibration.transforms import Matrix, inverse, transform
from dexgrasp_sim.config import ConfigError

_LEAST_COMMON = 6
_TIGHT = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-9)


@dataclass(frozen=True, eq=False)
class StereoResult:
    """A calibrated pair.

    Attributes:
        left: Intrinsics with the rectification.
        right: The same.
        right_pose: [4, 4] left_T_right: the right camera in the left one's optical frame, both as
            they are, not rectified.
        rms_px: Reprojection error.
        epipolar_px: [K] row differences of corners in the rectified images, right minus left.
        pair_epipolar_px: Their root mean square for each used pair, by name.
        rejected: Pairs that do not fit the others, with theirs.
        residuals: [K, 4] px: place of each corner in the rectified left image, 0 and the row
            difference.
        verdict: Verdict.
    """

    left: CameraInfo
    right: CameraInfo
    right_pose: Matrix
    rms_px: float
    epipolar_px: NDArray[np.float64]
    pair_epipolar_px: dict[str, float]
    rejected: dict[str, float]
    residuals: NDArray[np.float64]
    verdict: Verdict

    @property
    def baseline_m(self) -> float:
        """Distance of the cameras."""
        return float(np.linalg.norm(self.right_pose[:3, 3]))

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "kind": "stereo",
            **self.verdict.to_dict(),
            "rms_px": self.rms_px,
            "epipolar_rms_px": _rms(self.epipolar_px),
            "epipolar_max_px": float(np.abs(self.epipolar_px).max()),
            "baseline_m": self.baseline_m,
            "rectified_focal_px": self.left.projection[0, 0],
            "pair_epipolar_px": self.pair_epipolar_px,
            "rejected": self.rejected,
        }


def calibrate_stereo(
    left_images: BoardImages, right_images: BoardImages, left: CameraInfo, right: CameraInfo
) -> StereoResult:
    """Calibrates a pair whose cameras are calibrated; images of equal names were taken together.

    Raises:
        ConfigError: There are too few pairs, the sizes differ, left and right are swapped, or a
            lens is a fisheye.
    """
    if FISHEYE in (left.model, right.model):
        raise ConfigError(
            f"a pair of {FISHEYE} lenses cannot be calibrated here; use lenses with a narrower "
            "view, or calibrate them as plumb_bob or rational_polynomial"
        )
    if not left_images.size == right_images.size == left.size == right.size:
        raise ConfigError(
            f"images of different sizes: left {left_images.size}, right {right_images.size}, "
            f"camera info {left.size} and {right.size}; use one setting for both cameras"
        )
    pairs = _pairs(left_images, right_images)
    rejected: dict[str, float] = {}
    while True:
        if len(pairs) < LEAST_IMAGES:
            raise ConfigError(
                f"{len(pairs)} pairs of images show the board in both, at least {LEAST_IMAGES} "
                "are needed (15 or more are good); record more, and give images that were taken "
                "together the same name"
            )
        rms_px, left_T_right = _fit(left_images, pairs, left, right)
        rectified = _rectify(left, right, left_T_right)
        errors = {name: _rows(*rectified, *pair) for name, pair in pairs.items()}
        sizes = {name: _rms(rows) for name, rows in errors.items()}
        limit = max(3 * float(np.median(list(sizes.values()))), 0.5)
        worst = max(sizes, key=lambda name: sizes[name])
        if sizes[worst] <= limit or len(pairs) == LEAST_IMAGES:
            break
        rejected[worst] = sizes[worst]
        del pairs[worst]
    rows = np.concatenate(list(errors.values()))
    places = np.concatenate(
        [rectified[0].rectified_pixels(pair[0].pixels) for pair in pairs.values()]
    )
    residuals = np.column_stack((places, np.zeros_like(rows), rows))
    verdict = Verdict(_checks(rms_px, rows, len(sizes), len(rejected)))
    return StereoResult(
        *rectified, left_T_right, rms_px, rows, sizes, rejected, residuals, verdict
    )


_Pair = tuple[BoardView, BoardView]


def _pairs(left: BoardImages, right: BoardImages) -> dict[str, _Pair]:
    """The corners that both images of a pair show."""
    pairs = {}
    for name in left.views.keys() & right.views.keys():
        views = left.views[name], right.views[name]
        common = np.intersect1d(views[0].ids, views[1].ids)
        if len(common) >= _LEAST_COMMON:
            first, second = (
                BoardView(common, view.pixels[np.searchsorted(view.ids, common)])
                for view in map(_sorted, views)
            )
            pairs[name] = (first, second)
    return dict(sorted(pairs.items()))


def _sorted(view: BoardView) -> BoardView:
    order = np.argsort(view.ids)
    return BoardView(view.ids[order], view.pixels[order])


def _fit(
    images: BoardImages, pairs: dict[str, _Pair], left: CameraInfo, right: CameraInfo
) -> tuple[float, Matrix]:
    corners = images.board.corners_m.astype(np.float32)
    views = list(pairs.values())
    result = cv2.stereoCalibrate(
        [corners[pair[0].ids] for pair in views],
        [pair[0].pixels.astype(np.float32) for pair in views],
        [pair[1].pixels.astype(np.float32) for pair in views],
        left.matrix,
        left.distortion,
        right.matrix,
        right.distortion,
        images.size,
        flags=cv2.CALIB_FIX_INTRINSIC,
        criteria=_TIGHT,
    )
    right_T_left = transform(np.asarray(result[5]), np.asarray(result[6]).reshape(3))
    left_T_right = inverse(right_T_left)
    if left_T_right[0, 3] <= 0:
        raise ConfigError(
            "the right camera stands to the left of the left one; swap --left and --right"
        )
    return float(result[0]), left_T_right


def _rectify(
    left: CameraInfo, right: CameraInfo, left_T_right: Matrix
) -> tuple[CameraInfo, CameraInfo]:
    right_T_left = inverse(left_T_right)
    result = cv2.stereoRectify(
        left.matrix,
        left.distortion,
        right.matrix,
        right.distortion,
        left.size,
        right_T_left[:3, :3].copy(),
        right_T_left[:3, 3:].copy(),  # [3, 1]: OpenCV 5 refuses [3]
        flags=cv2.CALIB_ZERO_DISPARITY,
        alpha=0,
    )
    turns, projections = result[0:2], result[2:4]
    first, second = (
        replace(info, rectification=np.asarray(turn), projection=np.asarray(projection))
        for info, turn, projection in zip((left, right), turns, projections)
    )
    return first, second


def _rows(
    left: CameraInfo, right: CameraInfo, left_view: BoardView, right_view: BoardView
) -> NDArray[np.float64]:
    first = left.rectified_pixels(left_view.pixels)
    return right.rectified_pixels(right_view.pixels)[:, 1] - first[:, 1]


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _checks(
    rms_px: float, rows: NDArray[np.float64], count: int, rejected: int
) -> tuple[Check, ...]:
    apart = "take both images of a pair at the same time, with the board still"
    return (
        Check("pairs", count, 15, LEAST_IMAGES, "record more"),
        Check("reprojection error in px", rms_px, 0.5, 1.5, apart),
        Check("epipolar error in px", _rms(rows), 0.3, 1.0, apart),
        Check("share of pairs rejected", rejected / (rejected + count), 0.2, 0.4, apart),
    )
