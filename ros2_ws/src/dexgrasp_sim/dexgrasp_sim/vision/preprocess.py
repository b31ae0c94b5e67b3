"""Images between sensor and policy; the same code runs in simulation and on the robot.

A depth image is int16 millimetres along the viewing axis. 0 means invalid: nothing was hit, or
the surface is out of the camera's range.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

_UNIT_M = 0.1
"""What `policy_depth` gives as 1; 1 to 2 suits an encoder's first layer, and objects are about as
large."""
_RANGE = (-0.5, 2.0)
"""From 5 cm behind the table to 20 cm in front of it, beyond which the hand is not resolved."""

_MAX_MM = 32767


def metres_to_millimetres(depth_m: Tensor) -> Tensor:
    """Floating-point metres [...] to int16 millimetres [...].

    Halves are rounded up. Depths beyond 32.767 m become 32767. Depths that are not finite, zero,
    negative or round to 0 become 0 (invalid).
    """
    valid = torch.isfinite(depth_m) & (depth_m > 0)
    # in float64 like the simulated camera, so that both round a depth to the same millimetre
    millimetres = torch.floor(torch.where(valid, depth_m, 0.0).to(torch.float64) * 1000 + 0.5)
    return millimetres.clamp(max=_MAX_MM).to(torch.int16)


def millimetres_to_metres(depth_mm: Tensor) -> Tensor:
    """int16 millimetres [...] to float32 metres [...]; invalid pixels stay 0."""
    return depth_mm.to(torch.float32) * 1e-3


def policy_depth(depth_mm: Tensor, table_m: Tensor, near_m: float, far_m: float) -> Tensor:
    """A depth image as input of the policy's encoder; exportable to ONNX.

    It is the depth before the empty table: the object and the hand are all that differs from 0,
    wherever they are in the image. Measured on the laptop task, policies learn with a fifth less
    steps than from depth itself.

    Args:
        depth_mm: [..., H, W] int16 millimetres, 0 = invalid.
        table_m: [H, W] float32 m, depth of the empty table, see `TableView`.
        near_m: Nearer pixels are invalid.
        far_m: Farther pixels are invalid.

    Returns:
        [..., H, W] float32 in [-0.5, 2]: by how many tenths of a metre the surface is nearer than
        the table; 0 at invalid pixels, most of which see neither table nor object.
    """
    depth = depth_mm.to(torch.float32)
    # 0 is invalid even where near_m is 0; half a millimetre is the rounding of the image
    valid = (depth > 0) & (depth >= near_m * 1000 - 0.5) & (depth <= far_m * 1000 + 0.5)
    before = (table_m - depth * 1e-3) / _UNIT_M
    return torch.where(valid, before.clamp(*_RANGE), 0.0)


def policy_rgb(image: Tensor) -> Tensor:
    """uint8 colours [...] to float32 [...] in [-0.5, 0.5]; exportable to ONNX."""
    return image.to(torch.float32) / 255 - 0.5


def resize_depth(
    depth_mm: Tensor, height: int, width: int, mode: Literal["nearest", "area"] = "nearest"
) -> Tensor:
    """Resizes depth images without inventing depth from invalid pixels.

    Args:
        depth_mm: [..., H, W] int16 millimetres, 0 = invalid.
        height: Rows of the result.
        width: Columns of the result.
        mode: "nearest" takes the pixel under the centre of each new pixel, as the simulated
            camera does. "area" takes the mean of the valid pixels that a new pixel covers, which
            is less noisy but blends foreground and background at edges; it is invalid where
            fewer than half of them are valid.

    Returns:
        [..., height, width] int16 millimetres, 0 = invalid.

    Raises:
        ValueError: `mode` is neither "nearest" nor "area".
    """
    if mode == "nearest":
        return depth_mm[..., _centres(depth_mm.shape[-2], height), :][
            ..., _centres(depth_mm.shape[-1], width)
        ]
    if mode != "area":
        raise ValueError(f"mode {mode!r} is not one of 'nearest', 'area'; choose one of them")
    valid_share = _area_means((depth_mm > 0).to(torch.float64), height, width)  # [..., h, w]
    # the mean over all pixels with invalid ones as 0, divided by the share of valid ones
    mean_mm = _area_means(depth_mm.to(torch.float64), height, width) / valid_share.clamp(min=1e-9)
    return torch.where(valid_share >= 0.5, torch.floor(mean_mm + 0.5), 0.0).to(torch.int16)


def resize_rgb(image: Tensor, height: int, width: int) -> Tensor:
    """Resizes colour images by the mean of the pixels that a new pixel covers.

    Args:
        image: [..., 3, H, W] uint8.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        [..., 3, height, width] uint8.
    """
    means = _area_means(image.to(torch.float32), height, width)
    return torch.floor(means + 0.5).to(torch.uint8)


def _centres(size: int, new_size: int) -> Tensor:
    """[new_size] int64: indices of the pixels under the centres of the new pixels."""
    return (2 * torch.arange(new_size) + 1) * size // (2 * new_size)


def _area_means(images: Tensor, height: int, width: int) -> Tensor:
    """[..., H, W] to [..., height, width]: means over the pixels that touch each new pixel."""
    stacked = images.reshape(-1, 1, *images.shape[-2:])
    means = functional.interpolate(stacked, size=(height, width), mode="area")
    return means.reshape(*images.shape[:-2], height, width)
