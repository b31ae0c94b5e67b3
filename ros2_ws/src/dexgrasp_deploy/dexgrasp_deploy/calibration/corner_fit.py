"""Reprojection of all corners of all poses, and its minimum (bundle adjustment)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from dexgrasp_deploy.calibration.board import BoardConfig, BoardView
from dexgrasp_deploy.calibration.results.camera_info import CameraInfo
from dexgrasp_deploy.calibration.transforms import Matrix, change_between, inverse, moved

_BEHIND_M = 1e-3
"""Corners behind the camera are drawn to this depth, which gives them a very large error."""


class Solution(NamedTuple):
    """Camera and board.

    Attributes:
        camera: [4, 4] carrier_T_camera.
        board: [4, 4] other_T_board.
        scale: Size of the board relative to the given one.
        focal: Focal length relative to the given one.
    """

    camera: Matrix
    board: Matrix
    scale: float = 1.0
    focal: float = 1.0

    def change_from(self, other: "Solution") -> NDArray[np.float64]:
        """[6] rotation (rad) and translation (m) of the camera from another solution."""
        return change_between(other.camera, self.camera)


class CornerFit:
    """The corners of N poses as a function of camera and board."""

    def __init__(
        self, carriers: Matrix, views: Sequence[BoardView], board: BoardConfig, info: CameraInfo
    ) -> None:
        """Args:
        carriers: [N, 4, 4] carrier_T_i, see `hand_eye`.
        views: The board in the image of each pose.
        board: The board.
        info: Intrinsics; corners are compared where they would be without distortion.
        """
        self._carriers = carriers
        self._matrix = info.matrix
        self._pose = np.repeat(np.arange(len(views)), [len(view.ids) for view in views])  # [K]
        ids = np.concatenate([view.ids for view in views])
        self._points = board.corners_m[ids]  # [K, 3]
        self._pixels = info.ideal_pixels(np.concatenate([view.pixels for view in views]))

    def errors(self, solution: Solution, rows: NDArray[np.bool_] | None = None) -> NDArray:
        """Measured minus predicted [K, 2] px of all corners, or of those where `rows` holds."""
        chosen = slice(None) if rows is None else rows
        points, pixels = self._in_camera(solution, chosen), self._pixels[chosen]
        depth = np.maximum(points[:, 2:], _BEHIND_M)
        rays = solution.focal * points[:, :2] / depth
        predicted = rays @ self._matrix[:2, :2].T + self._matrix[:2, 2]
        return pixels - predicted

    def _in_camera(
        self, solution: Solution, chosen: NDArray[np.bool_] | slice
    ) -> NDArray[np.float64]:
        """Corners [K, 3] m in the camera's optical frame."""
        boards = inverse(solution.camera) @ self._carriers @ solution.board  # [N, 4, 4]
        mine = boards[self._pose[chosen]]
        points = solution.scale * self._points[chosen]
        return np.einsum("kij,kj->ki", mine[:, :3, :3], points) + mine[:, :3, 3]

    def pose_rms_px(self, solution: Solution) -> NDArray[np.float64]:
        """Reprojection error [N] of each pose."""
        squares = np.sum(self.errors(solution) ** 2, axis=1)
        return np.sqrt(np.bincount(self._pose, squares) / np.bincount(self._pose))

    def residuals_at(self, solution: Solution, poses: NDArray[np.int64]) -> NDArray[np.float64]:
        """[K, 4] px: place of each corner of some poses, and measured minus predicted."""
        rows = np.isin(self._pose, poses)
        return np.concatenate((self._pixels[rows], self.errors(solution, rows)), axis=1)

    def distance_m(self, solution: Solution, poses: NDArray[np.int64]) -> float:
        """Mean depth of the corners of some poses."""
        return float(self._in_camera(solution, np.isin(self._pose, poses))[:, 2].mean())

    def refine(
        self, start: Solution, poses: NDArray[np.int64], free_sizes: bool = False
    ) -> Solution:
        """Least squares from a start over the corners of some poses.

        `free_sizes` fits the size of the board and the focal length, too.

        Errors beyond a pixel count less than by their square (soft L1), so that a few corners that
        were found at a wrong place do no harm.
        """
        rows = np.isin(self._pose, poses)

        def at(change: NDArray[np.float64]) -> Solution:
            camera, board = moved(start.camera, change[:6]), moved(start.board, change[6:12])
            scale, focal = np.exp(change[12:]) if free_sizes else (1.0, 1.0)
            return Solution(camera, board, scale * start.scale, focal * start.focal)

        result = least_squares(
            lambda change: self.errors(at(change), rows).reshape(-1),
            np.zeros(14 if free_sizes else 12),
            loss="soft_l1",
            f_scale=1.0,
            x_scale="jac",
        )
        return at(result.x)
