"""Runs grasp episodes one after the other, says how they went, and ends."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from dexgrasp_deploy.control.judge import GraspJudge, in_words, summarize
from dexgrasp_deploy.drivers.base import JointSample
from dexgrasp_deploy.nodes.calls import Caller
from dexgrasp_deploy.nodes.conversions import from_joint_state, from_pose, from_stamp
from dexgrasp_deploy.nodes.parameters import Parameters
from dexgrasp_deploy.nodes.policy.topic_port import IMAGE_STREAMS
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_msgs.action import Grasp
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.node_main import run_node
from dexgrasp_sim.nodes.qos import LATCHED, NEWEST

_HOME_TIMEOUT_S = 300.0
"""The policy node notices itself when the robot does not get on; a slow computer plans slowly."""
_START_TIMEOUT_S = 300.0
"""For imports, discovery, and the compilation of image kernels on a slow computer."""
_CAMERA_TIMEOUT_S = 120.0
_FIRST_SAMPLES_S = 10.0
_MARGIN_S = 15.0
_PATIENCE = 3.0
"""An episode is a number of steps: a computer that is too slow needs longer for them."""
_RETRY_S = 0.2
_AT_HOME = "HOLD: at home"
_FINAL = frozenset({Grasp.Result.SUCCESS, Grasp.Result.INVALID_GOAL, Grasp.Result.NO_POLICY})
"""What trying again does not change."""
_STOPS = frozenset({Grasp.Result.STALE_OBSERVATION, Grasp.Result.FAULT})


class EpisodeNode(Node):
    """Parameters: `bundle`, `episodes`, `simulated`, and `print_json` for a line of all figures.

    Between episodes the robot puts down what it holds and goes home. If `simulated`, the node then
    uses `sim/reset`, and `sim/object_pose` to judge the episodes.

    An episode that the policy node refused to begin is not a failed grasp: it is counted as
    refused, with the reason. In simulation the node also clears faults, which otherwise is up to a
    person.
    """

    def __init__(self) -> None:
        super().__init__("episode_node", automatically_declare_parameters_from_overrides=True)
        parameters = Parameters(self)
        manifest = read_manifest(Path(parameters.get("bundle", "")))
        self._task = manifest.task
        self._episodes = parameters.get("episodes", 1)
        self._simulated = parameters.get("simulated", True)
        self._prints_json = parameters.get("print_json", False)
        parameters.reject_unknown()
        self._robot = self._task.load_robot()
        self._joints: JointSample | None = None
        self._status: PolicyStatus | None = None
        self._judge: GraspJudge | None = None
        self._latency: dict[str, Any] | None = None
        self._grasp = ActionClient(self, Grasp, "grasp")
        self._release = self.create_client(Trigger, "policy/release")
        self._home = self.create_client(Trigger, "policy/home")
        self._reset = self.create_client(Trigger, "sim/reset")
        self.create_subscription(JointState, "joint_states", self._on_joints, NEWEST)
        self.create_subscription(String, "policy/latency", self._on_latency, LATCHED)
        self.create_subscription(PoseStamped, "sim/object_pose", self._on_pose, NEWEST)
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, NEWEST)
        self._cameras = {
            stream: self._first_image(stream)
            for stream in IMAGE_STREAMS[manifest.image.name if manifest.image else None]
        }

    def _first_image(self, stream: str) -> Subscription:
        """Ends with the first image."""

        def seen(_: Image) -> None:
            self.destroy_subscription(self._cameras.pop(stream))

        return self.create_subscription(Image, f"camera/{stream}/image_raw", seen, NEWEST)

    def run(self, executor: Executor) -> dict[str, Any]:
        """Runs all episodes; returns the result of `summarize`, and the policy's `latency` report.

        Raises:
            SystemExit: Something did not answer in time; logged.
        """
        call = Caller(self, executor)
        call.until(self._all_there, _START_TIMEOUT_S, "policy, joint states and services")
        # without images the episodes are refused, with the reason
        call.wait(lambda: not self._cameras, _CAMERA_TIMEOUT_S)
        outcomes = [self._run_episode(call) for _ in range(self._episodes)]
        return {**summarize(outcomes), "latency": self._latency}

    def report(self, figures: dict[str, Any]) -> None:
        """Logs the figures of `run` in words, and prints them where that is wanted."""
        for line in in_words(figures):
            self.get_logger().info(line)
        if self._prints_json:
            print(json.dumps(figures), flush=True)

    def _all_there(self) -> bool:
        servers = [self._release, self._home, *([self._reset] if self._simulated else [])]
        return (
            self._status is not None
            and bool(self._status.bundle_id)
            and self._joints is not None
            and self._grasp.server_is_ready()
            and all(server.service_is_ready() for server in servers)
        )

    def _run_episode(self, call: Caller) -> dict[str, Any]:
        way_home, home_stops = self._go_home(call)
        start: dict[str, Any] = {"object": None}
        if self._simulated:
            call.trigger(self._release)
            start = json.loads(call.trigger(self._reset))
            self._judge = GraspJudge(self._robot, self._task, start["object"])
            self._await_joints(call)
        result = self._send_goal(call)
        refused = result.steps == 0 and not result.success
        success = lift_m = None
        if self._judge is not None and self._joints is not None and not refused:
            success, lift_m = self._judge.success(self._joints), round(self._judge.max_lift_m, 4)
        self.get_logger().info(f"episode ended: {result.error_msg}")
        return {
            "object": start["object"],
            "success": success,
            "believed": None if refused else result.success,
            "refused": refused,
            "stopped": not refused and result.error_code in _STOPS,
            "max_lift_m": lift_m,
            "ended": result.error_msg,
            "way_home": way_home,
            "home_stops": home_stops,
            "steps": result.steps,
            "duration_s": result.duration_s,
            "deadline_misses": result.deadline_misses,
            "clamped_commands": result.clamped_commands,
        }

    @property
    def _in_fault(self) -> bool:
        return self._status is not None and self._status.state == PolicyStatus.FAULT

    def _go_home(self, call: Caller) -> tuple[str, list[str]]:
        """Sends the robot home until it is there; returns where it stopped and why, at last and
        each time before.

        It may stop on the way because the computer was busy for a moment: then it is sent again.
        """
        deadline_s, stops = time.monotonic() + _HOME_TIMEOUT_S, []
        while True:
            told = self._try_to_go_home(call)
            if told.startswith(_AT_HOME) or time.monotonic() > deadline_s:
                return told, stops
            if self._in_fault and not self._simulated:
                return told, stops  # a person must clear it
            stops.append(told)
            call.pause(_RETRY_S)

    def _try_to_go_home(self, call: Caller) -> str:
        if self._simulated and self._in_fault:
            call.result(self._release.call_async(Trigger.Request()))
        answer = call.result(self._home.call_async(Trigger.Request()))
        if not answer.success:
            return answer.message
        answered_s = time.monotonic()

        def has_stopped() -> bool:
            status = self._status
            if status is None or status.state == PolicyStatus.RUNNING:
                return False
            return from_stamp(self.get_clock(), status.header.stamp) > answered_s

        call.until(has_stopped, _HOME_TIMEOUT_S, "the robot to come home")
        return self._status.message if self._status is not None else ""

    def _await_joints(self, call: Caller) -> None:
        """Waits for joints that were measured after now."""
        now_s = time.monotonic()

        def measured() -> bool:
            return self._joints is not None and self._joints.stamp_s > now_s

        call.until(measured, _FIRST_SAMPLES_S, "joint states")

    def _send_goal(self, call: Caller) -> Grasp.Result:
        """Sends a goal; repeats it for a while if it is refused: first measurements may lack."""
        deadline_s = time.monotonic() + _FIRST_SAMPLES_S
        while True:
            handle = call.result(self._grasp.send_goal_async(Grasp.Goal()))
            if not handle.accepted:
                call.fail("the goal was rejected")
            future = handle.get_result_async()
            result = call.result(future, _PATIENCE * self._task.episode_s + _MARGIN_S).result
            refused = result.steps == 0 and result.error_code not in _FINAL
            if not refused or time.monotonic() > deadline_s:
                return result
            call.pause(_RETRY_S)

    def _on_joints(self, message: JointState) -> None:
        sample = from_joint_state(self.get_clock(), message)
        self._joints = sample if sample.consistent else self._joints

    def _on_status(self, message: PolicyStatus) -> None:
        self._status = message

    def _on_latency(self, message: String) -> None:
        self._latency = json.loads(message.data)

    def _on_pose(self, message: PoseStamped) -> None:
        if self._judge is not None:
            stamp_s = from_stamp(self.get_clock(), message.header.stamp)
            self._judge.observe(from_pose(message.pose), stamp_s)


def run_and_report(node: EpisodeNode, executor: Executor) -> None:
    """The body of the process."""
    node.report(node.run(executor))


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    torch.set_num_threads(1)
    return run_node(EpisodeNode, args, body=run_and_report)


if __name__ == "__main__":
    sys.exit(main())
