"""What a depth camera sees of an empty table: the image that policies compare theirs with."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.config import replace
from dexgrasp_sim.vision.camera import CameraConfig


@dataclass(frozen=True)
class TableView:
    """A depth camera above a table.

    Attributes:
        camera: Its pose, intrinsics and range.
        table_top_m: Height of the table's surface, base frame.
    """

    camera: CameraConfig
    table_top_m: float

    def depth_m(self, height: int, width: int) -> Tensor:
        """Depth of the table's plane, without edges, in each pixel of an empty scene.

        Args:
            height: Rows of the image; the field of view is the camera's.
            width: Columns.

        Returns:
            [height, width] float32 m along the viewing axis, at most `camera.far_m`, which also
            stands where a pixel's ray does not meet the plane.
        """
        camera = replace(self.camera, height=height, width=width)
        u, v = np.meshgrid(np.arange(width), np.arange(height))  # [H, W] each
        pixels = np.stack((u, v, np.ones_like(u)), axis=-1)  # [H, W, 3]
        rays = pixels @ np.linalg.inv(camera.intrinsics).T @ camera.rotation_ros.T  # depth 1
        drop = self.table_top_m - camera.position[2]
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = drop / rays[..., 2]  # [H, W]
        meets = np.isfinite(depth) & (depth > 0)
        return torch.from_numpy(np.where(meets, depth, np.inf).clip(max=camera.far_m)).float()
