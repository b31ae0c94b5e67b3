"""ROS parameters from defaults and config dataclasses; unknown parameters are errors."""

from array import array
from typing import Any, TypeVar

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, Robot, load_robot

ConfigClass = TypeVar("ConfigClass")
Value = TypeVar("Value", bool, int, float, str)

_OF_EVERY_NODE = ("use_sim_time", "start_type_description_service", "qos_overrides.")


class Parameters:
    """The parameters of a node built with `automatically_declare_parameters_from_overrides`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: list[str] = []

    def get(self, name: str, default: Value) -> Value:
        """Reads a parameter; declares it with its default if it was not given.

        Raises:
            ConfigError: It is of another type than the default (a whole number passes as float).
        """
        value: Any = self._read(name, default)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            raise ConfigError(f"parameter {name} = {value!r}: not a {type(default).__name__}")
        return value

    def config(self, config_class: type[ConfigClass]) -> ConfigClass:
        """A config dataclass whose fields are parameters, nested ones with dots.

        Raises:
            ConfigError: A value is not allowed.
        """
        values = self._nested("", to_dict(config_class()))
        return parse_config(config_class, values, source=f"parameters of {self._node.get_name()}")

    def robot(self, manifest: BundleManifest | None) -> Robot:
        """The robot that the parameter `robot` names; "": the bundle's, else the default one.

        Raises:
            ConfigError: There is no such robot, or its files are wrong.
        """
        name = self.get("robot", "")
        return load_robot(name or (manifest.task.robot if manifest else DEFAULT_ROBOT))

    def under(self, prefix: str) -> dict[str, Any]:
        """All given parameters under a prefix, by name without it; a driver checks its own."""
        self._known.append(f"{prefix}.")
        found: dict[str, Any] = self._node.get_parameters_by_prefix(prefix)
        return {name: parameter.value for name, parameter in found.items()}

    def reject_unknown(self) -> None:
        """Call this after all parameters were read.

        Raises:
            ConfigError: A parameter was given that the node does not have.
        """
        known = (*_OF_EVERY_NODE, *self._known)
        given = sorted(self._node.get_parameters_by_prefix(""))
        for name in given:
            if not any(name == key or (key[-1] == "." and name.startswith(key)) for key in known):
                own = ", ".join(sorted(self._known))
                raise ConfigError(f"unknown parameter {name}; {self._node.get_name()} has {own}")

    def _read(self, name: str, default: Any) -> Any:
        self._known.append(name)
        if not self._node.has_parameter(name):
            self._node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True))
        value = self._node.get_parameter(name).value
        return value.tolist() if isinstance(value, array) else value

    def _nested(self, prefix: str, defaults: dict[str, Any]) -> dict[str, Any]:
        return {
            key: self._nested(f"{prefix}{key}.", value)
            if isinstance(value, dict)
            else self._read(prefix + key, value)
            for key, value in defaults.items()
        }
