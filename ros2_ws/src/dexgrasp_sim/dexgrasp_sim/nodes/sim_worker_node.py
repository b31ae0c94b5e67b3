"""The ROS node of one simulator worker: publishes its status and the watched environment.

The worker itself is another process without ROS. This node reads what the worker writes into the
run's shared memory and ends when the run ends.

==============================  ============================  =====================================
topic                           type                          what
==============================  ============================  =====================================
``~/status``                    dexgrasp_msgs/SimWorkerStatus 1 Hz
``joint_states``                sensor_msgs/JointState        all 23 joints
``markers``                     visualization_msgs/           namespaces ``table``, ``object``,
                                MarkerArray                   ``goal``, ``workspace``, ``status``
                                                              and ``joint_limits``; frame ``base``
``camera/depth/image_raw``      sensor_msgs/Image             16UC1, mm, 0: none; best effort
``camera/depth/camera_info``    sensor_msgs/CameraInfo        best effort
``display/image``               sensor_msgs/Image             rgb8: what the policy sees, with goal
                                                              and object; best effort
``display/points``              sensor_msgs/PointCloud2       of the depth image; best effort
``robot_description``           std_msgs/String               the URDF; once, transient local
``/tf``, ``/tf_static``         tf2_msgs/TFMessage            links, the same commanded under
                                                              ``commanded/``, and cameras
==============================  ============================  =====================================

One environment of the run is watched at a time. All topics except the status show it. The node of
its worker publishes them, at most `scene_rate_hz` times per second and only when there is a new
view. Setting `env_index` on any worker's node changes the watched environment of the whole run.
"""

import json
import sys
import time
from typing import Any

import torch
from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter

from dexgrasp_msgs.msg import SimWorkerStatus
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.nodes.display.scene_topics import SceneTopics
from dexgrasp_sim.nodes.node_main import run_node
from dexgrasp_sim.nodes.worker_report import WorkerReporter
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import image_groups
from dexgrasp_sim.transport.shared_memory import Segment, remove_if_dead, run_folder
from dexgrasp_sim.transport.telemetry import RunObserver, WorkerState

_LAST_WORD_TIMEOUT = Duration(seconds=2)
_STATUS_PERIOD_S = 1.0
_FAILED_EXIT = 1
_LEAVE = -1


class SimWorkerNode(Node):
    """Publishes the topics in the module's docstring.

    Parameters:
        run_id: Id of the run.
        worker: Index of the worker, from 0.
        env_index: Environment of the run to watch; -1: does not change it.
        task: The run's task config as JSON, for colours and sizes; "": the defaults.
        wait_s: How long to wait for the run to exist.
        scene_rate_hz: Largest rate of the topics of the watched environment.
    """

    def __init__(self) -> None:
        super().__init__("sim_worker_node")
        self._run_id: str = self._parameter("run_id", "")
        self._worker: int = self._parameter("worker", 0)
        task = json.loads(self._parameter("task", "") or "{}")
        self._scene = SceneTopics(self, parse_config(GraspConfig, task, source="parameter task"))
        self._scene_rate_hz: float = self._parameter("scene_rate_hz", 10.0)
        self._wait_until_s = time.monotonic() + self._parameter("wait_s", 120.0)
        self._env_index: int = self._parameter("env_index", _LEAVE)
        self._status = self.create_publisher(SimWorkerStatus, "~/status", 1)
        self._tensors = run_folder(self._run_id) / "tensors"
        self._shown_s = 0.0
        self._wait_timer = self.create_timer(0.1, self._attach_when_there)

    def _attach_when_there(self) -> None:
        # checks first: a failed attach would try the locks of all runs
        if not self._tensors.exists() and time.monotonic() < self._wait_until_s:
            return
        segment = Segment.attach(self._run_id)
        self._observer = RunObserver(self._run_id)
        layout = self._observer.layout
        if not 0 <= self._worker < layout.num_workers:
            raise ConfigError(
                f"parameter worker = {self._worker}: the run has 0 to {layout.num_workers - 1}"
            )
        self._envs = range(*layout.slices[self._worker])
        self._groups = [group for group in image_groups() if group in segment.tensors]
        self._reporter = WorkerReporter(self._run_id, self._worker, layout, segment.tensors)
        self._watch(self._env_index)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._wait_timer.cancel()
        self.create_timer(_STATUS_PERIOD_S, self._publish_status)
        self.create_timer(1.0 / self._scene_rate_hz, self._publish_scene)

    def _watch(self, env: Any) -> None:
        if env == _LEAVE:
            return
        try:
            self._observer.watch(env)
        except ValueError as error:
            raise ConfigError(f"parameter env_index: {error}") from None

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name != "env_index":
                reason = f"{parameter.name} is read at start only"
                return SetParametersResult(successful=False, reason=reason)
            try:
                self._watch(parameter.value)
            except ConfigError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _publish_status(self) -> None:
        ended = not self._tensors.exists() or remove_if_dead(self._run_id)
        statuses = self._observer.statuses()
        message = self._reporter.report(statuses, time.monotonic())
        message.header.stamp = self.get_clock().now().to_msg()
        in_order = statuses[self._worker].state == WorkerState.STOPPED
        if ended and not in_order:
            message.state = SimWorkerStatus.FAILED
            self.get_logger().error(f"run {self._run_id} is gone; worker {self._worker} was lost")
        self._status.publish(message)
        if ended:
            self._status.wait_for_all_acked(_LAST_WORD_TIMEOUT)  # or the node's end discards it
            raise SystemExit(0 if in_order else _FAILED_EXIT)

    def _publish_scene(self) -> None:
        view = self._observer.view()
        if view is None or view.env not in self._envs or view.time_s == self._shown_s:
            return
        self._shown_s = view.time_s
        newest = {group: self._observer.observation(group) for group in self._groups}
        images = {group: image for group, image in newest.items() if image is not None}
        self._scene.publish(view, images)

    def _parameter(self, name: str, default: Any) -> Any:
        return self.declare_parameter(name, default).value


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    torch.set_num_threads(1)
    return run_node(SimWorkerNode, args)


if __name__ == "__main__":
    sys.exit(main())
