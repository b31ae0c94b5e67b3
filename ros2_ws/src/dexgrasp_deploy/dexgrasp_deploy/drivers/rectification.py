"""Images of real lenses as the training camera would take them, in one remap."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.results.camera_info import (
    FISHEYE,
    CameraInfo,
    read_camera_info,
)
from dexgrasp_deploy.drivers.base import Intrinsics
from dexgrasp_deploy.drivers.camera_config import CalibrationConfig
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import ConfigError

_LEAST_COVERED = 0.98
"""Share of the rectified image that the camera must see."""


class Rectifier:
    """Turns images of one camera into images of an ideal one.

    Colours are the mean of what a new pixel covers and depths those under its centre, as in
    training (`dexgrasp_sim.vision.preprocess`).
    """

    def __init__(self, info: CameraInfo, target: Intrinsics, name: str) -> None:
        """Args:
        info: Of the lens.
        target: The ideal camera.
        name: Of the file, for messages.

        Raises:
            ConfigError: The camera does not see all that the ideal camera sees.
        """
        self.target = target
        self._size = (info.height, info.width)
        self._name = name
        new = np.array(
            [
                [target.focal_px[0], 0.0, target.center_px[0]],
                [0.0, target.focal_px[1], target.center_px[1]],
                [0.0, 0.0, 1.0],
            ]
        )
        lens, size = info.matrix, (target.width, target.height)
        make = (
            cv2.fisheye.initUndistortRectifyMap
            if info.model == FISHEYE
            else cv2.initUndistortRectifyMap
        )
        u, v = make(lens, info.distortion, info.rectification, new, size, cv2.CV_32FC1)
        self._check_coverage(u, v)
        # how many pixels of the camera a new pixel covers
        self._block = tuple(
            max(1, round(lens[axis, axis] / target.focal_px[axis])) for axis in range(2)
        )
        self._nearest = (u + 1e-3, v + 1e-3)  # halves go up, as in training
        # the mean over an even number of pixels lies half a pixel before its anchor
        self._mean = (u + 0.5 * (self._block[0] % 2 == 0), v + 0.5 * (self._block[1] % 2 == 0))

    def _check_coverage(self, u: NDArray[Any], v: NDArray[Any]) -> None:
        height, width = self._size
        inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
        if inside.mean() < _LEAST_COVERED:
            raise ConfigError(
                f"{self._name}: the camera sees {inside.mean():.0%} of what the training camera "
                f"sees, {_LEAST_COVERED:.0%} are needed; use a wider lens or another policy"
            )

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image of the ideal camera.

        Args:
            image: [H, W] uint16 depth or [H, W, 3] uint8, in the size of the calibration.

        Raises:
            ConfigError: It has another size.
        """
        if image.shape[:2] != self._size:
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise ConfigError(
                f"the image is {found}, its calibration {self._name} is for "
                f"{self._size[1]}x{self._size[0]}"
            )
        if image.ndim == 2:
            return cv2.remap(image, *self._nearest, cv2.INTER_NEAREST)
        if max(self._block) > 1:
            image = cv2.blur(image, self._block, borderType=cv2.BORDER_REPLICATE)
        return cv2.remap(image, *self._mean, cv2.INTER_LINEAR)


def make_rectifiers(
    config: CalibrationConfig, manifest: BundleManifest | None, pair: bool
) -> tuple[Rectifier, ...]:
    """One rectifier for a camera, two for a pair, none without calibration.

    Args:
        config: Names the files.
        manifest: Its camera is the ideal one; None: that of the calibration.
        pair: Whether there are two cameras.

    Raises:
        ConfigError: A file is missing or wrong, or the baseline is not that of training.
    """
    paths = [config.left, config.right] if pair else [config.left]
    if not any(paths):
        return ()
    if not all(paths):
        raise ConfigError(
            "camera.calibration.left and camera.calibration.right: give both files of a pair"
        )
    infos = [read_camera_info(Path(path).expanduser()) for path in paths]
    if pair:
        check_baseline(infos[1].baseline_m, manifest, config.baseline_share)
    target = _ideal(infos[0], manifest)
    return tuple(Rectifier(info, target, path) for info, path in zip(infos, paths))


def check_baseline(
    baseline_m: float, manifest: BundleManifest | None, allowed_share: float
) -> None:
    """Compares the distance of two cameras with that of training.

    Raises:
        ConfigError: It differs by more than the share.
    """
    if manifest is None:
        return
    wanted_m = manifest.task.stereo_baseline_m
    if abs(baseline_m - wanted_m) > allowed_share * wanted_m:
        raise ConfigError(
            f"camera: the baseline is {baseline_m:.4f} m, that of training {wanted_m:.4f} m, and "
            f"{allowed_share:.0%} are allowed; are left and right swapped? Else train with yours "
            "(task.stereo_baseline_m)"
        )


def _ideal(info: CameraInfo, manifest: BundleManifest | None) -> Intrinsics:
    if manifest is not None:
        camera = manifest.task.camera
        return Intrinsics.centered(camera.width, camera.height, camera.focal_px)
    p = info.projection
    return Intrinsics(info.width, info.height, (p[0, 0], p[1, 1]), (p[0, 2], p[1, 2]))
