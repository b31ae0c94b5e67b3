"""Topics whose messages are taken when they are wanted, without the executor.

The executor of rclpy prepares a new wait set of all that the node has for every message that
arrives, and another one afterwards: about a millisecond of computing, five times in a period of
60 Hz. A control loop knows when it wants the newest measurement; taking it then costs a fifth.
"""

import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from typing_extensions import override

Arrived = Callable[[Any, float], None]
"""Called with a message and the monotonic time, s, at which it arrived on this computer."""


class _Never(CallbackGroup):
    """Its entities are left alone by every executor."""

    @override
    def can_execute(self, entity: Any) -> bool:
        return False

    @override
    def beginning_execution(self, entity: Any) -> bool:
        return False

    @override
    def ending_execution(self, entity: Any) -> None:
        pass


class PolledTopics:
    """Subscriptions of a node that is read by one thread.

    Attributes:
        names: Of the topics, resolved.
    """

    def __init__(self, node: Node) -> None:
        self._node, self._group = node, _Never()
        self._topics: list[tuple[Subscription, int, Arrived]] = []

    @property
    def names(self) -> set[str]:
        """Resolved names of the topics."""
        return {subscription.topic_name for subscription, _, _ in self._topics}

    def subscribe(self, kind: type, name: str, arrived: Arrived, qos: QoSProfile) -> None:
        """Subscribes to a topic; of more messages than the depth of its QoS, the newest count."""
        subscription = self._node.create_subscription(
            kind, name, lambda _: None, qos, callback_group=self._group
        )
        self._topics.append((subscription, qos.depth, arrived))

    def take(self) -> None:
        """Takes all messages that have arrived, in the order of the subscriptions."""
        for subscription, depth, arrived in self._topics:
            for _ in range(depth):
                with subscription.handle:
                    taken = subscription.handle.take_message(subscription.msg_type, False)
                if taken is None:
                    break
                message, about = taken
                arrived(message, _arrival_s(about["received_timestamp"]))


def _arrival_s(received_ns: int) -> float:
    """Monotonic time of a reception, ns of the system's clock; now, where it is not known.

    A clock that has jumped since must not make a message look younger than it is known to be.
    """
    now_s = time.monotonic()
    if not received_ns:
        return now_s
    return now_s - max(0.0, 1e-9 * (time.time_ns() - received_ns))
