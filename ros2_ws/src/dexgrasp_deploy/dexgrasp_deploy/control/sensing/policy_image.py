"""A camera's image in the format of the simulated camera that the policy was trained on."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.sensing.camera_place import depth_of_training
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.preprocess import resize_depth, resize_rgb

_TOLERANCE = 0.02
"""Of fields of view, and of the difference of both focal lengths."""
_LEAST_RESOLUTION = 0.5
"""A camera needs at least this share of the pixels that the policy reads, in each direction."""


def training_view(sample: CameraSample, camera: CameraConfig, group: str) -> NDArray[Any]:
    """The part of an image that shows what the training camera would show.

    Args:
        sample: The exposure.
        camera: The training camera.
        group: `depth` or `stereo_rgb`.

    Returns:
        Depth [h, w] uint16 mm or stereo [2, h, w, 3] uint8 RGB; a view of the sample's image.

    Raises:
        UnfitInput: The image is of another kind, its intrinsics are missing or wrong, or the
            camera sees less, or less finely, than the training camera.
    """
    pixels = sample.image
    wanted = ("uint16", 2) if group == "depth" else ("uint8", 4)
    if (pixels.dtype.name, pixels.ndim) != wanted:
        raise UnfitInput(
            Reason.BAD_CAMERA,
            f"image: {pixels.dtype.name} {list(pixels.shape)} does not fit the group {group!r}",
        )
    height, width = pixels.shape[:2] if group == "depth" else pixels.shape[1:3]
    rows, columns = _crop(width, height, _checked(sample.intrinsics, width, height), camera)
    return pixels[rows, columns] if group == "depth" else pixels[:, rows, columns]


def policy_image(
    sample: CameraSample, camera: CameraConfig, group: str, table_top_m: float
) -> NDArray[Any]:
    """Converts a camera's image to the format of the simulated camera in training.

    The image is cropped around its principal point to the training camera's field of view and
    resized; depth outside the training camera's range becomes 0. Depth is brought to the place of
    the training camera where the sample says where its own is, see `depth_of_training`.

    Args:
        sample: The exposure.
        camera: The training camera.
        group: `depth` or `stereo_rgb`.
        table_top_m: Height of the table, base frame.

    Returns:
        [h, w] int16 mm or [2, 3, h, w] uint8, in the training camera's size.

    Raises:
        UnfitInput: As `training_view`.
    """
    view, size = training_view(sample, camera, group), (camera.height, camera.width)
    if group == "depth":
        near_mm, far_mm = camera.near_m * 1000, camera.far_m * 1000
        in_range = np.where((view < near_mm) | (view > far_mm), 0, view).astype(np.int16)
        depth = resize_depth(torch.from_numpy(in_range), *size).numpy()
        return depth_of_training(depth, camera, sample.pose, table_top_m)
    planes = np.ascontiguousarray(view.transpose(0, 3, 1, 2))
    return resize_rgb(torch.from_numpy(planes), *size).numpy()


def _checked(intrinsics: Intrinsics | None, width: int, height: int) -> Intrinsics:
    if intrinsics is None:
        raise UnfitInput(
            Reason.BAD_CAMERA, "image: no intrinsics; let the camera publish its camera_info"
        )
    fx, fy = intrinsics.focal_px
    if not (np.isfinite([fx, fy, *intrinsics.center_px]).all() and min(fx, fy) > 0):
        raise UnfitInput(
            Reason.BAD_CAMERA,
            f"image: focal lengths {fx:g}, {fy:g} and principal point {intrinsics.center_px} are "
            "not those of a calibrated camera; calibrate it",
        )
    if (intrinsics.width, intrinsics.height) != (width, height):
        raise UnfitInput(
            Reason.BAD_CAMERA,
            f"image: {width}x{height}, but its intrinsics are for {intrinsics.width}x"
            f"{intrinsics.height}; use those of the same stream",
        )
    if abs(fx / fy - 1) > _TOLERANCE:
        raise UnfitInput(
            Reason.BAD_CAMERA,
            f"image: focal lengths {fx:.1f} and {fy:.1f} px differ: pixels are not square; "
            "rectify the image",
        )
    return intrinsics


def _crop(
    width: int, height: int, intrinsics: Intrinsics, camera: CameraConfig
) -> tuple[slice, slice]:
    """Rows and columns around the principal point that show the training camera's view."""
    scales = np.array(intrinsics.focal_px) / camera.focal_px
    if scales.min() < _LEAST_RESOLUTION:
        raise UnfitInput(
            Reason.BAD_CAMERA,
            f"image: {width}x{height} shows the training camera's view in "
            f"{round(scales[0] * camera.width)}x{round(scales[1] * camera.height)} pixels, the "
            f"policy reads {camera.width}x{camera.height}; use a higher resolution",
        )
    columns = round(scales[0] * camera.width)
    rows = round(scales[1] * camera.height)
    slack = 1 + _TOLERANCE
    if rows > slack * height or columns > slack * width:
        raise UnfitInput(
            Reason.BAD_CAMERA,
            f"image: {width}x{height} shows less than the training camera, whose field of view "
            f"would be {columns}x{rows} pixels; use a wider lens, turn the camera, or train with "
            "this one",
        )
    rows, columns = min(rows, height), min(columns, width)
    left = _place(columns, width, intrinsics.center_px[0], intrinsics)
    top = _place(rows, height, intrinsics.center_px[1], intrinsics)
    return slice(top, top + rows), slice(left, left + columns)


def _place(size: int, available: int, center_px: float, intrinsics: Intrinsics) -> int:
    """First pixel of a window of some size around the principal point."""
    first = round(center_px - (size - 1) / 2)
    inside = min(max(first, 0), available - size)
    if abs(first - inside) > max(1.0, _TOLERANCE * size):
        x, y = intrinsics.center_px
        raise UnfitInput(
            Reason.BAD_CAMERA,
            f"image: the principal point ({x:.1f}, {y:.1f}) of {intrinsics.width}x"
            f"{intrinsics.height} is so far off the centre that the training camera's view would "
            "leave the image; use a wider lens, or check the calibration",
        )
    return inside
