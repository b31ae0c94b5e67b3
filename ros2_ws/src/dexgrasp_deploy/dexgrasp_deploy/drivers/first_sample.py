"""The first sample of a driver, judged before anything is done with what the driver says.

Message fields are not checked when they are published (ROS 2, rclpy): what a driver of a lab
returns in another form would travel as something else.
"""

from typing import Any

import numpy as np

from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics, JointDriver, JointSample
from dexgrasp_deploy.drivers.joint_map import check_plausible
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import Robot


def check_joints(driver: JointDriver, robot: Robot) -> None:
    """Reads a driver that is configured and judges what it returns.

    Raises:
        ConfigError: It is no JointSample of the driver's joints, its arrays are of another kind or
            length, or no robot can have this posture.
    """
    name, sample = _named(driver), driver.read()
    if not isinstance(sample, JointSample):
        raise ConfigError(f"{name}: read() returns a {type(sample).__name__}, not a JointSample")
    if tuple(sample.names) != tuple(driver.joint_names):
        raise ConfigError(
            f"{name}: read() has the joints {', '.join(map(str, sample.names))}, joint_names has "
            f"{', '.join(driver.joint_names)}"
        )
    arrays = {"position": sample.position, "velocity": sample.velocity}
    if sample.effort is not None:
        arrays["effort"] = sample.effort
    for what, values in arrays.items():
        _check_array(f"{name}: {what} of read()", values, (len(sample.names),), "f")
    _check_time(name, sample.stamp_s)
    check_plausible(sample, robot, driver.kind)


def check_exposure(name: str, sample: CameraSample) -> None:
    """Judges an exposure.

    Args:
        name: Of the driver, for the message.
        sample: What it returned.

    Raises:
        ConfigError: It is no CameraSample, its image is neither depth nor a colour pair, or its
            intrinsics are of another size.
    """
    if not isinstance(sample, CameraSample):
        raise ConfigError(f"{name}: read() returns a {type(sample).__name__}, not a CameraSample")
    image = np.asarray(sample.image)
    is_depth = (image.ndim, image.dtype.name) == (2, "uint16")
    is_pair = (image.ndim, image.dtype.name) == (4, "uint8") and _ends(image.shape) == (2, 3)
    if not (is_depth or is_pair) or not image.size:
        raise ConfigError(
            f"{name}: the image is {image.dtype.name} {list(image.shape)}; depth is uint16 [H, W] "
            "in millimetres, a pair uint8 [2, H, W, 3]"
        )
    _check_time(name, sample.stamp_s)
    size = (image.shape[1], image.shape[0]) if is_depth else (image.shape[2], image.shape[1])
    lens = sample.intrinsics
    if lens is None:
        return
    if not isinstance(lens, Intrinsics) or (lens.width, lens.height) != size:
        found = f"{lens.width}x{lens.height}" if isinstance(lens, Intrinsics) else repr(lens)
        raise ConfigError(f"{name}: the image is {size[0]}x{size[1]}, its intrinsics {found}")


def _ends(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[-1]


def _check_array(what: str, values: Any, shape: tuple[int, ...], kind: str) -> None:
    if not isinstance(values, np.ndarray) or values.dtype.kind != kind or values.shape != shape:
        found = (
            f"{values.dtype.name} {list(values.shape)}"
            if isinstance(values, np.ndarray)
            else f"a {type(values).__name__}"
        )
        raise ConfigError(f"{what} is {found}, not float64 {list(shape)}")


def _check_time(name: str, stamp_s: Any) -> None:
    if not isinstance(stamp_s, float | int) or not np.isfinite(stamp_s):
        raise ConfigError(f"{name}: the stamp is {stamp_s!r}, not a time of context.clock in s")


def _named(driver: JointDriver) -> str:
    return f"{driver.kind}.driver {type(driver).__name__}"
