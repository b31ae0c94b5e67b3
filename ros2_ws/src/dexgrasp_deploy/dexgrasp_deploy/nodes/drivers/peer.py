"""The other end of a driver's topics: message types by name, and why nothing arrives."""

import importlib
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from dexgrasp_deploy.drivers.joint_config import QosConfig
from dexgrasp_sim.config import ConfigError


def interface(name: str, parameter: str) -> Any:
    """The class of a message or service type, such as sensor_msgs/msg/JointState.

    Raises:
        ConfigError: The name is not of that form, or its package is not installed.
    """
    parts = name.split("/")
    if len(parts) != 3 or parts[1] not in ("msg", "srv"):
        raise ConfigError(f"{parameter} = {name!r}: must be like sensor_msgs/msg/JointState")
    package, kind, type_name = parts
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), type_name)
    except ImportError:
        debian = package.replace("_", "-")
        raise ConfigError(
            f"{parameter} = {name!r}: the package {package} is not installed; build it in the "
            f"workspace or install ros-$ROS_DISTRO-{debian}"
        ) from None
    except AttributeError:
        raise ConfigError(f"{parameter} = {name!r}: {package} has no such type") from None


def qos_profile(config: QosConfig) -> QoSProfile:
    """The quality of service of a config."""
    return QoSProfile(
        depth=config.depth,
        reliability=ReliabilityPolicy[config.reliability.upper()],
        durability=DurabilityPolicy[config.durability.upper()],
    )


def full_topic(node: Node, topic: str) -> str:
    """A topic with its namespace and remappings."""
    return node.resolve_topic_name(topic)


def why_unconnected(node: Node, topic: str, type_name: str, qos: QoSProfile, reads: bool) -> str:
    """Why no message passes between this node and the others on a topic.

    Args:
        node: This node.
        topic: Full name.
        type_name: The type that this node uses.
        qos: The quality of service that this node uses.
        reads: Whether this node subscribes; else it publishes.

    Returns:
        "" where a matching other end is there.
    """
    find = node.get_publishers_info_by_topic if reads else node.get_subscriptions_info_by_topic
    others = [info for info in find(topic) if info.node_name != node.get_name()]
    if not others:
        who = "publishes" if reads else "listens"
        return f"nobody {who}; is the driver running, and its controller active?"
    problems = []
    for other in others:
        ends = (other.qos_profile, qos) if reads else (qos, other.qos_profile)
        compatibility, reason = qos_check_compatible(*ends)
        if other.topic_type != type_name:
            problems.append(f"{other.node_name} has the type {other.topic_type}, not {type_name}")
        elif compatibility == QoSCompatibility.ERROR:
            problems.append(f"quality of service of {other.node_name}: {reason.strip(' ;')}")
        else:
            return ""
    return "; ".join(problems)
