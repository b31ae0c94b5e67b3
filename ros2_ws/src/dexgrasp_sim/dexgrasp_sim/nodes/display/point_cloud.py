"""Depth images as clouds of coloured points."""

from array import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

MOST_POINTS = 20_000
"""Every second, third ... pixel of larger images is left out in both directions."""
_BYTES = 16
_FIELDS = (("x", 0), ("y", 4), ("z", 8), ("rgb", 12))


def point_cloud(
    depth_mm: NDArray[np.integer],
    colors: NDArray[np.uint8],
    focal_px: tuple[float, float],
    center_px: tuple[float, float],
    header: Header,
) -> PointCloud2:
    """The points of a depth image, in its optical frame.

    Args:
        depth_mm: [H, W] along the viewing axis; 0: none, which gives no point.
        colors: [H, W, 3] RGB.
        focal_px: In x and y.
        center_px: Principal point, whole numbers at pixel centres.
        header: Stamp and frame.
    """
    stride = max(1, int(np.ceil(np.sqrt(depth_mm.size / MOST_POINTS))))
    rows, columns = np.nonzero(depth_mm[::stride, ::stride])
    rows, columns = rows * stride, columns * stride
    z = depth_mm[rows, columns].astype(np.float32) / 1000  # [P]
    points = np.empty((len(z), 4), np.float32)
    points[:, 0] = (columns - center_px[0]) / focal_px[0] * z
    points[:, 1] = (rows - center_px[1]) / focal_px[1] * z
    points[:, 2] = z
    red, green, blue = colors[rows, columns].astype(np.uint32).T
    points[:, 3] = (red << 16 | green << 8 | blue).astype(np.uint32).view(np.float32)
    message = PointCloud2(header=header, height=1, width=len(z), is_dense=True)
    message.fields = [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in _FIELDS
    ]
    message.point_step, message.row_step = _BYTES, _BYTES * len(z)
    message.data = array("B", points.tobytes())
    return message


def points_of(message: PointCloud2) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points [P, 3] m and colours [P, 3] RGB of a cloud with float32 x, y, z, and rgb or none.

    Raises:
        ValueError: It has no such fields, or too little data.
    """
    offsets = {field.name: field.offset for field in message.fields}
    if not {"x", "y", "z"} <= set(offsets):
        raise ValueError(f"a point cloud with the fields {', '.join(offsets)}; x, y, z are needed")
    count = message.width * message.height
    data = np.frombuffer(message.data, np.uint8)
    if data.size < count * message.point_step or message.is_bigendian:
        raise ValueError(f"a point cloud of {count} points in {data.size} bytes cannot be read")
    rows = data[: count * message.point_step].reshape(count, message.point_step)

    def column(name: str, kind: type) -> NDArray:
        start = offsets[name]
        return np.ascontiguousarray(rows[:, start : start + 4]).view(kind)[:, 0]

    points = np.stack([column(name, np.float32) for name in "xyz"], axis=1)
    colors = np.full((count, 3), 128, np.uint8)
    if "rgb" in offsets:
        packed = column("rgb", np.uint32)
        colors = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1)
    finite = np.isfinite(points).all(axis=1)
    return points[finite], colors[finite].astype(np.uint8)
