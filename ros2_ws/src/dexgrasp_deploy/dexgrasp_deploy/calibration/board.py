"""The ChArUco board: what it is, and where its corners are in an image."""

from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT, ConfigError, load_config, replace

SCALE_BAR_M = 0.2
"""Length of the bar beside the printed board."""

_LEAST_CORNERS = 8
"""Of an image; a pose has 6 unknowns, and some corners should be left to judge it by."""
_LARGEST_SCALE_ERROR = 0.05
"""Printers scale by 3 to 4 % when they fit a page to its margins."""


@dataclass(frozen=True, config=STRICT)
class BoardConfig:
    """A ChArUco board: a chessboard with an ArUco marker in every white square.

    The default is 210 x 150 mm and fits a sheet of A4.

    Attributes:
        columns: Squares along x.
        rows: Squares along y.
        square_m: Side of a square as printed.
        marker_m: Side of a marker as printed.
        dictionary: Name of the ArUco dictionary in OpenCV.
    """

    columns: Annotated[int, Field(ge=3, le=40)] = 7
    rows: Annotated[int, Field(ge=3, le=40)] = 5
    square_m: Annotated[float, Field(gt=0.0, le=1.0)] = 0.03
    marker_m: Annotated[float, Field(gt=0.0)] = 0.022
    dictionary: str = "DICT_4X4_50"

    @model_validator(mode="after")
    def _check(self) -> "BoardConfig":
        if not 0.5 * self.square_m <= self.marker_m <= 0.9 * self.square_m:
            raise ValueError(
                f"marker_m {self.marker_m:g} must be between half of square_m {self.square_m:g} "
                "and nine tenths of it; change one of them"
            )
        number = getattr(cv2.aruco, self.dictionary, None)
        if not self.dictionary.startswith("DICT_") or not isinstance(number, int):
            raise ValueError(
                f"dictionary {self.dictionary!r} is not one of OpenCV's; use DICT_4X4_50 or "
                "another cv2.aruco.DICT_*"
            )
        available = len(cv2.aruco.getPredefinedDictionary(number).bytesList)
        if self.columns * self.rows // 2 > available:
            raise ValueError(
                f"{self.columns} x {self.rows} squares need {self.columns * self.rows // 2} "
                f"markers, {self.dictionary} has {available}; use fewer squares or another one"
            )
        return self

    @property
    def size_m(self) -> tuple[float, float]:
        """Width and height of the board."""
        return self.columns * self.square_m, self.rows * self.square_m

    @property
    def corners_m(self) -> NDArray[np.float64]:
        """[C, 3] m: inner corners by id, row by row.

        The board's frame has its origin in the board's outer corner at the first square, x along
        a row, y down a column, z into the board.
        """
        x, y = np.meshgrid(np.arange(1, self.columns), np.arange(1, self.rows))
        flat = np.stack((x, y, np.zeros_like(x)), -1).reshape(-1, 3)
        return flat.astype(np.float64) * self.square_m

    def scaled(self, measured_bar_m: float) -> "BoardConfig":
        """The board as it was really printed.

        Args:
            measured_bar_m: Measured length of the scale bar.

        Raises:
            ConfigError: It differs by more than 5 % from what was meant to be printed.
        """
        scale = measured_bar_m / SCALE_BAR_M
        if not abs(scale - 1) <= _LARGEST_SCALE_ERROR:
            raise ConfigError(
                f"--scale-bar-mm {1e3 * measured_bar_m:g}: the bar is meant to be "
                f"{1e3 * SCALE_BAR_M:g} mm long; print again at 100 % (no fit to page)"
            )
        return replace(self, square_m=self.square_m * scale, marker_m=self.marker_m * scale)

    def to_opencv(self) -> cv2.aruco.CharucoBoard:
        """The board as OpenCV knows it."""
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        size = (self.columns, self.rows)
        return cv2.aruco.CharucoBoard(size, self.square_m, self.marker_m, dictionary)

    def image(self, pixels_per_square: int) -> NDArray[np.uint8]:
        """The board [H, W] uint8 without a margin."""
        size = (self.columns * pixels_per_square, self.rows * pixels_per_square)
        return np.asarray(self.to_opencv().generateImage(size, marginSize=0), np.uint8)


def read_board(path: Path | None, measured_bar_m: float | None = None) -> BoardConfig:
    """The board of a `board.yaml` (None: the default), as printed.

    Raises:
        ConfigError: The file or the measured length of the scale bar is wrong.
    """
    config = BoardConfig() if path is None else load_config(BoardConfig, path)
    return config if measured_bar_m is None else config.scaled(measured_bar_m)


@plain_dataclass(frozen=True)
class BoardView:
    """The board in one image.

    Attributes:
        ids: [K] int64, which corners were seen.
        pixels: [K, 2] float64, where; (0, 0) is the centre of the top left pixel.
    """

    ids: NDArray[np.int64]
    pixels: NDArray[np.float64]


class Miss(str, Enum):
    """Why an image shows no usable board."""

    NO_MARKERS = "no marker of the board's dictionary is visible"
    MIRRORED = "the image is mirrored"
    OTHER_BOARD = "the markers are those of a board with other rows, columns or markers"
    FEW_CORNERS = f"fewer than {_LEAST_CORNERS} corners are visible"


REMEDIES = {
    Miss.NO_MARKERS: "show the whole board, lit evenly and in focus, and check --board",
    Miss.MIRRORED: "switch off mirroring in the camera's driver",
    Miss.OTHER_BOARD: "give the board.yaml that was made with the printed board as --board",
    Miss.FEW_CORNERS: "show more of the board, larger and in focus",
}


class BoardDetector:
    """Finds a board in images."""

    def __init__(self, board: BoardConfig) -> None:
        self.board = board
        self._board = board.to_opencv()
        self._detector = cv2.aruco.CharucoDetector(self._board)

    def find(self, gray: NDArray[np.uint8]) -> BoardView | Miss:
        """The board in an image [H, W] uint8, or why there is none."""
        corners, ids, marker_corners, marker_ids = self._detector.detectBoard(gray)
        laid_out = marker_ids is not None and self._is_laid_out(marker_corners, marker_ids)
        if not laid_out or ids is None or len(ids) == 0:
            return self._reason(gray, marker_ids, laid_out)
        # OpenCV 4 returns [K, 1] and [K, 1, 2], OpenCV 5 [K] and [K, 2]
        number = np.asarray(ids).reshape(-1).astype(np.int64)
        pixels = np.asarray(corners).reshape(-1, 2).astype(np.float64)
        columns = self.board.columns - 1
        on_a_line = len(set(number // columns)) < 2 or len(set(number % columns)) < 2
        if len(number) < _LEAST_CORNERS or on_a_line:
            return Miss.FEW_CORNERS
        return BoardView(number, pixels)

    def _reason(self, gray: NDArray[np.uint8], marker_ids: NDArray | None, laid_out: bool) -> Miss:
        mirrored = np.ascontiguousarray(gray[:, ::-1])
        _, _, corners, ids = self._detector.detectBoard(mirrored)
        if ids is not None and len(ids) > 3 and self._is_laid_out(corners, ids):
            return Miss.MIRRORED
        if marker_ids is None or len(marker_ids) == 0:
            return Miss.NO_MARKERS
        return Miss.FEW_CORNERS if laid_out else Miss.OTHER_BOARD

    def _is_laid_out(self, corners: Sequence[NDArray], ids: NDArray) -> bool:
        """Whether markers lie as on the board, seen by some camera: a homography fits.

        A lens bends the image of a board by a few hundredths of a square.
        """
        own = dict(
            zip(np.asarray(self._board.getIds()).reshape(-1).tolist(), self._board.getObjPoints())
        )
        seen = dict(zip(np.asarray(ids).reshape(-1).tolist(), corners, strict=True))
        common = sorted(own.keys() & seen.keys())
        if len(common) < 2:
            return len(seen) < 2
        flat = np.concatenate([np.asarray(own[number])[:, :2] for number in common])
        pixels = np.concatenate([np.asarray(seen[number]).reshape(4, 2) for number in common])
        homography, _ = cv2.findHomography(flat, pixels)
        if homography is None:
            return False
        mapped = cv2.perspectiveTransform(flat[:, None], homography)[:, 0]
        errors = np.linalg.norm(mapped - pixels, axis=1)
        pixels_per_m = np.ptp(pixels, axis=0).max() / np.ptp(flat, axis=0).max()
        return bool(np.median(errors) < 0.1 * self.board.square_m * pixels_per_m)
