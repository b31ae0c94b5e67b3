"""Sends a dexgrasp message through ROS to itself; `dexgrasp doctor` runs it as a child process.

Prints one JSON object with the paths of rclpy and of dexgrasp_msgs and the middleware's name.
"""

import json
import sys
import time

import rclpy

import dexgrasp_msgs
from dexgrasp_msgs.msg import LearnerStatus

_TOPIC = "dexgrasp_doctor"
_TIMEOUT_S = 5.0


def main() -> int:
    """Returns 0 when the message came back unchanged, else 1."""
    rclpy.init()
    node = rclpy.create_node("dexgrasp_doctor")
    received: list[LearnerStatus] = []
    node.create_subscription(LearnerStatus, _TOPIC, received.append, 1)
    publisher = node.create_publisher(LearnerStatus, _TOPIC, 1)
    sent = LearnerStatus(state=LearnerStatus.PAUSED, iteration=7, eta_s=1.5, message="doctor")
    end = time.monotonic() + _TIMEOUT_S
    while sent not in received and time.monotonic() < end:
        publisher.publish(sent)
        rclpy.spin_once(node, timeout_sec=0.1)
    report = {
        "rclpy": rclpy.__file__,
        "dexgrasp_msgs": dexgrasp_msgs.__file__,
        "middleware": rclpy.get_rmw_implementation_identifier(),
    }
    node.destroy_node()
    rclpy.shutdown()
    print(json.dumps(report))
    return 0 if sent in received else 1


if __name__ == "__main__":
    sys.exit(main())
