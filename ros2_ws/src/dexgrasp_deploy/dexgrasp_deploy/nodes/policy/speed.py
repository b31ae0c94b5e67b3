"""The speed of the robot while it runs: slower at once, faster only after a confirmation."""

import time
from collections.abc import Callable

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_sim.config import ConfigError

_NAME = "speed_scale"
_CONFIRMED_S = 10.0


class SpeedScale:
    """Parameter `speed_scale`, above 0 and at most 1: share of the allowed speed.

    It may be set to a lower value at any time. A higher one is refused unless the service
    `policy/confirm_faster` was called in the last ten seconds; one call allows one change. All
    other parameters are read at the start: a later change is refused, it would have no effect.
    """

    def __init__(self, node: Node, loop: Callable[[], ControlLoop | None], scale: float) -> None:
        """Args:
        node: Owner.
        loop: Returns the control loop; None while no bundle is loaded.
        scale: Value at the beginning.

        Raises:
            ConfigError: The value is not allowed.
        """
        if not 0 < scale <= 1:
            raise ConfigError(f"{_NAME} = {scale}: must be above 0 and at most 1")
        self._node, self._loop, self._scale = node, loop, scale
        self._confirmed_s = -_CONFIRMED_S
        node.add_on_set_parameters_callback(self._on_set)
        node.create_service(Trigger, "policy/confirm_faster", self._on_confirm)

    def apply(self) -> None:
        """Sets the speed of a control loop that was loaded since."""
        loop = self._loop()
        if loop is not None:
            loop.speed_scale = self._scale

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == _NAME:
                refusal = self._set(parameter.value)
            elif self._node.has_parameter(parameter.name):
                refusal = f"{parameter.name} is read when the node starts; restart it"
            else:
                continue  # it is being declared
            if refusal:
                return SetParametersResult(successful=False, reason=refusal)
        return SetParametersResult(successful=True)

    def _set(self, value: object) -> str:
        """Sets the speed, or says why not."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            return f"{_NAME} = {value!r}: must be above 0 and at most 1"
        if value > self._scale:
            if time.monotonic() - self._confirmed_s > _CONFIRMED_S:
                return (
                    f"{_NAME} {self._scale} to {value} is faster: call policy/confirm_faster first"
                )
            self._confirmed_s = -_CONFIRMED_S
        self._scale = float(value)
        self.apply()
        return ""

    def _on_confirm(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._confirmed_s = time.monotonic()
        response.success = True
        response.message = f"one change to a higher {_NAME} is allowed within {_CONFIRMED_S:g} s"
        return response
