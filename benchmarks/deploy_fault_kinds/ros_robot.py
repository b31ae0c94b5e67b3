"""A robot with a camera on topics that can fail, and the client of the policy node."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Empty
from std_srvs.srv import Trigger

from benchmarks.deploy_fault_kinds.case import CommandCount
from dexgrasp_deploy.control.sensing.scene_check import table_depth
from dexgrasp_deploy.drivers.base import Intrinsics
from dexgrasp_deploy.nodes.conversions import to_camera_info
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_msgs.action import Grasp
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.conversions import to_image, to_joint_state, to_stamp
from dexgrasp_sim.nodes.qos import COMMAND, LATCHED, NEWEST

_PERIOD_S = 1 / 60
_WAIT_S = 40.0
_START_S = 180.0
"""For imports, and for the camera, which compiles its kernels."""
_NOISE_RAD = 1e-7


class Client:
    """Sends goals, counts commands and hears the status.

    Attributes:
        node: The ROS node.
        count: The commands on `joint_command`.
        health: What devices say on `/diagnostics`, by name.
    """

    def __init__(self, manifest: BundleManifest, name: str) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(name, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.count = CommandCount(manifest.task.load_robot())
        self.status: PolicyStatus | None = None
        self.node.create_subscription(JointState, "joint_command", self.on_command, COMMAND)
        self.node.create_subscription(PolicyStatus, "policy/status", self._on_status, NEWEST)
        self.health: dict[str, str] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, 10)
        self.button = self.node.create_publisher(Bool, "estop", LATCHED)
        self.heartbeat = self.node.create_publisher(Empty, "estop/heartbeat", COMMAND)
        self.grasp = ActionClient(self.node, Grasp, "grasp")
        names = ("release", "estop", "reset", "home")
        self.services = {n: self.node.create_client(Trigger, f"policy/{n}") for n in names}

    def on_command(self, message: JointState) -> None:
        """Counts a command."""
        self.count.add(dict(zip(message.name, message.position, strict=False)))

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _on_health(self, message: DiagnosticArray) -> None:
        self.health |= {status.name: status.message for status in message.status}

    def until(self, condition: Callable[[], Any], limit_s: float = _WAIT_S) -> bool:
        """Runs callbacks until a condition; whether it came true in time."""
        end_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end_s:
                return False
            self.executor.spin_once(timeout_sec=0.02)
        return True

    def trigger(self, name: str) -> bool:
        """Calls a service of the policy node; whether it was granted."""
        client = self.services[name]
        if not self.until(client.service_is_ready):
            return False
        future = client.call_async(Trigger.Request())
        self.until(future.done)
        answer = future.result()
        return answer is not None and answer.success

    def settle(self) -> bool:
        """Resets what a case before has left; whether the policy is idle then."""

        def idle() -> bool:
            self.trigger("reset")
            self.trigger("release")
            self.status = None
            self.until(lambda: self.status is not None)
            status = self.status
            return status is not None and status.state == PolicyStatus.IDLE

        loaded = self.until(lambda: self.status and self.status.bundle_id, _START_S)
        settled = loaded and self.until(idle)
        self.count.forget()
        return settled

    def begin(self, timeout_s: float) -> "Running | None":
        """Sends a goal until the robot moves; None if it does not."""
        self.until(self.grasp.server_is_ready)
        end_s = time.monotonic() + _START_S
        while time.monotonic() < end_s:
            future = self.grasp.send_goal_async(Grasp.Goal(timeout_s=timeout_s))
            if not self.until(future.done):
                return None
            running = Running(self, future.result())
            before = self.count.commands
            self.until(lambda: running.over or self.count.commands > before + 8)  # noqa: B023
            if not running.over:
                return running
            self.trigger("reset")
            self.trigger("release")
        return None

    def close(self) -> None:
        """Ends the node."""
        self.executor.shutdown(timeout_sec=2.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


class Running:
    """A goal that was accepted."""

    def __init__(self, client: Client, handle: Any) -> None:
        self._client, self.handle = client, handle
        self._future = handle.get_result_async()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._future.done()

    def result(self, limit_s: float) -> Grasp.Result | None:
        """The result; None if it does not end in time."""
        ended = self._client.until(lambda: self.over, limit_s)
        return self._future.result().result if ended else None


class Robot(Client):
    """An obedient robot and its camera, until a fault is put in by its attributes."""

    def __init__(self, manifest: BundleManifest) -> None:
        super().__init__(manifest, "robot")
        robot = manifest.robot
        self.start = dict(zip(robot.joint_names, robot.start_position_rad, strict=True))
        camera = manifest.task.camera
        self._table = (1000 * table_depth(camera, manifest.task.table)).astype(np.uint16)
        self._lens = Intrinsics.centered(camera.width, camera.height, camera.focal_px)
        self._number = 0
        self.heal()
        self._states = self.node.create_publisher(JointState, "joint_states", COMMAND)
        self._images = self.node.create_publisher(Image, "camera/depth/image_raw", NEWEST)
        self._infos = self.node.create_publisher(CameraInfo, "camera/depth/camera_info", NEWEST)
        self._echo = self.node.create_publisher(JointState, "joint_command_echo", COMMAND)
        self.node.create_timer(_PERIOD_S, self._publish)

    def heal(self) -> None:
        """Is as it should be, at the start posture."""
        self.position = dict(self.start)
        self.measures = self.sees = self.beats = True
        self.on_state: Callable[[JointState], None] = lambda _: None
        self.on_image: Callable[[Image], None] = lambda _: None
        self.ahead_s = 0.0
        self.echo: float | None = None
        self.stranger: Node | None = None

    def on_command(self, message: JointState) -> None:
        """Obeys."""
        super().on_command(message)
        self.position |= dict(zip(message.name, message.position, strict=False))

    def _publish(self) -> None:
        self._number += 1
        stamp = to_stamp(self.node.get_clock(), time.monotonic() + self.ahead_s)
        if self.beats:
            self.heartbeat.publish(Empty())
        if self.measures:
            values = [each + self._number * _NOISE_RAD for each in self.position.values()]
            message = to_joint_state([*self.position], values, [0.0] * len(values), stamp)
            self.on_state(message)
            self._states.publish(message)
        if self.echo is not None:
            name = next(iter(self.start))
            self._echo.publish(to_joint_state([name], [self.echo], [], stamp))
        if self.sees and self._number % 2:
            self._show(stamp)

    def _show(self, stamp: Any) -> None:
        depth = self._table.copy()
        column = self._number // 2 % depth.shape[1]
        depth[:, column] = 0.9 * depth[:, column]
        image = to_image(depth, "camera", stamp)
        self.on_image(image)
        self._infos.publish(to_camera_info(to_image(depth, "camera", stamp), self._lens))
        self._images.publish(image)
