"""Messages of cameras as arrays: Image, CompressedImage and CameraInfo of rclpy or a recording."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import Intrinsics

_DEPTH = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
_COLOUR: dict[str, tuple[int, ...]] = {
    "rgb8": (0, 1, 2),
    "bgr8": (2, 1, 0),
    "rgba8": (0, 1, 2),
    "bgra8": (2, 1, 0),
    "mono8": (0, 0, 0),
}
"""Which channels are red, green and blue."""
_BAYER = {
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
}
"""Named by the colours of the first two rows and columns."""
_MAX_DEPTH_MM = 65535
_COMPRESSED_DEPTH_HEADER = 12
"""Bytes before the PNG in messages of compressed_depth_image_transport."""


class ImageError(ValueError):
    """An image message cannot be read; the message says why."""


def from_image(message: Any) -> NDArray[Any]:
    """Depth [H, W] uint16 mm of 16UC1, mono16 (mm) and 32FC1 (m); else colour [H, W, 3] uint8 RGB.

    Depth that is not finite, negative or beyond 65.5 m becomes 0.

    Raises:
        ImageError: Another encoding, or too little data for the size.
    """
    encoding = message.encoding
    if encoding in _DEPTH:
        depth = _pixels(message, np.dtype(_DEPTH[encoding]), 1)[..., 0]
        return _millimetres(depth) if encoding == "32FC1" else depth.astype(np.uint16)
    if encoding in _BAYER:
        raw = _pixels(message, np.dtype(np.uint8), 1)[..., 0]
        return cv2.cvtColor(raw, _BAYER[encoding])
    if encoding not in _COLOUR:
        known = ", ".join((*_DEPTH, *_COLOUR, *_BAYER))
        raise ImageError(f"encoding {encoding!r} is not understood; one of {known} is")
    channels = {"rgba8": 4, "bgra8": 4, "mono8": 1}.get(encoding, 3)
    pixels = _pixels(message, np.dtype(np.uint8), channels)
    return np.ascontiguousarray(pixels[..., _COLOUR[encoding]])


def from_compressed(message: Any) -> NDArray[Any]:
    """As `from_image`, of JPEG and PNG, and of the PNG of compressed_depth_image_transport.

    Raises:
        ImageError: It is none of these, or damaged.
    """
    data = np.frombuffer(message.data, np.uint8)
    if "compressedDepth" in message.format:
        if not message.format.startswith("16UC1") or "rvl" in message.format:
            raise ImageError(f"format {message.format!r} is not understood; 16UC1 as PNG is")
        data = data[_COMPRESSED_DEPTH_HEADER:]
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise ImageError(f"{message.format!r} image of {data.size} bytes cannot be decoded")
    if image.dtype == np.uint16 and image.ndim == 2:
        return image
    if image.dtype != np.uint8:
        raise ImageError(f"{message.format!r} image is {image.dtype.name} {list(image.shape)}")
    codes = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return cv2.cvtColor(image, codes[2 if image.ndim == 2 else image.shape[2]])


def _pixels(message: Any, dtype: np.dtype, channels: int) -> NDArray[Any]:
    """[H, W, C] of a message, whatever its byte order and the padding of its rows."""
    data = np.frombuffer(message.data, np.uint8)
    row_bytes = message.width * dtype.itemsize * channels
    needed = message.step * message.height
    if not message.width or not message.height:
        raise ImageError(f"size {message.width}x{message.height}: the image is empty")
    if message.step < row_bytes or data.size < needed:
        raise ImageError(
            f"{data.size} bytes in rows of {message.step} for {message.width}x{message.height} "
            f"pixels of {message.encoding}, which need {row_bytes * message.height}"
        )
    rows = data[:needed].reshape(message.height, message.step)
    given = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels = np.ascontiguousarray(rows[:, :row_bytes]).view(given).astype(dtype)
    return pixels.reshape(message.height, message.width, channels)


def _millimetres(depth_m: NDArray[np.float32]) -> NDArray[np.uint16]:
    with np.errstate(invalid="ignore", over="ignore"):
        depth_mm = np.floor(depth_m.astype(np.float64) * 1000 + 0.5)
        valid = (depth_mm > 0) & (depth_mm <= _MAX_DEPTH_MM)
    return np.where(valid, depth_mm, 0.0).astype(np.uint16)


def from_camera_info(message: Any) -> Intrinsics:
    """Intrinsics of the rectified image: of P, or of K where P is empty."""
    p, k = message.p, message.k
    focal, center = ((p[0], p[5]), (p[2], p[6])) if p[0] else ((k[0], k[4]), (k[2], k[5]))
    return Intrinsics(message.width, message.height, focal, center)
