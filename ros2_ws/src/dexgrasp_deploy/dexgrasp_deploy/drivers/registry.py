"""The built-in drivers and topic profiles, and how one is chosen by name."""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dexgrasp_deploy.drivers.base import ArmDriver, CameraDriver, Driver, HandDriver
from dexgrasp_deploy.drivers.camera_config import (
    ImageTopicsConfig,
    MockCameraConfig,
    OpenCvConfig,
    PlaceConfig,
    RealSenseConfig,
    ReplayCameraConfig,
    SimCameraConfig,
)
from dexgrasp_deploy.drivers.joint_config import (
    JointTopicsConfig,
    NoParameters,
    ReplayJointsConfig,
)
from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.config_keys import Key, config_keys
from dexgrasp_sim.yaml_file import read_values

_HERE = "dexgrasp_deploy.drivers"
_ON_TOPICS = "dexgrasp_deploy.nodes.drivers"
_PROFILES = Path(__file__).parent / "profiles"
_KINDS: dict[str, type[Driver]] = {"arm": ArmDriver, "hand": HandDriver, "camera": CameraDriver}
KINDS = tuple(_KINDS)

ConfigClass = TypeVar("ConfigClass")


class BuiltIn(NamedTuple):
    """A driver of this package.

    Attributes:
        path: `module:Class`, imported when it is chosen.
        config: Dataclass of its parameters.
        summary: What it drives.
    """

    path: str
    config: type
    summary: str


_JOINTS_ON_TOPICS = "joints of any driver on ROS topics: forward command or trajectory controller"
BUILT_IN: Mapping[str, Mapping[str, BuiltIn]] = {
    "arm": {
        "mock": BuiltIn(f"{_HERE}.mock:MockArm", NoParameters, "an arm that moves at once"),
        "sim": BuiltIn(f"{_HERE}.sim:SimArm", NoParameters, "the arm of the simulated world"),
        "replay": BuiltIn(f"{_HERE}.replay:ReplayArm", ReplayJointsConfig, "a recorded arm"),
        "ros2_control": BuiltIn(
            f"{_ON_TOPICS}.joint_topics:TopicArm", JointTopicsConfig, _JOINTS_ON_TOPICS
        ),
    },
    "hand": {
        "mock": BuiltIn(f"{_HERE}.mock:MockHand", NoParameters, "a hand that moves at once"),
        "sim": BuiltIn(f"{_HERE}.sim:SimHand", NoParameters, "the hand of the simulated world"),
        "replay": BuiltIn(f"{_HERE}.replay:ReplayHand", ReplayJointsConfig, "a recorded hand"),
        "ros2_control": BuiltIn(
            f"{_ON_TOPICS}.joint_topics:TopicHand", JointTopicsConfig, _JOINTS_ON_TOPICS
        ),
    },
    "camera": {
        "mock": BuiltIn(f"{_HERE}.mock:MockCamera", MockCameraConfig, "the empty table"),
        "sim": BuiltIn(f"{_HERE}.sim:SimCamera", SimCameraConfig, "the training camera"),
        "replay": BuiltIn(f"{_HERE}.replay:ReplayCamera", ReplayCameraConfig, "recorded images"),
        "realsense": BuiltIn(
            f"{_HERE}.realsense:RealSenseCamera",
            RealSenseConfig,
            "Intel RealSense in this process: depth, both infrared, or two colour cameras",
        ),
        "opencv": BuiltIn(
            f"{_HERE}.opencv:OpenCvCamera",
            OpenCvConfig,
            "UVC cameras, side by side or two, films and folders of PNG",
        ),
        "ros_topics": BuiltIn(
            f"{_ON_TOPICS}.camera_topics:TopicCamera",
            ImageTopicsConfig,
            "a depth image or a pair of images of any driver on ROS topics",
        ),
    },
}
_OF_PROFILES = {"arm": "ros2_control", "hand": "ros2_control", "camera": "ros_topics"}
"""The driver that a profile gives its values to."""


class Profile(NamedTuple):
    """Values for a driver on topics.

    Attributes:
        kind: "arm", "hand" or "camera".
        name: Its file without the end.
        summary: What it is for.
        source: Where its names and numbers are from.
        values: Nested, on top of the driver's defaults.
    """

    kind: str
    name: str
    summary: str
    source: str
    values: Mapping[str, Any]


class Entry(NamedTuple):
    """What may be given as `<kind>.driver`, with its parameters.

    Attributes:
        kind: "arm", "hand" or "camera".
        name: The value of the parameter.
        driver: The built-in driver that a profile gives values to, else the name.
        summary: What it drives.
        source: Where the names and numbers of a profile are from.
        parameters: Name with `<kind>.`, type, default, unit and meaning.
    """

    kind: str
    name: str
    driver: str
    summary: str
    source: str
    parameters: tuple[Key, ...]


def driver_config(
    config_class: type[ConfigClass],
    kind: str,
    parameters: Mapping[str, Any],
    profile: Mapping[str, Any] | None = None,
) -> ConfigClass:
    """A driver's parameters as a config dataclass.

    Args:
        config_class: A frozen pydantic dataclass.
        kind: "arm", "hand" or "camera", for messages.
        parameters: By dotted name, without `<kind>.`.
        profile: Nested values below them.

    Raises:
        ConfigError: A parameter is unknown or not allowed.
    """
    values = _copied(profile or {})
    for name, value in parameters.items():
        if name != "driver":
            _put(values, name.split("."), value, f"{kind}.{name}")
    return parse_config(config_class, values, f"parameters under {kind}.")


def make_driver(kind: str, name: str) -> Driver:
    """Builds an unconfigured driver.

    Args:
        kind: "arm", "hand" or "camera".
        name: Built-in driver, profile of this package, path of a profile (`.yaml`), or
            `module:Class` of a class on the Python path that derives from ArmDriver, HandDriver
            or CameraDriver.

    Raises:
        ConfigError: There is no such driver, or it is of another kind, or it is incomplete.
    """
    if name in BUILT_IN[kind]:
        return _driver_class(kind, name, BUILT_IN[kind][name].path)()
    profile = _profile(kind, name)
    if profile is None:
        return _driver_class(kind, name, name)()
    driver = _driver_class(kind, name, BUILT_IN[kind][_OF_PROFILES[kind]].path)()
    driver.profile = profile.values
    return driver


@cache
def profiles() -> tuple[Profile, ...]:
    """The profiles of this package, by kind and name."""
    found = [
        profile for path in _PROFILES.glob("*.yaml") for profile in read_profiles(path).values()
    ]
    return tuple(sorted(found, key=lambda each: (KINDS.index(each.kind), each.name)))


def read_profiles(path: Path) -> dict[str, Profile]:
    """The profiles of a YAML file by kind: keys `summary`, `source`, `arm`, `hand`, `camera`.

    Raises:
        ConfigError: The file cannot be read, has another key or no profile.
    """
    content = dict(read_values(path))
    summary, source = str(content.pop("summary", "")), str(content.pop("source", ""))
    if not content or not set(content) <= set(KINDS):
        found = ", ".join(sorted(set(content) - set(KINDS))) or "none of them"
        raise ConfigError(f"{path}: has {found}; a profile has arm, hand or camera")
    return {
        kind: Profile(kind, path.stem, summary, source, values or {})
        for kind, values in content.items()
    }


def chosen_config(kind: str, name: str, parameters: Mapping[str, Any]) -> Any:
    """The config that a driver reads from its parameters, see `driver_config`.

    Args:
        kind: "arm", "hand" or "camera".
        name: As for `make_driver`.
        parameters: By dotted name, without `<kind>.`.

    Returns:
        None for a class that is not of this package, and for "".

    Raises:
        ConfigError: A parameter or profile is unknown or wrong.
    """
    profile = _profile(kind, name) if name else None
    driver = name if profile is None else _OF_PROFILES[kind]
    known = BUILT_IN[kind].get(driver)
    if known is None:
        return None
    values = {} if profile is None else profile.values
    return driver_config(known.config, kind, parameters, values)


def rectifies(camera: str) -> bool:
    """Whether a camera driver of this package, or a profile, takes camera info files."""
    if _profile("camera", camera) is not None:
        return True
    known = BUILT_IN["camera"].get(camera)
    return known is not None and hasattr(known.config, "calibration")


def entries() -> Iterator[Entry]:
    """Every built-in driver and profile with its parameters."""
    for kind in KINDS:
        for name, built_in in BUILT_IN[kind].items():
            keys = (*config_keys(built_in.config, f"{kind}."), *_of_kind(kind))
            yield Entry(kind, name, name, built_in.summary, "", keys)
    for profile in profiles():
        kind, driver = profile.kind, _OF_PROFILES[profile.kind]
        config = driver_config(BUILT_IN[kind][driver].config, kind, {}, profile.values)
        defaults = _flat(to_dict(config), f"{kind}.")
        keys = tuple(
            key._replace(default=defaults[key.name])
            for key in config_keys(BUILT_IN[kind][driver].config, f"{kind}.")
        )
        keys = (*keys, *_of_kind(kind))
        yield Entry(kind, profile.name, driver, profile.summary, profile.source, keys)


def _of_kind(kind: str) -> Iterator[Key]:
    """Parameters that all drivers of a kind have."""
    if kind == "camera":
        yield from config_keys(PlaceConfig, "camera.calibration.")


def _profile(kind: str, name: str) -> Profile | None:
    """The profile of this name or path; None: the name is not that of a profile."""
    if name.endswith(".yaml"):
        found = read_profiles(Path(name))
        if kind not in found:
            raise ConfigError(f"{kind}.driver = {name!r}: has {', '.join(found)} and no {kind}")
        return found[kind]
    return next((p for p in profiles() if (p.kind, p.name) == (kind, name)), None)


def _driver_class(kind: str, name: str, path: str) -> type[Any]:
    parameter = f"{kind}.driver"
    module_name, separator, class_name = path.partition(":")
    if not separator or not module_name or not class_name:
        known = [*BUILT_IN[kind], *(p.name for p in profiles() if p.kind == kind)]
        raise ConfigError(
            f"{parameter} = {name!r}: not one of {', '.join(known)} and not of the form "
            "`module:Class`"
        )
    try:
        driver_class = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise ConfigError(
            f"{parameter} = {name!r}: cannot import {module_name} ({error}); install it or put it "
            "on PYTHONPATH"
        ) from error
    except AttributeError:
        raise ConfigError(f"{parameter} = {name!r}: {module_name} has no {class_name}") from None
    base = _KINDS[kind]
    if not (inspect.isclass(driver_class) and issubclass(driver_class, base)):
        raise ConfigError(f"{parameter} = {name!r}: {class_name} is not a {base.__name__}")
    if missing := sorted(driver_class.__abstractmethods__):
        raise ConfigError(f"{parameter} = {name!r}: {class_name} lacks {', '.join(missing)}")
    return driver_class


def _put(values: dict[str, Any], keys: list[str], value: Any, name: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{name}: `{key}` has no keys below it")
    # rclpy gives arrays of numbers as array.array
    values[keys[-1]] = value.tolist() if hasattr(value, "tolist") else value


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + key
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found
