"""Looks at a ROS graph for some seconds, for `dexgrasp doctor --robot`; commands nothing.

The argument is JSON, `{"seconds": 3, "topics": [{"topic", "type", "listen"}, ...]}`; the last line
that is printed is a GraphFacts as JSON.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from std_msgs.msg import String

from dexgrasp_deploy.checks.graph_facts import Endpoint, GraphFacts, Stream, TopicFacts
from dexgrasp_deploy.checks.urdf_limits import urdf_limits
from dexgrasp_deploy.nodes.drivers.peer import interface
from dexgrasp_deploy.nodes.policy.publisher_watch import full_name
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.qos import LATCHED

_NAME = "dexgrasp_doctor"
_DISCOVERY_S = 2.5
"""As long as nodes need at most to find each other on a busy computer."""
_CLOCK_PERIOD_S = 0.02
_ANY = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
"""A best-effort reader matches every publisher; the depth lets a late turn lose nothing."""


class _Heard:
    """What arrived of one stream."""

    def __init__(self) -> None:
        self.arrivals_s: list[float] = []
        self.ages_s: list[float] = []
        self.number = -1
        self.one_publisher = True
        self.message: Any = None

    def take(self, message: Any, now_s: float, age_s: float | None, number: int) -> None:
        self.arrivals_s.append(now_s)
        if age_s is not None:
            self.ages_s.append(age_s)
        if number:
            self.one_publisher &= number > self.number
            self.number = number
        self.message = message

    def as_stream(self) -> Stream:
        gaps = [b - a for a, b in zip(self.arrivals_s, self.arrivals_s[1:])]
        stamped = len(self.ages_s) == len(self.arrivals_s)
        return Stream(
            count=len(self.arrivals_s),
            seconds=self.arrivals_s[-1] - self.arrivals_s[0],
            longest_gap_s=max(gaps, default=0.0),
            oldest_s=max(self.ages_s, default=0.0),
            newest_s=min(self.ages_s, default=0.0),
            stamped=stamped,
            one_publisher=self.one_publisher,
            **_content(self.message),
        )


def _content(message: Any) -> dict[str, Any]:
    """Joints, or the size of an image."""
    if hasattr(message, "position"):
        keys = ("position", "velocity", "effort")
        values = {key: tuple(map(float, getattr(message, key))) for key in keys}
        return {"names": tuple(message.name), **values}
    if hasattr(message, "encoding"):
        text = f"{message.width}x{message.height} {message.encoding}"
        return {"text": text, "bytes": len(message.data)}
    if hasattr(message, "format"):
        return {"text": message.format, "bytes": len(message.data)}
    return {}


class GraphListener(Node):
    """Counts messages and lists who is there."""

    def __init__(self, topics: list[dict[str, Any]]) -> None:
        super().__init__(_NAME)
        self._topics = [entry["topic"] for entry in topics]
        self._heard: dict[str, dict[tuple[str, ...], _Heard]] = {}
        self._descriptions: dict[str, str] = {}
        self._described: set[str] = set()
        self._jump_s = 0.0
        self._offset_s = time.time() - time.monotonic()
        self.create_timer(_CLOCK_PERIOD_S, self._watch_clock)
        self.create_timer(0.2, self._find_descriptions)
        for entry in topics:
            if entry["listen"]:
                self._listen(entry["topic"], entry["type"])

    def _listen(self, topic: str, type_name: str) -> None:
        try:
            message_type = interface(type_name, topic)
        except ConfigError:
            return  # the check of the topic's ends says that the type is not installed
        self._heard[topic] = {}
        take: Any = self._taker(topic)  # rclpy's types do not know callbacks with two arguments
        self.create_subscription(message_type, topic, take, _ANY)

    def _taker(self, topic: str) -> Callable[[Any, Any], None]:
        def take(message: Any, info: Any) -> None:
            now_s, names = time.monotonic(), tuple(getattr(message, "name", ()))
            stamp = message.header.stamp
            age_s = None
            if stamp.sec or stamp.nanosec:
                passed = self.get_clock().now() - Time.from_msg(
                    stamp, clock_type=self.get_clock().clock_type
                )
                age_s = passed.nanoseconds * 1e-9
            heard = self._heard[topic].setdefault(names, _Heard())
            heard.take(message, now_s, age_s, int(info.get("publication_sequence_number") or 0))

        return take

    def _watch_clock(self) -> None:
        moved_s = abs(time.time() - time.monotonic() - self._offset_s)
        self._jump_s = max(self._jump_s, moved_s)

    def _find_descriptions(self) -> None:
        for topic, types in self.get_topic_names_and_types():
            if topic.endswith("robot_description") and topic not in self._described:
                self._described.add(topic)
                if types == ["std_msgs/msg/String"]:

                    def keep(message: String, topic: str = topic) -> None:
                        self._descriptions[topic] = message.data

                    self.create_subscription(String, topic, keep, LATCHED)

    def heard_something(self) -> bool:
        """Whether each topic that is listened to has sent something."""
        return all(self._heard.values())

    def facts(self) -> GraphFacts:
        """What was seen so far."""
        names = {
            full_name(namespace, name) for name, namespace in self.get_node_names_and_namespaces()
        }
        commands = [
            topic
            for topic, _ in self.get_topic_names_and_types()
            if topic.endswith("/joint_command")
        ]
        limits = {}
        for text in self._descriptions.values():
            limits |= urdf_limits(text)
        return GraphFacts(
            nodes=tuple(sorted(names - {self.get_fully_qualified_name()})),
            topics={topic: self._topic(topic) for topic in {*self._topics, *commands} if topic},
            services=tuple(name for name, _ in self.get_service_names_and_types()),
            limits={k: v for k, v in limits.items() if math.isfinite(v.velocity)},
            clock_jump_s=self._jump_s,
            domain=os.environ.get("ROS_DOMAIN_ID", "0"),
            range=os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", ""),
        )

    def _topic(self, topic: str) -> TopicFacts:
        own = self.get_fully_qualified_name()
        publishers = [_endpoint(info) for info in self.get_publishers_info_by_topic(topic)]
        subscribers = [_endpoint(info) for info in self.get_subscriptions_info_by_topic(topic)]
        return TopicFacts(
            tuple(publishers),
            tuple(each for each in subscribers if each.node != own),
            tuple(heard.as_stream() for heard in self._heard.get(topic, {}).values()),
        )


def _endpoint(info: Any) -> Endpoint:
    qos = info.qos_profile
    return Endpoint(
        full_name(info.node_namespace, info.node_name),
        info.topic_type,
        qos.reliability.name.lower(),
        qos.durability.name.lower(),
    )


def main() -> int:
    """Returns 0 and prints the facts."""
    task = json.loads(sys.argv[1])
    rclpy.init()
    node = GraphListener(task["topics"])
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    _spin(executor, _DISCOVERY_S, node.heard_something)
    _spin(executor, task["seconds"], lambda: False)
    facts = node.facts()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    print(json.dumps(asdict(facts)))
    return 0


def _spin(executor: SingleThreadedExecutor, seconds: float, is_done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0 and not is_done():
        executor.spin_once(timeout_sec=left_s)


if __name__ == "__main__":
    sys.exit(main())
