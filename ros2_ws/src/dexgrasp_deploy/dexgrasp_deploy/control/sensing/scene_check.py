"""Whether an image can be the scene: the table, seen by the training camera, with things on it.

The robot's camera stands where its calibration says or, without one, where the training camera
stood. What it must see is the top of the table, at a depth that follows from the camera's pose.
Robot and objects hide part of it and are nearer. A camera that is covered, reports another unit,
or looks elsewhere does not pass.
"""

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.sensing.camera_place import placed
from dexgrasp_deploy.control.sensing.policy_image import training_view
from dexgrasp_deploy.drivers.base import CameraSample
from dexgrasp_sim.physics.scene import TableConfig
from dexgrasp_sim.vision.camera import CameraConfig

_AGREE = 0.2
"""Depths within this share of the table's count as the table. The training camera's randomization
of 3 degrees changes the depth of a table that is seen at 22 degrees by 13 %."""
_LEAST_AGREEING = 0.15
"""Share of the table's pixels that must show it. Scripted grasps of the laptop's task never leave
less than 0.69 of them unhidden."""
_LEAST_VALID = 0.3
"""Share of the table's pixels that must have any depth."""
_LEAST_PIXELS = 20
"""With fewer pixels of the table in view nothing is judged but emptiness."""
_UNIT_FACTOR = 3.0
"""Depths that are off by more than this factor are in another unit."""
_LEAST_CONTRAST = 2.0
"""Least standard deviation of a colour image, of 255."""


def table_depth(camera: CameraConfig, table: TableConfig) -> NDArray[np.float64]:
    """[h, w] m, depth along the viewing axis of the table's top; 0 where it is not in view.

    Args:
        camera: Size, intrinsics, pose and range.
        table: In the same base frame.
    """
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width].astype(np.float64)
    x = (columns - (camera.width - 1) / 2) / camera.focal_px
    y = (rows - (camera.height - 1) / 2) / camera.focal_px
    rays = np.stack((x, y, np.ones_like(x)), axis=-1) @ camera.rotation_ros.T  # [h, w, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (table.top_m - camera.position[2]) / rays[..., 2]
        place = camera.position + rays * depth[..., np.newaxis]
    half = np.array(table.size_m[:2]) / 2
    on_table = (np.abs(place[..., :2] - np.array(table.center_m[:2])) <= half).all(axis=-1)
    in_range = (depth >= camera.near_m) & (depth <= camera.far_m)
    return np.where(on_table & in_range, depth, 0.0)


class SceneCheck:
    """Judges images of one task."""

    def __init__(self, camera: CameraConfig, table: TableConfig) -> None:
        """Args:
        camera: The training camera.
        table: In the same base frame.
        """
        self._camera, self._table = camera, table
        self._views: dict[tuple[float, ...], NDArray[np.float64]] = {}

    def judge(self, sample: CameraSample, group: str) -> None:
        """Judges an exposure.

        Args:
            sample: The exposure.
            group: `depth` or `stereo_rgb`.

        Raises:
            UnfitInput: It cannot be the scene, or does not fit the camera (`training_view`).
        """
        view = training_view(sample, self._camera, group)
        if group == "depth":
            _judge_depth(view, self._empty_table(sample.pose))
        else:
            _judge_stereo(view)

    def _empty_table(self, pose: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """See `table_depth`; kept, as a camera does not move."""
        key = () if pose is None else tuple(pose.tolist())
        if key not in self._views:
            self._views = {key: table_depth(placed(self._camera, pose), self._table)}
        return self._views[key]


def _judge_depth(view: NDArray[np.uint16], table: NDArray[np.float64]) -> None:
    shown = table > 0
    if not view.any():
        _refuse("every pixel is 0: the camera is covered, too near or misconfigured")
    if shown.sum() < _LEAST_PIXELS:
        return
    expected = table[shown]
    found = _sampled(view, *table.shape)[shown] / 1000.0
    valid = found > 0
    factor = float(np.median(found[valid] / expected[valid])) if valid.any() else 0.0
    if valid.any() and not 1 / _UNIT_FACTOR < factor < _UNIT_FACTOR:
        _refuse(
            f"depth is {factor:.3g} times what the table must look like: another unit; "
            "millimetres are needed as 16UC1, metres as 32FC1"
        )
    if valid.mean() < _LEAST_VALID:
        _refuse(
            f"{valid.mean():.0%} of the pixels that show the table have a depth, at least "
            f"{_LEAST_VALID:.0%} are needed"
        )
    agreeing = float((np.abs(found - expected) <= _AGREE * expected).mean())
    if agreeing < _LEAST_AGREEING:
        _refuse(
            f"{agreeing:.0%} of the pixels that must show the table have its depth, at least "
            f"{_LEAST_AGREEING:.0%} are needed: the camera does not stand where the training "
            "camera stood, or looks elsewhere"
        )


def _sampled(view: NDArray[np.uint16], height: int, width: int) -> NDArray[np.float64]:
    """The pixels nearest to the centres of [height, width] pixels of the same view."""
    rows = ((np.arange(height) + 0.5) * view.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * view.shape[1] / width).astype(int)
    return view[rows[:, np.newaxis], columns].astype(np.float64)


def _judge_stereo(view: NDArray[np.uint8]) -> None:
    for side, image in zip(("left", "right"), view, strict=True):
        contrast = float(image.std())
        if contrast < _LEAST_CONTRAST:
            _refuse(
                f"the {side} image has one brightness everywhere (standard deviation "
                f"{contrast:.1f} of 255): covered, unlit or overexposed"
            )
    if np.array_equal(view[0], view[1]):
        _refuse("the left and the right image are the same; check the camera's topics")


def _refuse(message: str) -> None:
    raise UnfitInput(Reason.NOT_THE_SCENE, f"image: {message}")
