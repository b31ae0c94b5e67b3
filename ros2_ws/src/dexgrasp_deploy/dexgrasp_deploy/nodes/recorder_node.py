"""Records a deployment in a process of its own: it may fail, or the disk be full, and the control
loop does not notice.
"""

import sys
import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from std_srvs.srv import Trigger

from dexgrasp_deploy.nodes.parameters import Parameters
from dexgrasp_deploy.nodes.recorder.about import About
from dexgrasp_deploy.nodes.recorder.subscriptions import Subscriptions, definition_of
from dexgrasp_deploy.recording.bag_thread import Message
from dexgrasp_deploy.recording.message_types import STRING, MessageTypes
from dexgrasp_deploy.recording.recorder import Recorder, RecorderConfig
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.node_main import run_node

_TOPICS = (
    *("joint_states", "joint_command", "policy/*", "camera/*", "sim/*", "estop*"),
    *("robot_description", "/diagnostics", "/parameter_events", "/rosout", "/tf", "/tf_static"),
)
_NODES = ("policy_node", "robot_driver_node", "camera_node")
_CHECK_PERIOD_S = 0.2
_LOOK_PERIOD_S = 0.5
_HEALTH_PERIOD_S = 1.0
_STATUS_TIMEOUT_S = 2.0
_CLOSE_S = 3.0


class RecorderNode(Node):
    """Writes recordings, and a black box after a fault or when the policy falls silent.

    Services: `recorder/start`, `recorder/stop`, `recorder/save` (a black box now). Parameters:
    those of RecorderConfig.
    """

    def __init__(self) -> None:
        super().__init__("recorder_node", automatically_declare_parameters_from_overrides=True)
        parameters = Parameters(self)
        config = parameters.config(RecorderConfig)
        parameters.reject_unknown()
        self._types = MessageTypes(definition_of)
        self._recorder = Recorder(config, self._types, time.monotonic, self._log, self._warn)
        self._about = About(self, _NODES, config.calibration)
        self._own = self.resolve_topic_name("recording/about")
        self._policy = self.resolve_topic_name("policy/status")
        extra = [name.strip() for name in config.extra_topics.split(",") if name.strip()]
        self._streams = Subscriptions(self, (*_TOPICS, *extra), self._types, self._take)
        self._faulty = False
        self._heard_s: float | None = None
        self._health = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        for name, action in (
            ("start", lambda: f"recording to {self._recorder.start()}"),
            ("stop", self._stop),
            ("save", self._save),
        ):
            self._serve(f"recorder/{name}", action)
        self.create_timer(_CHECK_PERIOD_S, self._check)
        self.create_timer(_LOOK_PERIOD_S, self._look)
        self.create_timer(_HEALTH_PERIOD_S, self._publish_health)
        self._look()
        if config.record:
            self._recorder.start()

    def _serve(self, name: str, action: Callable[[], str]) -> None:
        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            response.success, response.message = True, action()
            return response

        self.create_service(Trigger, name, answer)

    def _log(self, text: str) -> None:
        if self.context.ok():
            self.get_logger().info(text)
        else:  # at the end of the process the logger can no longer publish
            print(text, file=sys.stderr)

    def _warn(self, text: str) -> None:
        if self.context.ok():
            self.get_logger().error(text)
        else:
            print(text, file=sys.stderr)

    def _stop(self) -> str:
        self._recorder.stop()
        return "stopped"

    def _save(self) -> str:
        self._recorder.fault("saved by hand")
        return "a black box is being written"

    def _take(self, message: Message, lasting: bool) -> None:
        self._recorder.take(message, lasting)
        if message.topic == self._policy:
            self._judge(deserialize_message(message.data, PolicyStatus))

    def _judge(self, status: PolicyStatus) -> None:
        self._heard_s = time.monotonic()
        if status.bundle_id != self._about.bundle_id:
            self._about.bundle_id, self._about.changed = status.bundle_id, True
        faulty = status.state == PolicyStatus.FAULT
        if faulty and not self._faulty:
            self._recorder.fault(status.message)
        self._faulty = faulty

    def _look(self) -> None:
        self._streams.update()
        self._about.ask()
        if self._about.changed:
            data = self._types.serialize_text(self._about.text())
            self._recorder.take(Message(self._own, STRING, time.time_ns(), data), lasting=True)

    def _check(self) -> None:
        if self._heard_s is not None and time.monotonic() - self._heard_s > _STATUS_TIMEOUT_S:
            self._heard_s = None
            self._recorder.fault("the policy node is silent")
        self._recorder.check()

    def _publish_health(self) -> None:
        text = "recording" if self._recorder.recording else "not recording"
        text, level = f"{text}, {len(self._streams.topics)} topics", DiagnosticStatus.OK
        if self._recorder.problem:
            text, level = f"{text}: {self._recorder.problem}", DiagnosticStatus.ERROR
        status = DiagnosticStatus(level=level, message=text)
        status.name = f"{self.get_name()}: recorder"
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._health.publish(message)

    def destroy_node(self) -> None:
        """Completes the files first."""
        self._recorder.close(_CLOSE_S)
        super().destroy_node()


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    return run_node(RecorderNode, args)


if __name__ == "__main__":
    sys.exit(main())
