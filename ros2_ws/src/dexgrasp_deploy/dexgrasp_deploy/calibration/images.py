"""Images of the board: read from files, of one size, with the board found in them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.board import (
    REMEDIES,
    BoardConfig,
    BoardDetector,
    BoardView,
    Miss,
)
from dexgrasp_sim.config import ConfigError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm")


@dataclass(frozen=True)
class BoardImages:
    """Images in which the board was looked for.

    Attributes:
        board: The board.
        size: Width and height of all images.
        views: The board in every image in which it was found, by the image's name.
        misses: Why it was not found in the others, by name.
    """

    board: BoardConfig
    size: tuple[int, int]
    views: dict[str, BoardView]
    misses: dict[str, Miss]


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder by name.

    Raises:
        ConfigError: The folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the folder that holds the images")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"{folder}: no images ({', '.join(SUFFIXES)}); put some there")
    return found


def read_gray(path: Path) -> NDArray[np.uint8]:
    """An image file as [H, W] uint8.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); correct the path") from None
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if image is None:
        raise ConfigError(f"{path}: is not an image that OpenCV reads; remove or replace it")
    return np.asarray(image, np.uint8)


def find_boards(board: BoardConfig, paths: Sequence[Path]) -> BoardImages:
    """Reads images and looks for the board; see `find_in` for the errors."""
    return find_in(board, {path.name: read_gray(path) for path in paths})


def find_in(board: BoardConfig, images: Mapping[str, NDArray[np.uint8]]) -> BoardImages:
    """Looks for the board in images [H, W] uint8 by name.

    Raises:
        ConfigError: The images differ in size, or none shows the board.
    """
    sizes = {name: (image.shape[1], image.shape[0]) for name, image in images.items()}
    check_sizes(sizes)
    detector = BoardDetector(board)
    found = {name: detector.find(image) for name, image in images.items()}
    misses = {name: result for name, result in found.items() if isinstance(result, Miss)}
    views = {name: result for name, result in found.items() if isinstance(result, BoardView)}
    if not views:
        usual, count = Counter(misses.values()).most_common(1)[0]
        raise ConfigError(
            f"the board was found in none of {len(images)} images; in {count} of them "
            f"{usual.value}: {REMEDIES[usual]}"
        )
    return BoardImages(board, next(iter(sizes.values())), views, misses)


def check_sizes(sizes: Mapping[str, tuple[int, int]]) -> None:
    """Checks that images by name have one size (width, height).

    Raises:
        ConfigError: They have not, or there is no image.
    """
    if not sizes:
        raise ConfigError("there are no images; record some first")
    (usual, _), *others = Counter(sizes.values()).most_common()
    if others:
        odd = next(name for name, size in sizes.items() if size != usual)
        raise ConfigError(
            f"images of different sizes: {odd} is {sizes[odd][0]}x{sizes[odd][1]}, most are "
            f"{usual[0]}x{usual[1]}; record all with one camera setting"
        )
