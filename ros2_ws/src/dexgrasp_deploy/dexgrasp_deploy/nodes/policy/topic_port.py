"""The control loop's port on topics: newest measurements in, joint commands out."""

import time
from functools import partial

import numpy as np
from rclpy.executors import Executor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState
from typing_extensions import override

from dexgrasp_deploy.control.control_loop import RobotPort
from dexgrasp_deploy.drivers.base import CameraSample, JointSample
from dexgrasp_deploy.nodes.conversions import from_image, from_joint_state, from_stamp
from dexgrasp_deploy.nodes.parameters import COMMAND, NEWEST
from dexgrasp_sim.nodes.conversions import to_joint_state

MAX_PAIR_SKEW_S = 0.005
"""Left and right image belong together if their stamps differ by less than this: an eighth of the
period of a 25 Hz camera."""


class TopicPort(RobotPort):
    """A port on topics; all callbacks run in the thread that calls `wait_until`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._executor: Executor | None = None
        self._joints: JointSample | None = None
        self._image: CameraSample | None = None
        self._side: dict[str, CameraSample] = {}
        self._focal_px: float | None = None
        self._commands = node.create_publisher(JointState, "joint_command", COMMAND)
        node.create_subscription(JointState, "joint_states", self._on_joints, NEWEST)

    def attach(self, executor: Executor) -> None:
        """Sets the executor whose callbacks `wait_until` runs."""
        self._executor = executor

    def listen(self, image_group: str | None) -> None:
        """Subscribes to the camera streams of a policy's image group, once."""
        streams = {"depth": ("depth",), "stereo_rgb": ("left", "right"), None: ()}[image_group]
        listening = {subscription.topic_name for subscription in self._node.subscriptions}
        for stream in streams:
            topic = self._node.resolve_topic_name(f"camera/{stream}/image_raw")
            if topic in listening:
                continue
            self._node.create_subscription(
                Image, topic, partial(self._on_image, side=stream), NEWEST
            )
            self._node.create_subscription(
                CameraInfo, f"camera/{stream}/camera_info", self._on_info, NEWEST
            )

    @override
    def joints(self) -> JointSample | None:
        return self._joints

    @override
    def image(self) -> CameraSample | None:
        return self._image

    @override
    def send(self, positions: dict[str, float]) -> None:
        stamp = self._node.get_clock().now().to_msg()
        self._commands.publish(to_joint_state([*positions], [*positions.values()], [], stamp))

    @override
    def wait_until(self, time_s: float) -> None:
        """Runs callbacks until `time_s`, and those that are due even if it has passed."""
        assert self._executor is not None, "attach() comes first"
        while True:
            remaining_s = time_s - time.monotonic()
            self._executor.spin_once(timeout_sec=max(0.0, remaining_s))
            if time.monotonic() >= time_s:
                return

    def _on_joints(self, message: JointState) -> None:
        self._joints = from_joint_state(self._node.get_clock(), message) or self._joints

    def _on_info(self, message: CameraInfo) -> None:
        self._focal_px = message.k[0] if message.k[0] > 0 else None

    def _on_image(self, message: Image, side: str) -> None:
        pixels = from_image(message)
        if pixels is None:
            self._node.get_logger().error(
                f"camera/{side}: encoding {message.encoding!r} or a short message; 16UC1 and rgb8 "
                "are understood",
                throttle_duration_sec=5.0,
            )
            return
        stamp_s = from_stamp(self._node.get_clock(), message.header.stamp)
        sample = CameraSample(pixels, stamp_s, self._focal_px)
        if side == "depth":
            self._image = sample
            return
        self._side[side] = sample
        left, right = self._side.get("left"), self._side.get("right")
        if left and right and abs(left.stamp_s - right.stamp_s) < MAX_PAIR_SKEW_S:
            pair = np.stack((left.image, right.image))
            self._image = CameraSample(pair, min(left.stamp_s, right.stamp_s), self._focal_px)
