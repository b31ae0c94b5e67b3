"""Subscribes to topics as they appear, whatever their type, and passes on serialized messages."""

import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from dexgrasp_deploy.recording.bag_thread import Message
from dexgrasp_deploy.recording.message_types import MessageTypes

_DEPTH = 64


class Subscriptions:
    """One subscription for each topic that fits a pattern and has a publisher.

    Attributes:
        topics: What is subscribed to.
    """

    def __init__(
        self,
        node: Node,
        patterns: Sequence[str],
        types: MessageTypes,
        take: Callable[[Message, bool], None],
    ) -> None:
        """Args:
        node: The owner.
        patterns: Names, in the node's namespace if they do not begin with `/`; `*` is any part.
        types: Gets the types of the topics.
        take: Is called with every message, and whether the publisher keeps it for later readers.
        """
        self._node, self._types, self._take = node, types, take
        self._patterns = [node.resolve_topic_name(name.replace("*", "X__")) for name in patterns]
        self._patterns = [name.replace("X__", "*") for name in self._patterns]
        self._known: set[str] = set()
        self.topics: list[str] = []

    def update(self) -> None:
        """Subscribes to what has appeared; called by a timer."""
        for topic, kinds in self._node.get_topic_names_and_types():
            if topic not in self._known and any(fnmatchcase(topic, p) for p in self._patterns):
                self._subscribe(topic, kinds)

    def _subscribe(self, topic: str, kinds: Sequence[str]) -> None:
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            return
        self._known.add(topic)
        try:
            if len(kinds) > 1:
                raise ValueError(f"it has several types, {', '.join(kinds)}")
            self._types.add(kinds[0])
            package, _, name = kinds[0].split("/")
            message_class = getattr(import_module(f"{package}.msg"), name)
        except (ValueError, ImportError, AttributeError) as error:
            self._node.get_logger().warning(f"{topic} is not recorded: {error}")
            return
        profiles = [each.qos_profile for each in publishers]
        reliable = all(each.reliability == ReliabilityPolicy.RELIABLE for each in profiles)
        lasting = all(each.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in profiles)
        qos = QoSProfile(
            depth=_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if lasting else DurabilityPolicy.VOLATILE,
        )

        def on_message(data: bytes) -> None:
            self._take(Message(topic, kinds[0], time.time_ns(), bytes(data)), lasting)

        self._node.create_subscription(message_class, topic, on_message, qos, raw=True)
        self.topics.append(topic)


def definition_of(kind: str) -> str:
    """The text of the .msg file of an installed type; "" where there is none."""
    package, _, name = kind.split("/")
    try:
        file = Path(get_package_share_directory(package)) / "msg" / f"{name}.msg"
        return file.read_text()
    except (PackageNotFoundError, OSError):
        return ""
