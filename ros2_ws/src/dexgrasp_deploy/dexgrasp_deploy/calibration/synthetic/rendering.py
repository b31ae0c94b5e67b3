"""Images of the board as a camera with known lens and pose would take them."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.board import BoardConfig
from dexgrasp_deploy.calibration.results.camera_info import CameraInfo
from dexgrasp_deploy.calibration.transforms import Matrix

_SUPERSAMPLING = 2
_BLACK, _WHITE, _WALL = 30.0, 225.0, 120.0
_PIXELS_PER_SQUARE = 60
_MARGIN_SQUARES = 0.7
"""White paper around the board."""


@dataclass(frozen=True)
class ImageNoise:
    """Attributes:
    blur_px: Standard deviation of the lens' blur.
    grey_levels: Standard deviation of the noise.
    """

    blur_px: float = 0.6
    grey_levels: float = 2.0


class BoardCamera:
    """Draws a flat board by following the ray of every pixel through the lens."""

    def __init__(
        self, info: CameraInfo, board: BoardConfig, noise: ImageNoise, seed: int = 0
    ) -> None:
        """Args:
        info: The lens and image size.
        board: The board.
        noise: Errors of the image.
        seed: Of the noise.
        """
        self.info, self.board = info, board
        self._noise = noise
        self._generator = np.random.default_rng(seed)
        size = np.array(info.size) * _SUPERSAMPLING
        u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        fine = np.stack((u, v), -1).reshape(-1, 2)  # [P, 2]
        pixels = info.ideal_pixels((fine + 0.5) / _SUPERSAMPLING - 0.5)
        homogeneous = np.concatenate((pixels, np.ones((len(pixels), 1))), axis=1)
        rays = homogeneous @ np.linalg.inv(info.matrix).T
        self._rays = rays.reshape(size[1], size[0], 3)
        self._texture = self._paper()

    def _paper(self) -> NDArray[np.float32]:
        margin = round(_MARGIN_SQUARES * _PIXELS_PER_SQUARE)
        image = self.board.image(_PIXELS_PER_SQUARE).astype(np.float32) / 255
        framed = np.pad(image, margin, constant_values=1.0)
        framed = _BLACK + (_WHITE - _BLACK) * framed
        return np.pad(framed, 1, constant_values=_WALL)

    def draw(self, camera_T_board: Matrix) -> NDArray[np.uint8]:
        """The image [H, W] uint8 of the board at a pose in the camera's optical frame."""
        rotation, position = camera_T_board[:3, :3], camera_T_board[:3, 3]
        normal = rotation[:, 2]
        along = self._rays @ normal
        depth = (position @ normal) / np.where(np.abs(along) < 1e-9, np.nan, along)
        flat = (self._rays * depth[..., None] - position) @ rotation[:, :2]  # [H, W, 2] m
        scale = _PIXELS_PER_SQUARE / self.board.square_m
        border = round(_MARGIN_SQUARES * _PIXELS_PER_SQUARE) + 1
        place = (flat * scale - 0.5 + border).astype(np.float32)
        place[~(depth > 0)] = -10.0
        fine = cv2.remap(
            self._texture,
            place[..., 0],
            place[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=_WALL,  # type: ignore[arg-type]
        )
        image = cv2.resize(fine, self.info.size, interpolation=cv2.INTER_AREA)
        if self._noise.blur_px > 0:
            image = cv2.GaussianBlur(image, (0, 0), self._noise.blur_px)
        noise = self._generator.normal(0.0, self._noise.grey_levels, image.shape)
        return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)

    def sees(self, camera_T_board: Matrix, margin_px: float = 8.0) -> bool:
        """Whether the whole board, from its front and tilted by less than 55 degrees, is seen."""
        corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float64)
        corners[:, :2] *= self.board.size_m
        points = corners @ camera_T_board[:3, :3].T + camera_T_board[:3, 3]
        facing = camera_T_board[:3, 2] @ camera_T_board[:3, 3]
        if points[:, 2].min() < 0.1 or facing < 0.57 * np.linalg.norm(camera_T_board[:3, 3]):
            return False
        turn = np.zeros(3)
        pixels, _ = cv2.projectPoints(points, turn, turn, self.info.matrix, self.info.distortion)
        pixels = np.asarray(pixels).reshape(-1, 2)
        return bool((pixels > margin_px).all() and (pixels < np.array(self.info.size) - margin_px).all())
