"""Publishes what every step of the policy saw and did, for recorders and viewers."""

from array import array
from collections.abc import Sequence

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState, TimeReference

from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.port import Progress
from dexgrasp_deploy.control.telemetry.steps import Step, StepListener, Vector
from dexgrasp_deploy.nodes.policy.status import policy_status
from dexgrasp_deploy.nodes.policy.topic_port import TopicPort
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.conversions import to_joint_state, to_stamp

_STEPS = QoSProfile(depth=64, reliability=ReliabilityPolicy.RELIABLE)
"""A recorder should miss none; the publisher does not wait for it."""


class StepTopics(StepListener):
    """All messages of a step have the stamp of its beginning.

    `policy/step`: the status, with action, prediction and number; `policy/measured`: the joints
    that it saw; `policy/decoded`: the joint targets of its action; `policy/safe`: what the safety
    filter made of them, which is `joint_command` unless in shadow; `policy/image_time`: the stamp
    of the image that it saw, of a pair that of the left one; `policy/start`, once before the first
    step: the joint targets from which its decoder starts.

    Nothing is made while nobody subscribes to `policy/step`.
    """

    def __init__(
        self, node: Node, port: TopicPort, loop: ControlLoop, joint_names: Sequence[str]
    ) -> None:
        """Args:
        node: The owner.
        port: Where the images come from.
        loop: The loop that calls this listener.
        joint_names: J names, in the order of its vectors.
        """
        self._node, self._port, self._loop = node, port, loop
        self._names = list(joint_names)
        self._steps = node.create_publisher(PolicyStatus, "policy/step", _STEPS)
        self._image_times = node.create_publisher(TimeReference, "policy/image_time", _STEPS)
        self._joints = {
            name: node.create_publisher(JointState, f"policy/{name}", _STEPS)
            for name in ("start", "measured", "decoded", "safe")
        }

    def begun(self, start: Vector) -> None:
        """Publishes `policy/start`."""
        self._publish("start", start, self._node.get_clock().now().to_msg())

    def stepped(self, step: Step, progress: Progress) -> None:
        """Publishes the other topics."""
        if not self._steps.get_subscription_count():
            return
        stamp = to_stamp(self._node.get_clock(), step.now_s)
        measured = step.measured
        position, velocity = measured.position.tolist(), measured.velocity.tolist()
        message = to_joint_state(self._names, position, velocity, stamp)
        message.effort = array("d", measured.effort)
        self._joints["measured"].publish(message)
        self._publish("decoded", step.decoded, stamp)
        self._publish("safe", step.safe, stamp)
        image_stamp = self._port.image_stamp
        if step.sample is not None and image_stamp is not None:
            reference = TimeReference(time_ref=image_stamp, source="camera")
            reference.header.stamp = stamp
            self._image_times.publish(reference)
        self._steps.publish(policy_status(self._loop, stamp))

    def destroy(self) -> None:
        """Ends the topics."""
        for publisher in (self._steps, self._image_times, *self._joints.values()):
            self._node.destroy_publisher(publisher)

    def _publish(self, name: str, position: Vector, stamp: Time) -> None:
        self._joints[name].publish(to_joint_state(self._names, position.tolist(), (), stamp))
