"""Images of the board as a camera with known lens and pose would take them."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.board import BoardConfig
from dexgrasp_deploy.calibration.results.camera_info import CameraInfo, project
from dexgrasp_deploy.calibration.transforms import Matrix

_SUPERSAMPLING = 2
_BLACK, _WHITE, _WALL = 30.0, 225.0, 120.0
_PIXELS_PER_SQUARE = 60
_MARGIN_SQUARES = 0.7
"""White paper around the board."""
_LEAST_COSINE = 0.71


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
        u, v = np.meshgrid(np.arange(info.width), np.arange(info.height))
        pixels = info.ideal_pixels(np.stack((u, v), -1).reshape(-1, 2).astype(np.float64))
        homogeneous = np.concatenate((pixels, np.ones((len(pixels), 1))), axis=1)
        rays = (homogeneous @ np.linalg.inv(info.matrix).T).reshape(info.height, info.width, 3)
        fine = (info.width * _SUPERSAMPLING, info.height * _SUPERSAMPLING)
        self._rays = cv2.resize(rays, fine, interpolation=cv2.INTER_LINEAR)
        self._texture = self._paper()

    def _paper(self) -> NDArray[np.float32]:
        margin = round(_MARGIN_SQUARES * _PIXELS_PER_SQUARE)
        image = self.board.image(_PIXELS_PER_SQUARE).astype(np.float32) / 255
        framed = np.pad(image, margin, constant_values=1.0)
        framed = _BLACK + (_WHITE - _BLACK) * framed
        return np.pad(framed, 1, constant_values=_WALL).astype(np.float32)

    def draw(self, camera_T_board: Matrix) -> NDArray[np.uint8]:
        """The image [H, W] uint8 of the board at a pose in the camera's optical frame."""
        rotation, position = camera_T_board[:3, :3], camera_T_board[:3, 3]
        window = self._window(camera_T_board)
        rays = self._rays[window]
        normal = rotation[:, 2]
        depth = (position @ normal) / (rays @ normal)
        flat = (rays * depth[..., None] - position) @ rotation[:, :2]  # [h, w, 2] m
        scale = _PIXELS_PER_SQUARE / self.board.square_m
        border = round(_MARGIN_SQUARES * _PIXELS_PER_SQUARE) + 1
        place = (flat * scale - 0.5 + border).astype(np.float32)
        place[~(depth > 0)] = -10.0
        fine = np.full(self._rays.shape[:2], _WALL, np.float32)
        fine[window] = cv2.remap(
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

    def _window(self, camera_T_board: Matrix) -> tuple[slice, slice]:
        """Rows and columns of the fine image that hold the paper."""
        pixels = self._corner_pixels(camera_T_board, _MARGIN_SQUARES + 0.3)
        limits = np.array(self.info.size)
        lower = np.clip(np.floor(pixels.min(axis=0)) - 2, 0, limits).astype(int)
        upper = np.clip(np.ceil(pixels.max(axis=0)) + 3, 0, limits).astype(int)
        (left, top), (right, bottom) = lower * _SUPERSAMPLING, upper * _SUPERSAMPLING
        return slice(top, bottom), slice(left, right)

    def _corner_pixels(self, camera_T_board: Matrix, margin_squares: float) -> NDArray[np.float64]:
        """Outer corners [4, 2] px of the board with a margin around it."""
        corners = np.array([[-1.0, -1, 0], [1, -1, 0], [-1, 1, 0], [1, 1, 0]])
        half = np.array([*self.board.size_m, 0.0]) / 2
        corners = half + corners * (half + margin_squares * self.board.square_m)
        corners[:, 2] = 0.0
        points = corners @ camera_T_board[:3, :3].T + camera_T_board[:3, 3]
        return project(self.info, points)

    def sees(self, camera_T_board: Matrix, margin_px: float = 8.0) -> bool:
        """Whether the whole board, from its front and tilted by less than 45 degrees, is seen."""
        direction = camera_T_board[:3, 3] / np.linalg.norm(camera_T_board[:3, 3])
        reach = np.linalg.norm(self.board.size_m)
        if camera_T_board[2, 3] < reach or camera_T_board[:3, 2] @ direction < _LEAST_COSINE:
            return False
        pixels = self._corner_pixels(camera_T_board, 0.0)
        upper = np.array(self.info.size) - margin_px
        return bool((pixels > margin_px).all() and (pixels < upper).all())
