"""ROS parameters from config dataclasses, so that no YAML key is without effect."""

from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dexgrasp_sim.config import parse_config, to_dict

ConfigClass = TypeVar("ConfigClass")

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""For measurements: the newest counts, and it matches every publisher."""
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""For commands."""
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For what a late subscriber must still get."""


def declare_config(node: Node, config_class: type[ConfigClass]) -> ConfigClass:
    """Declares a parameter for each field, nested ones with dots, and reads them.

    Raises:
        ConfigError: A value is not allowed.
    """
    values = _declare(node, "", to_dict(config_class()))
    return parse_config(config_class, values, source=f"parameters of {node.get_name()}")


def declare(node: Node, name: str, default: Any) -> Any:
    """Declares a parameter of the default's type and reads it."""
    return node.declare_parameter(name, default).value


def parameters_under(node: Node, prefix: str) -> dict[str, Any]:
    """All parameters given under a prefix, without it; for drivers, which know their own.

    The node must be built with `automatically_declare_parameters_from_overrides`.
    """
    found = node.get_parameters_by_prefix(prefix)
    return {name: parameter.value for name, parameter in found.items()}


def _declare(node: Node, prefix: str, defaults: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _declare(node, f"{prefix}{key}.", value)
        if isinstance(value, dict)
        else declare(node, prefix + key, value)
        for key, value in defaults.items()
    }
