"""Sends a dexgrasp message from one ROS participant to another, for `dexgrasp doctor`.

Prints one JSON object with the paths of rclpy and of dexgrasp_msgs and the middleware's name.
"""

import json
import sys
import time

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

import dexgrasp_msgs
from dexgrasp_msgs.msg import LearnerStatus

_TOPIC = "dexgrasp_doctor"
_TIMEOUT_S = 10.0


def main() -> int:
    """Returns 0 when the message arrived unchanged, else 1.

    Each node has a context, and so a participant, of its own: like two processes, they have to
    discover each other. Nodes of one participant need no discovery.
    """
    report = {
        "rclpy": rclpy.__file__,
        "dexgrasp_msgs": dexgrasp_msgs.__file__,
        "middleware": rclpy.get_rmw_implementation_identifier(),
    }
    contexts = [Context(), Context()]
    for context in contexts:
        rclpy.init(context=context)
    nodes = [rclpy.create_node("dexgrasp_doctor", context=context) for context in contexts]
    sender, receiver = nodes
    received: list[LearnerStatus] = []
    receiver.create_subscription(LearnerStatus, _TOPIC, received.append, 1)
    publisher = sender.create_publisher(LearnerStatus, _TOPIC, 1)
    executor = SingleThreadedExecutor(context=contexts[1])
    executor.add_node(receiver)
    sent = LearnerStatus(state=LearnerStatus.PAUSED, iteration=7, eta_s=1.5, message="doctor")
    end = time.monotonic() + _TIMEOUT_S
    while sent not in received and time.monotonic() < end:
        publisher.publish(sent)
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    for node, context in zip(nodes, contexts):
        node.destroy_node()
        rclpy.shutdown(context=context)
    print(json.dumps(report))
    return 0 if sent in received else 1


if __name__ == "__main__":
    sys.exit(main())
