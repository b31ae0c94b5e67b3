"""Recorded joints and images in place of a robot; whatever is commanded, they do as recorded."""

import csv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import (
    ArmDriver,
    CameraDriver,
    CameraSample,
    DriverContext,
    HandDriver,
    Intrinsics,
    JointDriver,
    JointSample,
)
from dexgrasp_deploy.drivers.camera_config import ReplayCameraConfig
from dexgrasp_deploy.drivers.joint_config import ReplayJointsConfig
from dexgrasp_deploy.drivers.registry import driver_config
from dexgrasp_sim.config import ConfigError


class Timeline:
    """Which of the recorded moments is now."""

    def __init__(self, time_s: NDArray[np.float64], loop: bool, now_s: float) -> None:
        """Args:
        time_s: [T] s, increasing.
        loop: Begin again at the end, one period after the last moment.
        now_s: Monotonic time of the first moment.
        """
        self._time_s, self._loop, self._start_s = time_s - time_s[0], loop, now_s
        period_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 1.0
        self._length_s = float(self._time_s[-1]) + period_s

    def at(self, now_s: float) -> tuple[int, float]:
        """The newest moment by its index, and the monotonic time at which it is due."""
        passed_s = now_s - self._start_s
        rounds = int(passed_s // self._length_s) if self._loop else 0
        within_s = passed_s - rounds * self._length_s
        index = max(0, int(np.searchsorted(self._time_s, within_s, side="right")) - 1)
        return index, self._start_s + rounds * self._length_s + float(self._time_s[index])


class Joints(NamedTuple):
    """Recorded joints: names [J], time [T] s, positions and velocities [T, J]."""

    names: tuple[str, ...]
    time_s: NDArray[np.float64]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]


class _ReplayJoints(JointDriver):
    """Recorded joints; parameters: ReplayJointsConfig."""

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Reads the file.

        Raises:
            ConfigError: The file is missing or wrong, or has not every joint of the device.
        """
        config = driver_config(ReplayJointsConfig, self.kind, parameters, self.profile)
        joints = read_joints(config.file, f"{self.kind}.file")
        self.joint_names = self.own_joints(context.robot)
        if missing := [name for name in self.joint_names if name not in joints.names]:
            raise ConfigError(
                f"{self.kind}.file = {config.file!r}: lacks {', '.join(missing)}; it has "
                f"{', '.join(joints.names)}"
            )
        columns = [joints.names.index(name) for name in self.joint_names]
        self._position, self._velocity = joints.position[:, columns], joints.velocity[:, columns]
        self._clock = context.clock
        self._timeline = Timeline(joints.time_s, config.loop, context.clock())

    def read(self) -> JointSample:
        """The recorded moment that is now."""
        index, stamp_s = self._timeline.at(self._clock())
        position, velocity = self._position[index], self._velocity[index]
        return JointSample(self.joint_names, position.copy(), velocity.copy(), stamp_s)

    def write(self, positions: Mapping[str, float]) -> None:
        """Does nothing."""


class ReplayArm(_ReplayJoints, ArmDriver):
    """A recorded arm."""


class ReplayHand(_ReplayJoints, HandDriver):
    """A recorded hand."""


class ReplayCamera(CameraDriver):
    """Recorded images; parameters: ReplayCameraConfig."""

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Reads the file.

        Raises:
            ConfigError: It is missing or has other arrays.
        """
        config = driver_config(ReplayCameraConfig, self.kind, parameters, self.profile)
        arrays = _arrays(config.file, "camera.file", ("time_s", "image", "focal_px", "center_px"))
        self._images = arrays["image"]
        shape, kind = self._images.shape, self._images.dtype.name
        is_depth = (len(shape), kind) == (3, "uint16")
        is_pair = (len(shape), kind) == (5, "uint8") and (shape[1], shape[4]) == (2, 3)
        if not (is_depth or is_pair):
            raise ConfigError(
                f"camera.file = {config.file!r}: `image` is {kind} {list(shape)}; depth is uint16 "
                "[T, H, W], a pair uint8 [T, 2, H, W, 3]"
            )
        time_s = _times(arrays["time_s"], len(self._images), f"camera.file = {config.file!r}")
        height, width = shape[1:3] if is_depth else shape[2:4]
        (fx, fy), (cx, cy) = arrays["focal_px"].tolist(), arrays["center_px"].tolist()
        self._intrinsics = Intrinsics(width, height, (fx, fy), (cx, cy))
        self._clock, self._due_s = context.clock, -np.inf
        self._timeline = Timeline(time_s, config.loop, context.clock())

    def read(self) -> CameraSample | None:
        """The recorded exposure that is now, once."""
        index, due_s = self._timeline.at(self._clock())
        if due_s <= self._due_s:
            return None
        self._due_s = due_s
        return CameraSample(self._images[index].copy(), due_s, self._intrinsics)


def read_joints(path: str, parameter: str) -> Joints:
    """Recorded joints of a `.npz` or `.csv` file; see `ReplayJointsConfig.file`.

    Raises:
        ConfigError: The file is missing or wrong.
    """
    where = f"{parameter} = {path!r}"
    if path.endswith(".csv"):
        names, time_s, position = _read_csv(path, where)
        velocity = None
    elif path.endswith(".npz"):
        arrays = _arrays(path, parameter, ("names", "time_s", "position"))
        names = tuple(str(name) for name in arrays["names"])
        time_s, position = arrays["time_s"], arrays["position"]
        velocity = arrays.get("velocity")
    else:
        raise ConfigError(f"{where}: must end in .npz or .csv")
    time_s = _times(time_s, len(position), where)
    if velocity is None:
        velocity = np.gradient(position, time_s, axis=0) if len(time_s) > 1 else 0 * position
    wanted = (len(time_s), len(names))
    for name, values in (("position", position), ("velocity", velocity)):
        if values.shape != wanted or not np.isfinite(values).all():
            raise ConfigError(
                f"{where}: {name} is {list(values.shape)}, not {list(wanted)} finite numbers"
            )
    return Joints(names, time_s, position, velocity)


def _times(time_s: NDArray[Any], count: int, where: str) -> NDArray[np.float64]:
    if time_s.shape != (count,) or not count or not (np.diff(time_s) > 0).all():
        raise ConfigError(f"{where}: time_s must be {count} increasing numbers, one or more")
    return time_s.astype(np.float64)


def _arrays(path: str, parameter: str, needed: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    where = f"{parameter} = {path!r}"
    try:
        with np.load(Path(path).expanduser(), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{where}: cannot be read as .npz: {error}") from None
    if missing := [name for name in needed if name not in arrays]:
        raise ConfigError(f"{where}: lacks {', '.join(missing)}; it has {', '.join(arrays)}")
    return arrays


def _read_csv(
    path: str, where: str
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    try:
        with Path(path).expanduser().open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        values = np.array([[float(word) for word in row] for row in rows])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None
    if header[:1] != ["time_s"] or values.ndim != 2 or values.shape[1] != len(header):
        raise ConfigError(
            f"{where}: must have the header `time_s,<joint>,...` and rows of numbers"
        )
    return tuple(header[1:]), values[:, 0], values[:, 1:]
