"""The camera as it stands: the view that policies compare their images with, moved there."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dexgrasp_sim.config import replace
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.table_view import TableView

Vector = NDArray[np.float64]

_KEPT = 8


def placed(camera: CameraConfig, pose: Vector | None) -> CameraConfig:
    """A training camera at another place.

    Args:
        camera: The training camera.
        pose: [7] xyz m and quaternion wxyz of its optical axes (REP 103) in the base; None: it
            stays where it is.
    """
    return camera if pose is None else _placed(camera, tuple(pose.tolist()))


def depth_of_training(
    depth_mm: NDArray[np.int16], camera: CameraConfig, pose: Vector | None, table_top_m: float
) -> NDArray[np.int16]:
    """Depths as the training camera would measure them, as far as the table is concerned.

    A policy reads by how much a surface is before the empty table, which it knows for the place
    of the training camera (`vision.table_view`). Each pixel is moved by the difference of both
    views of the empty table, so that the table itself becomes what the policy knows. Where things
    are in the image stays as the camera shows it.

    Args:
        depth_mm: [h, w], 0 = invalid, in the training camera's field of view.
        camera: The training camera.
        pose: See `placed`.
        table_top_m: Height of the table, base frame.

    Returns:
        [h, w] int16 mm, invalid where it was.
    """
    if pose is None:
        return depth_mm
    shift = _shift_mm(camera, tuple(pose.tolist()), table_top_m, depth_mm.shape)
    moved = np.clip(depth_mm + shift, 1, np.iinfo(np.int16).max)
    return np.where(depth_mm > 0, moved, 0).astype(np.int16)


@lru_cache(maxsize=_KEPT)
def _placed(camera: CameraConfig, pose: tuple[float, ...]) -> CameraConfig:
    x, y, z, *optical = pose
    w, i, j, k = optical
    # half a turn about x takes the optical axes to those of MuJoCo: q * (0, 1, 0, 0)
    return replace(
        camera,
        position_m=(x, y, z),
        look_at_m=None,
        quaternion_wxyz=(-i, w, k, -j),
    )


@lru_cache(maxsize=_KEPT)
def _shift_mm(
    camera: CameraConfig, pose: tuple[float, ...], table_top_m: float, size: tuple[int, int]
) -> NDArray[np.int32]:
    trained, real = (
        TableView(one, table_top_m).depth_m(*size).double().numpy()
        for one in (camera, _placed(camera, pose))
    )
    seen = (trained < camera.far_m) & (real < camera.far_m)
    shift = np.where(seen, 1000.0 * (trained - real), 0.0)
    return np.round(shift).astype(np.int32)
