"""Arm or hand behind another ROS driver, told by parameters or a topic profile."""

import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from dexgrasp_deploy.drivers.base import (
    ArmDriver,
    DriverContext,
    HandDriver,
    Health,
    JointDriver,
    JointSample,
    Level,
)
from dexgrasp_deploy.drivers.joint_config import (
    FORWARD_COMMAND,
    JOINT_STATE,
    TRAJECTORY,
    CommandConfig,
    JointTopicsConfig,
)
from dexgrasp_deploy.drivers.joint_map import JointMap, JointStateError, check_plausible
from dexgrasp_deploy.drivers.registry import driver_config
from dexgrasp_deploy.nodes.conversions import from_stamp
from dexgrasp_deploy.nodes.drivers.peer import (
    Obstacle,
    await_peer,
    full_topic,
    interface,
    qos_profile,
    why_unconnected,
)
from dexgrasp_deploy.nodes.policy.publisher_watch import publisher_names
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.conversions import to_joint_state

_OWN_TOPICS = ("joint_states", "joint_command")
_COMMAND_TYPES = (FORWARD_COMMAND, JOINT_STATE, TRAJECTORY)


class _TopicJoints(JointDriver):
    """Joints on topics; parameters: JointTopicsConfig."""

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Waits for the first measurement and for somebody who takes commands.

        Raises:
            ConfigError: See `JointMap`, `interface` and `check_plausible`; or a topic is one of
                our own, another node commands the joints, or nothing arrives.
        """
        config = driver_config(JointTopicsConfig, self.kind, parameters, self.profile)
        if context.node is None:
            raise ConfigError(f"{self.kind}.driver needs a ROS node; use robot_driver_node")
        self._node: Node = context.node
        self._config, self._clock = config, context.clock
        self.joint_names = self.own_joints(context.robot)
        self._map = JointMap(config, self.joint_names, self.kind)
        self._newest: JointSample | None = None
        self._problem = ""
        self._others_joints: tuple[str, ...] = ()
        self._open()
        self._connect()
        assert self._newest is not None
        check_plausible(self._newest, context.robot, self.kind)
        self._targets = dict(zip(self._newest.names, self._newest.position.tolist(), strict=True))

    def read(self) -> JointSample:
        """The newest measurement; see `health` for messages that cannot be used."""
        assert self._newest is not None, "configure() comes first"
        return self._newest

    def write(self, positions: Mapping[str, float]) -> None:
        """Publishes targets for all joints."""
        self._targets |= {n: v for n, v in positions.items() if n in self._targets}
        self._publisher.publish(self._command(self._map.command(self._targets)))

    def health(self) -> Health:
        """An error while joint states are old or unusable, or another node commands the joints."""
        config, sample = self._config, self.read()
        others = self._other_commanders()
        if others:
            return Health(Level.ERROR, f"{others} commands {config.command.topic} too; stop it")
        age_s = self._clock() - sample.received_s
        if age_s <= config.timeout_s and not self._problem:
            return Health()
        return Health(
            Level.ERROR,
            self._problem or f"no joint states on {self._state_topic} for {age_s:.2g} s",
        )

    def deactivate(self) -> None:
        """Leaves the topics."""
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()

    def _open(self) -> None:
        node, state, command = self._node, self._config.state, self._config.command
        self._check_topics()
        self._state_topic = full_topic(node, state.topic)
        self._command_type = interface(command.type, f"{self.kind}.command.type")
        state_type = interface(state.type, f"{self.kind}.state.type")
        self._publisher = node.create_publisher(
            self._command_type, command.topic, qos_profile(command.qos)
        )
        self._entities: list[tuple[Any, Any]] = [(node.destroy_publisher, self._publisher)]
        if "/srv/" in state.type:
            self._check_answer(state_type)
            self._client = node.create_client(state_type, state.topic)
            self._request_type: Any = state_type.Request
            self._asked: Any = None
            timer = node.create_timer(1.0 / state.poll_hz, self._ask)
            self._entities += [(node.destroy_timer, timer), (node.destroy_client, self._client)]
        else:
            subscription = node.create_subscription(
                state_type, state.topic, self._on_state, qos_profile(state.qos)
            )
            self._entities.append((node.destroy_subscription, subscription))

    def _check_topics(self) -> None:
        node, state, command = self._node, self._config.state, self._config.command
        if not command.topic:
            raise ConfigError(
                f"{self.kind}.command.topic is empty; name the topic of the controller's targets, "
                "such as /forward_position_controller/commands"
            )
        if "/srv/" not in state.type and state.type != JOINT_STATE:
            raise ConfigError(f"{self.kind}.state.type = {state.type!r}: not {JOINT_STATE}")
        if command.type not in _COMMAND_TYPES:
            known = ", ".join(_COMMAND_TYPES)
            raise ConfigError(f"{self.kind}.command.type = {command.type!r}: not one of {known}")
        own = {full_topic(node, name) for name in _OWN_TOPICS}
        for key, topic in (("state", state.topic), ("command", command.topic)):
            if full_topic(node, topic) in own:
                raise ConfigError(
                    f"{self.kind}.{key}.topic = {topic!r}: dexgrasp publishes its robot "
                    "there; start dexgrasp in a namespace (namespace:=dexgrasp)"
                )

    def _check_answer(self, service: Any) -> None:
        """Refuses a service of another kind, whose answers would end the node."""
        fields = service.Response.get_fields_and_field_types()
        wrong = [
            name
            for name in ("position", "velocity", "effort")
            if not re.fullmatch(r"(sequence<)?(float|double)\b.*", fields.get(name, ""))
        ]
        if wrong:
            raise ConfigError(
                f"{self.kind}.state.type = {self._config.state.type!r}: its answer has no numbers "
                f"{', '.join(wrong)}; name a service that gives position, velocity and effort"
            )

    def _connect(self) -> None:
        """Waits for both ends.

        Raises:
            ConfigError: They are not there in time; the message says why.
        """
        reason = await_peer(self._node, self._obstacle, self._config.connect_timeout_s)
        if not reason and (others := self._other_commanders()):
            reason = f"{others} commands {self._config.command.topic} too; stop it"
        if reason:
            self.deactivate()
            raise ConfigError(f"{self.kind}: {reason}")

    def _obstacle(self) -> Obstacle | None:
        node, command = self._node, self._config.command
        if self._newest is None:
            return self._no_states()
        topic = full_topic(node, command.topic)
        found = why_unconnected(node, topic, command.type, qos_profile(command.qos), reads=False)
        return found and found._replace(reason=f"no commands on {topic}: {found.reason}")

    def _no_states(self) -> Obstacle:
        state = self._config.state
        if self._problem:
            return Obstacle(self._problem, lasting=True)
        where = f"no joint states on {self._state_topic}: "
        if self._others_joints:
            return Obstacle(where + f"the messages there have {', '.join(self._others_joints)}")
        if "/srv/" in state.type:
            return Obstacle(where + "the service does not answer; is the driver running?")
        qos = qos_profile(state.qos)
        found = why_unconnected(self._node, self._state_topic, state.type, qos, reads=True)
        found = found or Obstacle("its publisher is silent")
        return found._replace(reason=where + found.reason)

    def _other_commanders(self) -> str:
        names = publisher_names(self._node, self._config.command.topic)
        own = self._node.get_fully_qualified_name()
        if own in names:
            names.remove(own)
        return ", ".join(names)

    def _on_state(self, message: JointState) -> None:
        if not set(message.name) & set(self._map.joint_names) and message.name:
            self._others_joints = tuple(message.name)  # of another device on the same topic
            return
        now_s, stamp = self._clock(), message.header.stamp
        stamped = self._config.state.stamp == "header" and (stamp.sec or stamp.nanosec)
        stamp_s = from_stamp(self._node.get_clock(), stamp) if stamped else now_s
        self._take(tuple(message.name), message, stamp_s, now_s)

    def _ask(self) -> None:
        """Asks the service again when it has answered."""
        if self._asked is not None and not self._asked.done():
            return
        if self._client.service_is_ready():
            asked_s = self._clock()
            self._asked = self._client.call_async(self._request_type())
            self._asked.add_done_callback(lambda future: self._on_answer(future, asked_s))

    def _on_answer(self, future: Any, asked_s: float) -> None:
        if future.exception() is None and future.result() is not None:
            self._take(self._map.joint_names, future.result(), asked_s, self._clock())

    def _take(self, names: Sequence[str], values: Any, stamp_s: float, now_s: float) -> None:
        effort = values.effort if self._config.state.effort else ()
        try:
            self._newest = self._map.sample(
                names, values.position, values.velocity, effort, stamp_s, now_s, self._newest
            )
            self._problem = ""
        except JointStateError as error:
            self._problem = f"joint states on {self._state_topic}: {error}"

    def _command(self, targets: list[float]) -> Any:
        command = self._config.command
        if command.type == FORWARD_COMMAND:
            return Float64MultiArray(data=array("d", targets))
        stamp = self._node.get_clock().now().to_msg()
        if command.type == JOINT_STATE:
            return to_joint_state(self._map.joint_names, targets, [], stamp)
        return _trajectory(self._command_type, self._map.joint_names, targets, command)


class TopicArm(_TopicJoints, ArmDriver):
    """An arm on topics."""


class TopicHand(_TopicJoints, HandDriver):
    """A hand on topics."""


def _trajectory(
    message_type: Any, names: Sequence[str], targets: list[float], command: CommandConfig
) -> Any:
    """One point, to be reached from wherever the robot is; a stamp of 0 means now."""
    point = interface("trajectory_msgs/msg/JointTrajectoryPoint", "command.type")()
    point.positions = array("d", targets)
    point.time_from_start.sec = int(command.reach_s)
    point.time_from_start.nanosec = round((command.reach_s % 1.0) * 1e9)
    return message_type(joint_names=list(names), points=[point])
