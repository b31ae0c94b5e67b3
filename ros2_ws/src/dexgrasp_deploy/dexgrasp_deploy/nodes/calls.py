"""Waiting for answers in a script-like node; every wait has a time-out and a clear error."""

import time
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

_SPIN_S = 0.05
_CALL_TIMEOUT_S = 10.0


class Caller:
    """Waits for conditions and answers while it spins the executor."""

    def __init__(self, node: Node, executor: Executor) -> None:
        self._node = node
        self._executor = executor

    def until(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Waits until `done()`; `what` names the condition in the error.

        Raises:
            SystemExit: It did not become true in time; logged.
        """
        if not self.wait(done, timeout_s):
            self.fail(f"waited {timeout_s:.0f} s for {what}")

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until `done()`; returns whether it became true in time."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline_s:
                return False
            self._executor.spin_once(timeout_sec=_SPIN_S)
        return True

    def result(self, future: Future, timeout_s: float = _CALL_TIMEOUT_S) -> Any:
        """The result of a future; errors as for `until`."""
        self.until(future.done, timeout_s, "an answer")
        return future.result()

    def trigger(self, client: Client) -> str:
        """Calls a Trigger service and returns its message; a refusal raises like `until`."""
        response = self.result(client.call_async(Trigger.Request()))
        if not response.success:
            self.fail(f"{client.srv_name}: {response.message}")
        return response.message

    def pause(self, duration_s: float) -> None:
        """Runs callbacks for this long."""
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=_SPIN_S)

    def fail(self, message: str) -> None:
        """Logs and ends the node.

        Raises:
            SystemExit: Always.
        """
        self._node.get_logger().error(message)
        raise SystemExit(1)
