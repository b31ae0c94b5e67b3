"""The other end of a robot's topics: a node that speaks as a robot's own driver does."""

import contextlib
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

RELIABLE = QoSProfile(depth=10)
"""Of publishers with the default settings of rclcpp."""
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class RobotPeer:
    """Publishes joint states and obeys commands, in a participant and a thread of its own.

    Attributes:
        position: What it measures, which is what was commanded last.
        change: Is applied to every message of joint states; None: it is not sent.
        received: The commands.
    """

    def __init__(
        self,
        names: Sequence[str],
        state_topic: str,
        command_topic: str,
        *,
        forward: bool,
        state_qos: QoSProfile,
        command_qos: QoSProfile,
    ) -> None:
        """Args: `forward`: commands are an array in the order of `names`, else a JointState."""
        self.names = list(names)
        self.position = [0.0] * len(names)
        self.received: list[Any] = []
        self.change: Callable[[JointState], JointState | None] = lambda message: message
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot_peer", context=self.context)
        self.states = self.node.create_publisher(JointState, state_topic, state_qos)
        kind = Float64MultiArray if forward else JointState
        self.node.create_subscription(kind, command_topic, self._on_command, command_qos)
        self.node.create_timer(0.01, self._publish)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self._spin, daemon=True)

    def __enter__(self) -> "RobotPeer":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        rclpy.shutdown(context=self.context)
        self.thread.join(timeout=30)
        self.node.destroy_node()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()

    def _publish(self) -> None:
        message = JointState(name=self.names)
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.position = array("d", self.position)
        message.velocity = array("d", [0.25] * len(self.names))
        message.effort = array("d", [0.5] * len(self.names))
        changed = self.change(message)
        if changed is not None:
            self.states.publish(changed)

    def _on_command(self, message: Any) -> None:
        """A forward command controller reads an array in its order; the hands read by position."""
        values = message.data if isinstance(message, Float64MultiArray) else message.position
        assert len(values) == len(self.names)
        self.position = list(values)
        self.received.append(message)
