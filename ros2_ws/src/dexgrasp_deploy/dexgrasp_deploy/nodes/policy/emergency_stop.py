"""Emergency stop by a latched topic, a heartbeat and a service; never instead of the hardware's.

Whatever stopped the robot, it stays stopped until a person calls `policy/reset`, which is refused
as long as the cause is there. After that the robot begins where it is measured.
"""

import time
from collections.abc import Callable

from rclpy.node import Node
from std_msgs.msg import Bool, Empty
from std_srvs.srv import Trigger

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.qos import COMMAND, LATCHED


class EmergencyStop:
    """Topics `estop` (Bool, true stops) and `estop/heartbeat` (Empty), services `policy/estop` and
    `policy/reset`; the state is on the latched topic `policy/estopped`.
    """

    def __init__(
        self, node: Node, loop: Callable[[], ControlLoop | None], heartbeat_s: float
    ) -> None:
        """Starts them.

        Args:
            node: Owner.
            loop: Returns the control loop; None while no bundle is loaded.
            heartbeat_s: Longest time between two heartbeats; 0: none are needed.

        Raises:
            ConfigError: The time is negative.
        """
        if heartbeat_s < 0:
            raise ConfigError(f"estop.heartbeat_s = {heartbeat_s}: must not be negative")
        self._node, self._loop, self._heartbeat_s = node, loop, heartbeat_s
        self._pressed, self._cause = False, ""
        self._beat_s = time.monotonic()
        self._state = node.create_publisher(Bool, "policy/estopped", LATCHED)
        # a reader that wants the last message is not served by a writer that keeps none
        for qos in (LATCHED, COMMAND):
            node.create_subscription(Bool, "estop", self._on_button, qos)
        node.create_subscription(Empty, "estop/heartbeat", self._on_heartbeat, COMMAND)
        node.create_service(Trigger, "policy/estop", self._on_stop)
        node.create_service(Trigger, "policy/reset", self._on_reset)
        self._state.publish(Bool(data=False))

    def apply(self) -> None:
        """Stops a control loop that was loaded after the stop."""
        loop = self._loop()
        if loop is not None and self._cause:
            loop.hinder(Reason.EMERGENCY_STOP, self._cause)

    def check(self) -> None:
        """Watches the heartbeat; called by a timer."""
        if self._heartbeat_missing() and not self._cause:
            self._stop(f"no heartbeat on estop/heartbeat for {self._heartbeat_s} s")

    def _heartbeat_missing(self) -> bool:
        return 0 < self._heartbeat_s < time.monotonic() - self._beat_s

    def _stop(self, cause: str) -> None:
        self._cause = cause
        self._state.publish(Bool(data=True))
        self._node.get_logger().error(f"emergency stop: {cause}")
        self.apply()

    def _on_button(self, message: Bool) -> None:
        self._pressed = message.data
        if self._pressed and not self._cause:
            self._stop("the topic estop says so")

    def _on_heartbeat(self, message: Empty) -> None:
        self._beat_s = time.monotonic()

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._cause:
            self._stop("the service policy/estop was called")
        response.success = True
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._pressed or self._heartbeat_missing():
            what = "the topic estop is still true" if self._pressed else "the heartbeat is missing"
            response.message = f"not reset: {what}"
            return response
        self._cause = ""
        self._state.publish(Bool(data=False))
        loop = self._loop()
        try:
            if loop is not None:
                loop.allow(Reason.EMERGENCY_STOP)
                if not loop.episode.active:
                    loop.release()
            response.success = True
        except UnfitInput as unfit:
            response.message = f"not released: {unfit.reason.value}: {unfit}"
        return response
