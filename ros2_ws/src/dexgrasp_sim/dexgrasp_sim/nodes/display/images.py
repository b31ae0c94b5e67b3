"""Camera images for people: in colour, enlarged, with what the robot knows drawn into them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]

_SHOWN_WIDTH = 320
"""Smaller images are enlarged to about this width, or marks would cover them."""
_GAP = 4
_NEAREST_M = 1e-3
_OUTLINE: Color = (0, 0, 0)


@dataclass(frozen=True)
class Mark:
    """Something at a point of the scene that is drawn into images.

    Attributes:
        position_m: [3], base frame.
        color: RGB.
        shape: `circle` or `cross`.
        label: Text beside it; "": none.
    """

    position_m: NDArray[np.float64]
    color: Color
    shape: str = "circle"
    label: str = ""


@dataclass(frozen=True)
class View:
    """Where an image was taken from.

    Attributes:
        pose: [4, 4], the optical frame in the base.
        focal_px: In x and y.
        center_px: Principal point, whole numbers at pixel centres.
    """

    pose: NDArray[np.float64]
    focal_px: tuple[float, float]
    center_px: tuple[float, float]


def overlay(pixels: Pixels, view: View | None, marks: Sequence[Mark]) -> Pixels:
    """An enlarged copy of an image [H, W, 3] with the marks that it sees."""
    height, width = pixels.shape[:2]
    factor = max(1, round(_SHOWN_WIDTH / width))
    shown = np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)
    if view is None:
        return shown
    for mark in marks:
        place = _pixel(view, mark.position_m)
        if place is None:
            continue
        u, v = (round(factor * (value + 0.5)) for value in place)
        if 0 <= u < factor * width and 0 <= v < factor * height:
            _draw(shown, (u, v), mark)
    return shown


def side_by_side(images: Sequence[Pixels]) -> Pixels:
    """Images [H, W, 3] of one size in a row, with a gap between them."""
    gap = np.full((images[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for image in images for part in (image, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _pixel(view: View, point_m: NDArray[np.float64]) -> tuple[float, float] | None:
    """Where a point of the base frame appears; None behind the camera."""
    x, y, z = (point_m - view.pose[:3, 3]) @ view.pose[:3, :3]
    if z < _NEAREST_M:
        return None
    (fx, fy), (cx, cy) = view.focal_px, view.center_px
    return fx * x / z + cx, fy * y / z + cy


def _draw(image: Pixels, place: tuple[int, int], mark: Mark) -> None:
    size = max(5, image.shape[1] // 40)
    for color, width in ((_OUTLINE, 4), (mark.color, 2)):
        if mark.shape == "cross":
            cv2.drawMarker(image, place, color, cv2.MARKER_CROSS, 2 * size, width)
        else:
            cv2.circle(image, place, size, color, width, cv2.LINE_AA)
        if mark.label:
            beside = (place[0] - size, place[1] - size - 6)
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(image, mark.label, beside, font, 0.45, color, width - 1, cv2.LINE_AA)
