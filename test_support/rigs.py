"""Camera info files of cameras with a lens, and images that such cameras take."""

from pathlib import Path
from typing import Any

import yaml


def camera_info(
    width: int, height: int, focal_px: float, baseline_m: float = 0.0, **changes: Any
) -> dict[str, Any]:
    """A camera info file without distortion, with the principal point at the centre."""
    center = ((width - 1) / 2, (height - 1) / 2)
    lens = [focal_px, 0.0, center[0], 0.0, focal_px, center[1], 0.0, 0.0, 1.0]
    projection = [*lens[:3], -focal_px * baseline_m, *lens[3:6], 0.0, *lens[6:], 0.0]
    one = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    return {
        "image_width": width,
        "image_height": height,
        "camera_name": "camera",
        "camera_matrix": {"rows": 3, "cols": 3, "data": lens},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": one},
        "projection_matrix": {"rows": 3, "cols": 4, "data": projection},
        **changes,
    }


def write_camera_info(path: Path, *args: Any, **changes: Any) -> str:
    """Writes the file; arguments as for `camera_info`."""
    path.write_text(yaml.safe_dump(camera_info(*args, **changes)))
    return str(path)
