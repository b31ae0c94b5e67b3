"""Where the camera of a driver is, from the parameters that all camera drivers have."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dexgrasp_deploy.calibration.results.camera_info import read_camera_info
from dexgrasp_deploy.calibration.results.mounted_camera import (
    MountedCamera,
    mounted_camera,
    place_of,
)
from dexgrasp_deploy.drivers.camera_config import PlaceConfig
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import parse_config
from dexgrasp_sim.robot.robot import Robot

_PREFIX = "calibration."
_KEYS = {f"{_PREFIX}{field.name}" for field in fields(PlaceConfig)}


def drivers_own(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters under `camera.` without those of PlaceConfig, which are no driver's."""
    return {name: value for name, value in parameters.items() if name not in _KEYS}


def place_camera(
    parameters: Mapping[str, Any],
    robot: Robot,
    manifest: BundleManifest | None,
    now: datetime | None = None,
) -> MountedCamera | None:
    """Where the camera of some parameters is, checked as `mounted_camera` says.

    Args:
        parameters: Those under `camera.`, by dotted name without it.
        robot: The robot.
        manifest: Of the policy that will look through it; None if none was named.
        now: Time of day, with a time zone; None: that of the clock.

    Returns:
        Without `calibration.extrinsics` the place of training; None without a policy, too.

    Raises:
        ConfigError: A parameter or file is wrong, or the policy does not know this place.
    """
    given = {key.removeprefix(_PREFIX): parameters[key] for key in _KEYS & set(parameters)}
    config = parse_config(PlaceConfig, given, "parameters under camera.calibration.")
    task = None if manifest is None else manifest.task
    if not config.extrinsics:
        return None if task is None else place_of(task)
    left = parameters.get(f"{_PREFIX}left", "")
    return mounted_camera(
        Path(config.extrinsics).expanduser(),
        robot,
        task,
        now or datetime.now(timezone.utc),
        config.max_age_days,
        read_camera_info(Path(left).expanduser()) if left else None,
        config.allow_outside,
    )
