"""A robot's topics as a viewer reads them: the newest message of each."""

import contextlib
import os
import time
from functools import partial
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, JointState, PointCloud2
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.display.frames import pose_matrix
from dexgrasp_sim.nodes.qos import LATCHED, NEWEST, STREAMS
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.model import RobotModel, UrdfError
from dexgrasp_sim.robot.urdf import movable_joints, parse_urdf

_FRAMES = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_SILENT_S = 2.0
_RATE_S = 1.0


class RobotGraph:
    """A node that reads a robot's topics and can stop it; a context manager.

    Attributes:
        domain: The ROS domain.
        robot: Of `robot_description`; None before it has come.
        measured: rad by joint name.
        commanded: rad by joint name; {} where nobody commands.
        status: Of the policy; None without one.
        is_stopped: Whether the emergency stop is latched.
        picture: The newest of `display/image`.
        points: The newest of `display/points`.
        health: What devices say that is not well, by name.
        joint_hz: How often joints are measured.
    """

    def __init__(self, domain: int, namespace: str = "") -> None:
        """Joins a ROS domain; `namespace` is that of the robot's nodes."""
        self.domain = domain
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node(
            f"robot_view_{os.getpid()}", context=self._context, namespace=namespace
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.robot: RobotModel | None = None
        self._described, self._kinematics = "", dict[str, Kinematics]()
        self.measured: dict[str, float] = {}
        self.commanded: dict[str, float] = {}
        self.status: PolicyStatus | None = None
        self.is_stopped = False
        self.picture: Image | None = None
        self.points: PointCloud2 | None = None
        self.health: dict[str, str] = {}
        self.joint_hz = 0.0
        self._markers: dict[tuple[str, int], tuple[Marker, float]] = {}
        self._fixed: dict[str, tuple[str, NDArray[np.float64]]] = {}
        self._measured_s = self._commanded_s = self._status_s = -np.inf
        self._counted = (time.monotonic(), 0)
        self._stop = self.node.create_client(Trigger, "policy/estop")
        self._subscribe()

    def __enter__(self) -> "RobotGraph":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def spin(self, duration_s: float) -> None:
        """Reads for this long what arrives."""
        end_s = time.monotonic() + duration_s
        while (remaining_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=remaining_s)
        self._forget_what_is_old()

    @property
    def is_alive(self) -> bool:
        """Whether a robot is there, and its joints are measured."""
        return self.robot is not None and time.monotonic() - self._measured_s < _SILENT_S

    @property
    def missing(self) -> str:
        """What a viewer still waits for; "" for nothing."""
        found = {"robot_description": self.robot is not None, "joint_states": bool(self.measured)}
        return " and ".join(name for name, is_there in found.items() if not is_there)

    @property
    def markers(self) -> dict[tuple[str, int], Marker]:
        """The markers to show, by namespace and number."""
        return {key: marker for key, (marker, _) in self._markers.items()}

    @property
    def can_stop(self) -> bool:
        """Whether the robot has an emergency stop to call."""
        return self._stop.service_is_ready()

    def stop(self) -> None:
        """Calls the emergency stop; does not wait for the answer."""
        self._stop.call_async(Trigger.Request())

    def pose_of(self, frame: str) -> NDArray[np.float64] | None:
        """[4, 4]: a link, or a frame fixed to one, in the base; None if it is not known."""
        robot = self.robot
        if robot is None:
            return None
        if frame in robot.links:
            if frame not in self._kinematics:
                self._kinematics[frame] = Kinematics(robot, [frame])
            poses = self._kinematics[frame].forward(self.position(self.measured)[None])
            matrix = np.eye(4)
            matrix[:3, :3], matrix[:3, 3] = poses.rotation[0, 0], poses.position[0, 0]
            return matrix
        if frame not in self._fixed:
            return None
        parent, matrix = self._fixed[frame]
        above = self.pose_of(parent)
        return None if above is None else above @ matrix

    @property
    def cameras(self) -> list[str]:
        """The optical frames of cameras."""
        return [frame for frame in self._fixed if frame.endswith("_optical_frame")]

    def position(self, values: dict[str, float]) -> torch.Tensor:
        """[J] rad of values by joint name, 0 for joints without one."""
        assert self.robot is not None
        return torch.tensor([values.get(name, 0.0) for name in self.robot.joint_names])

    def close(self) -> None:
        """Leaves the domain; idempotent."""
        with contextlib.suppress(rclpy_implementation.RCLError, KeyError):
            self._executor.shutdown(timeout_sec=2.0)
            self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _subscribe(self) -> None:
        def listen(kind: type, topic: str, take: Any, qos: QoSProfile) -> None:
            self.node.create_subscription(kind, topic, take, qos)

        def keep(name: str, message: Any) -> None:
            setattr(self, name, message)

        listen(String, "robot_description", self._on_description, LATCHED)
        listen(JointState, "joint_states", self._on_joints, STREAMS)
        for topic in ("joint_command", "policy/safe"):  # the other one in shadow mode
            listen(JointState, topic, self._on_command, NEWEST)
        listen(PolicyStatus, "policy/status", self._on_status, NEWEST)
        listen(Bool, "policy/estopped", self._on_stopped, LATCHED)
        listen(DiagnosticArray, "/diagnostics", self._on_health, STREAMS)
        listen(MarkerArray, "markers", self._on_markers, STREAMS)
        listen(TFMessage, "/tf_static", self._on_frames, _FRAMES)
        listen(Image, "display/image", partial(keep, "picture"), NEWEST)
        listen(PointCloud2, "display/points", partial(keep, "points"), NEWEST)

    def _on_description(self, message: String) -> None:
        try:
            if message.data != self._described:
                self.robot = parse_urdf(message.data, movable_joints(message.data))
                self._described, self._kinematics = message.data, {}
        except UrdfError as error:
            self.node.get_logger().error(f"robot_description: {error}")

    def _on_joints(self, message: JointState) -> None:
        now_s = time.monotonic()
        self.measured.update(zip(message.name, message.position))
        self._measured_s = now_s
        since_s, count = self._counted
        self._counted = since_s, count + 1
        if now_s - since_s > _RATE_S:
            self.joint_hz = (count + 1) / (now_s - since_s)
            self._counted = now_s, 0

    def _on_command(self, message: JointState) -> None:
        self.commanded.update(zip(message.name, message.position))
        self._commanded_s = time.monotonic()

    def _on_status(self, message: PolicyStatus) -> None:
        self.status, self._status_s = message, time.monotonic()

    def _on_stopped(self, message: Bool) -> None:
        self.is_stopped = message.data

    def _on_health(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level == DiagnosticStatus.OK:
                self.health.pop(status.name, None)
            else:
                self.health[status.name] = status.message

    def _on_markers(self, message: MarkerArray) -> None:
        now_s = time.monotonic()
        for marker in message.markers:
            key = marker.ns, marker.id
            if marker.action == Marker.ADD:
                self._markers[key] = marker, now_s
            elif marker.action == Marker.DELETE:
                self._markers.pop(key, None)
            else:
                self._markers.clear()

    def _on_frames(self, message: TFMessage) -> None:
        for each in message.transforms:
            self._fixed[each.child_frame_id] = each.header.frame_id, pose_matrix(each)

    def _forget_what_is_old(self) -> None:
        """Removes markers whose life is over, and what a node that has ended once said."""
        now_s = time.monotonic()
        for key, (marker, since_s) in [*self._markers.items()]:
            life_s = marker.lifetime.sec + 1e-9 * marker.lifetime.nanosec
            if 0 < life_s < now_s - since_s:
                del self._markers[key]
        if now_s - self._commanded_s > _SILENT_S:
            self.commanded.clear()
        if now_s - self._status_s > _SILENT_S:
            self.status = None
