"""Depth images in colours for people."""

import cv2
import numpy as np

from dexgrasp_sim.vision.camera import CameraConfig

_INVALID = (0, 0, 0)


def colorize_depth(depth_mm: np.ndarray, camera: CameraConfig) -> np.ndarray:
    """Depth [N, H, W] int16 mm as RGB [N, H, W, 3]: near is bright, invalid is black."""
    metres = depth_mm.astype(np.float32) / 1000
    nearness = np.clip((camera.far_m - metres) / (camera.far_m - camera.near_m), 0.0, 1.0)
    levels = (255 * nearness).astype(np.uint8).reshape(len(depth_mm), -1)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    colors = colors.reshape(*depth_mm.shape, 3)
    colors[depth_mm == 0] = _INVALID
    return colors
