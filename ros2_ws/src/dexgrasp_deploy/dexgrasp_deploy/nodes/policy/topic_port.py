"""The control loop's port on topics: newest measurements in, joint commands out."""

import time
from functools import partial

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.executors import Executor, ShutdownException, TimeoutException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState
from typing_extensions import override

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.port import RobotPort
from dexgrasp_deploy.control.sensing.echo import CommandEcho
from dexgrasp_deploy.control.sensing.image_message import (
    ImageError,
    from_camera_info,
    from_image,
)
from dexgrasp_deploy.control.sensing.streams import FreshnessConfig
from dexgrasp_deploy.control.telemetry.latency import Latencies, Stage
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics, JointSample
from dexgrasp_deploy.nodes.conversions import (
    from_joint_state,
    from_pose,
    from_stamp,
)
from dexgrasp_deploy.nodes.policy.polled_topics import PolledTopics
from dexgrasp_sim.nodes.conversions import to_joint_state
from dexgrasp_sim.nodes.qos import COMMAND, LATCHED, NEWEST, STREAMS

IMAGE_STREAMS = {"depth": ("depth",), "stereo_rgb": ("left", "right"), None: ()}
"""Streams of the camera by the group of observations that they make."""
_MAX_JOINT_STREAMS = 16
_STREAM_ENDS_S = 0.5
_DUE_CALLBACKS = 12
"""More than there are timers."""


class TopicPort(RobotPort):
    """A port on topics, read when measurements are wanted; the callbacks of the node, as those of
    services and timers, run in the thread that calls `wait_until`.

    A stream of joints is recognised by the names in its messages, so that arm and hand may come
    from one driver or from two.

    Attributes:
        latencies: Where delays of arriving images are counted; None: nowhere.
    """

    latencies: Latencies | None = None

    def __init__(self, node: Node, config: FreshnessConfig, commands: bool) -> None:
        """Args:
        node: The owner.
        config: Of the stereo pair and the echo of commands.
        commands: Whether commands may be sent; if not, there is not even a publisher for them.
        """
        self._node = node
        self._max_skew_s = config.max_pair_skew_s
        self._echo = CommandEcho(config.max_echo_s)
        self._executor: Executor | None = None
        self._joints: dict[tuple[str, ...], JointSample] = {}
        self._intrinsics: dict[str, Intrinsics] = {}
        self._newest: dict[str, CameraSample] = {}
        self._unreadable: dict[str, str] = {}
        self._pair: CameraSample | None = None
        self._group: str | None = None
        self._stamps: dict[str, Time] = {}
        self._place: NDArray[np.float64] | None = None
        self._pair_stamp: Time | None = None
        self._commands = (
            node.create_publisher(JointState, "joint_command", COMMAND) if commands else None
        )
        self._joint_topics, self._image_topics = PolledTopics(node), PolledTopics(node)
        self._joint_topics.subscribe(JointState, "joint_states", self._on_joints, STREAMS)
        self._joint_topics.subscribe(JointState, "joint_command_echo", self._on_echo, STREAMS)

    def attach(self, executor: Executor) -> None:
        """Sets the executor whose callbacks `wait_until` runs."""
        self._executor = executor

    def listen(self, image_group: str | None) -> None:
        """Subscribes to the camera streams of a policy's image group, once."""
        self._group, topics = image_group, self._image_topics
        listening = topics.names
        if image_group is not None and not listening:
            topics.subscribe(PoseStamped, "camera/pose", self._on_pose, LATCHED)
        for stream in IMAGE_STREAMS[image_group]:
            topic = self._node.resolve_topic_name(f"camera/{stream}/image_raw")
            if topic in listening:
                continue
            on_image = partial(self._on_image, stream=stream)
            on_info = partial(self._on_info, stream=stream)
            topics.subscribe(CameraInfo, f"camera/{stream}/camera_info", on_info, NEWEST)
            topics.subscribe(Image, topic, on_image, NEWEST)

    @override
    def receive(self) -> None:
        """Takes all messages of joints and images."""
        self._joint_topics.take()
        self._image_topics.take()

    @override
    def joints(self) -> list[JointSample]:
        """The newest sample of each stream.

        Raises:
            UnfitInput: The driver says that it obeys other commands than those sent.
        """
        if problem := self._echo.problem(time.monotonic()):
            raise UnfitInput(Reason.NOT_OBEYED, problem)
        return list(self._joints.values())

    def joint_streams(self) -> list[tuple[str, ...]]:
        """The joint names of each stream that has sent something lately."""
        self._joint_topics.take()
        since_s = time.monotonic() - _STREAM_ENDS_S
        return [names for names, each in self._joints.items() if each.received_s > since_s]

    @override
    def image(self) -> CameraSample | None:
        """The newest exposure, or pair of exposures.

        Raises:
            UnfitInput: The newest message of a stream cannot be read, or the pair is skewed.
        """
        streams = IMAGE_STREAMS[self._group]
        for stream in streams:
            if stream in self._unreadable:
                problem = f"camera/{stream}: {self._unreadable[stream]}"
                raise UnfitInput(Reason.BAD_CAMERA, problem)
        if len(streams) < 2:
            return self._newest.get("depth")
        return self._checked_pair()

    @property
    def image_stamp(self) -> Time | None:
        """The stamp of the message, or of the pair's left one, that `image` comes from."""
        return self._stamps.get("depth") if self._group == "depth" else self._pair_stamp

    @override
    def send(self, positions: dict[str, float]) -> None:
        """Raises RuntimeError where no commands may be sent."""
        if self._commands is None:
            raise RuntimeError("a command in shadow mode")
        self._echo.sent(positions, time.monotonic())
        stamp = self._node.get_clock().now().to_msg()
        self._commands.publish(to_joint_state([*positions], [*positions.values()], [], stamp))

    @override
    def wait_until(self, time_s: float) -> None:
        """Runs callbacks until `time_s`, and those that are due even if it has passed."""
        assert self._executor is not None, "attach() comes first"
        if time.monotonic() >= time_s:
            self._run_what_is_due()
        while (remaining_s := time_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=remaining_s)

    def _run_what_is_due(self) -> None:
        """A loop that is late still runs every callback."""
        assert self._executor is not None
        for _ in range(_DUE_CALLBACKS):
            try:
                run, _, _ = self._executor.wait_for_ready_callbacks(timeout_sec=0.0)
            except (TimeoutException, ShutdownException):
                return
            run()
            run.result()  # raises what the callback raised

    def _checked_pair(self) -> CameraSample | None:
        """The newest pair; it says so where both images arrive but are not of one time."""
        left, right = self._newest.get("left"), self._newest.get("right")
        if self._pair is None and left is not None and right is not None:
            skew_s = abs(left.stamp_s - right.stamp_s)
            raise UnfitInput(
                Reason.BAD_CAMERA,
                f"left and right image are {skew_s:.3f} s apart, allowed {self._max_skew_s} s; "
                "synchronise the cameras",
            )
        return self._pair

    def _on_joints(self, message: JointState, arrival_s: float) -> None:
        sample = from_joint_state(self._node.get_clock(), message, arrival_s)
        self._joints[tuple(sorted(sample.names))] = sample
        if len(self._joints) > _MAX_JOINT_STREAMS:
            self._joints.pop(next(iter(self._joints)))

    def _on_echo(self, message: JointState, arrival_s: float) -> None:
        stamp_s = from_stamp(self._node.get_clock(), message.header.stamp)
        self._echo.heard(dict(zip(message.name, message.position, strict=False)), stamp_s)

    def _on_info(self, message: CameraInfo, arrival_s: float, stream: str) -> None:
        self._intrinsics[stream] = from_camera_info(message)

    def _on_pose(self, message: PoseStamped, arrival_s: float) -> None:
        self._place = from_pose(message.pose)

    def _on_image(self, message: Image, arrival_s: float, stream: str) -> None:
        try:
            pixels = from_image(message)
        except ImageError as error:
            self._unreadable[stream] = str(error)
            return
        self._unreadable.pop(stream, None)
        stamp_s = from_stamp(self._node.get_clock(), message.header.stamp)
        intrinsics = self._intrinsics.get(stream)
        self._newest[stream] = CameraSample(pixels, stamp_s, intrinsics, arrival_s, self._place)
        self._stamps[stream] = message.header.stamp
        if stream != "depth":
            self._join()

    def _join(self) -> None:
        left, right = self._newest.get("left"), self._newest.get("right")
        if left is None or right is None:
            return
        if abs(left.stamp_s - right.stamp_s) >= self._max_skew_s:
            return
        if left.image.shape != right.image.shape or left.image.ndim != 3:
            sizes = f"{list(left.image.shape)} and {list(right.image.shape)}"
            self._unreadable["right"] = f"left and right image are {sizes}, not two of one size"
            return
        if self.latencies is not None:
            self.latencies.add(Stage.PAIRING, abs(left.received_s - right.received_s))
        self._pair_stamp = self._stamps["left"]
        self._pair = CameraSample(
            np.stack((left.image, right.image)),
            min(left.stamp_s, right.stamp_s),
            left.intrinsics,
            min(left.received_s, right.received_s),
            left.pose,
        )
