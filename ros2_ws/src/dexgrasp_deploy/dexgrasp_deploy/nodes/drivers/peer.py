"""The other end of a driver's topics: message types by name, and why nothing arrives."""

import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import rclpy
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

from dexgrasp_deploy.drivers.joint_config import QosConfig, qos_mismatch
from dexgrasp_sim.config import ConfigError

_TURN_S = 0.05
_NOT_YET_KNOWN = "_NODE_NAME_UNKNOWN_"
"""What rcl calls the owner of an endpoint that it discovers before its node."""


class Obstacle(NamedTuple):
    """Why nothing arrives.

    Attributes:
        reason: For the user.
        lasting: Whether it would be in vain to wait.
    """

    reason: str
    lasting: bool = False


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


def await_peer(node: Node, obstacle: Callable[[], Obstacle | None], timeout_s: float) -> str:
    """Runs the callbacks of a node that no executor runs yet, until nothing is in the way.

    Args:
        node: This node.
        obstacle: What is in the way.
        timeout_s: Longest wait.

    Returns:
        The reason why it did not connect; "" if it did.
    """
    deadline_s = time.monotonic() + timeout_s
    while found := obstacle():
        if found.lasting or time.monotonic() > deadline_s:
            return found.reason
        rclpy.spin_once(node, timeout_sec=_TURN_S)
    return ""


def full_topic(node: Node, topic: str) -> str:
    """A topic with its namespace and remappings."""
    return node.resolve_topic_name(topic)


def why_unconnected(
    node: Node, topic: str, type_name: str, qos: QoSProfile, reads: bool
) -> Obstacle | None:
    """Why no message passes between this node and the others on a topic.

    Args:
        node: This node.
        topic: Full name.
        type_name: The type that this node uses.
        qos: The quality of service that this node uses.
        reads: Whether this node subscribes; else it publishes.

    Returns:
        None where a matching other end is there.
    """
    find = node.get_publishers_info_by_topic if reads else node.get_subscriptions_info_by_topic
    unwanted = (node.get_name(), _NOT_YET_KNOWN)
    others = [info for info in find(topic) if info.node_name not in unwanted]
    if not others:
        who = "publishes" if reads else "listens"
        return Obstacle(f"nobody {who}; is the driver running, and its controller active?")
    problems = []
    for other in others:
        ends = (other.qos_profile, qos) if reads else (qos, other.qos_profile)
        if other.topic_type != type_name:
            problems.append(f"{other.node_name} has the type {other.topic_type}, not {type_name}")
        elif mismatch := _mismatch(*ends):
            problems.append(f"quality of service of {other.node_name}: {mismatch}")
        else:
            return None
    return Obstacle("; ".join(problems), lasting=True)


def _mismatch(publisher: QoSProfile, subscription: QoSProfile) -> str:
    """Why no message passes; "" if it does."""
    return qos_mismatch(
        *(publisher.reliability.name, publisher.durability.name),
        *(subscription.reliability.name, subscription.durability.name),
    )
