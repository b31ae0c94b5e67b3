"""The latency report: a table in the log, JSON on a topic and in a file, after every episode."""

import json
from collections.abc import Callable
from pathlib import Path

from rclpy.node import Node
from std_msgs.msg import String

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_sim.nodes.qos import LATCHED


class LatencyTopic:
    """Reports the latencies of all steps since the bundle was loaded, on `policy/latency`."""

    def __init__(self, node: Node, loop: Callable[[], ControlLoop | None], file: str) -> None:
        """Args:
        node: The owner.
        loop: Returns the control loop; None while no bundle is loaded.
        file: Where the JSON is written, too; "": nowhere.
        """
        self._node, self._loop, self._file = node, loop, file
        self._reported: tuple[ControlLoop, int] | None = None
        self._publisher = node.create_publisher(String, "policy/latency", LATCHED)

    def report_when_over(self) -> None:
        """Reports when an episode with new steps has ended; called by a timer."""
        loop = self._loop()
        if loop is not None and not loop.episode.active:
            self._report(loop)

    def _report(self, loop: ControlLoop) -> None:
        latencies = loop.steps.latencies
        state = (loop, loop.steps.count)
        if not loop.steps.count or self._reported == state:
            return
        self._reported = state
        text = json.dumps(latencies.as_dict())
        self._node.get_logger().info(latencies.table())
        self._publisher.publish(String(data=text))
        if self._file:
            try:
                Path(self._file).write_text(text + "\n")
            except OSError as error:
                reason = f"{self._file} cannot be written ({error.strerror})"
                self._node.get_logger().error(f"latency report: {reason}")
                self._file = ""
