"""The policy as a managed node: a control loop on topics, the Grasp action, loading of bundles."""

import gc
import sys
import time
from functools import partial
from pathlib import Path

import torch
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason, State
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime
from dexgrasp_deploy.nodes.parameters import Parameters
from dexgrasp_deploy.nodes.policy.emergency_stop import EmergencyStop
from dexgrasp_deploy.nodes.policy.grasp_action import GraspAction
from dexgrasp_deploy.nodes.policy.latency_topic import LatencyTopic
from dexgrasp_deploy.nodes.policy.policy_services import PolicyServices
from dexgrasp_deploy.nodes.policy.publisher_watch import PublisherWatch
from dexgrasp_deploy.nodes.policy.speed import SpeedScale
from dexgrasp_deploy.nodes.policy.status import describe, policy_status
from dexgrasp_deploy.nodes.policy.step_topics import StepTopics
from dexgrasp_deploy.nodes.policy.topic_port import TopicPort
from dexgrasp_learner.storage.bundle import load_bundle
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.node_main import run_node

_STATUS_PERIOD_S = 0.2
_END_CHECK_PERIOD_S = 0.05
_WATCH_PERIOD_S = 0.5
_IDLE_SPIN_S = 0.1
_DONE, _REFUSED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """While inactive, it commands nothing and refuses goals; configuring loads the bundle.

    Parameters: `bundle`, `autostart` (configure and activate at once), `speed_scale` (see
    SpeedScale), `estop.heartbeat_s` (see EmergencyStop), `latency_file` (see LatencyTopic), and
    those of ControlConfig; `shadow: true` computes, shows and logs everything and sends nothing.
    """

    def __init__(self) -> None:
        super().__init__("policy_node", automatically_declare_parameters_from_overrides=True)
        parameters = Parameters(self)
        self._bundle = parameters.get("bundle", "")
        self.autostart = parameters.get("autostart", False)
        self._config = parameters.config(ControlConfig)
        speed_scale = parameters.get("speed_scale", 1.0)
        heartbeat_s = parameters.get("estop.heartbeat_s", 0.0)
        latency_file = parameters.get("latency_file", "")
        parameters.reject_unknown()
        commands = not self._config.shadow
        self.port = TopicPort(self, self._config.freshness, commands)
        self.loop: ControlLoop | None = None
        self._active = False
        self._action = GraspAction(self, lambda: self.active_loop)
        self._status = self.create_publisher(PolicyStatus, "policy/status", 1)
        self._interfaces = PolicyServices(
            self, lambda: self.loop, lambda: self.active_loop, self.load
        )
        self._stop = EmergencyStop(self, lambda: self.loop, heartbeat_s)
        self._speed = SpeedScale(self, lambda: self.loop, speed_scale)
        self._watch = PublisherWatch(self, self.port.joint_streams, commands)
        self._latency = LatencyTopic(self, lambda: self.loop, latency_file)
        self._steps: StepTopics | None = None
        self._told = ""
        self.create_timer(_END_CHECK_PERIOD_S, self._check)
        self.create_timer(_WATCH_PERIOD_S, self._check_publishers)
        self.create_timer(_STATUS_PERIOD_S, self._publish_status)

    @property
    def active_loop(self) -> ControlLoop | None:
        """The loop that may command the robot."""
        return self.loop if self._active else None

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the bundle of the parameter; if that is empty, `policy/load` must be called."""
        try:
            if self._bundle:
                self.load(self._bundle)
        except ConfigError as error:
            self.get_logger().error(str(error))
            return _REFUSED
        return _DONE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Accepts goals from now on."""
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends a running episode; the robot holds its last command."""
        if self.loop is not None:
            self.loop.cancel()
            self._action.end_when_over()
            if self.loop.episode.state is not State.FAULT:
                self.loop.release()
        self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Removes the policy."""
        self.loop = None
        return _DONE

    def load(self, folder: str) -> None:
        """Replaces the policy.

        Raises:
            ConfigError: The folder holds no bundle that works on this robot.
        """
        runtime = PolicyRuntime(load_bundle(Path(folder)))
        robot = runtime.manifest.task.load_robot()
        self.loop = ControlLoop(runtime, robot, self.port, time.monotonic, self._config)
        if self._steps is not None:
            self._steps.destroy()
        self._steps = StepTopics(self, self.port, self.loop, runtime.manifest.robot.joint_names)
        self.loop.steps.listener = self._steps
        self.port.latencies = self.loop.steps.latencies
        self._stop.apply()
        self._speed.apply()
        image = runtime.manifest.image
        self.port.listen(image.name if image else None)
        self.get_logger().info(f"policy {runtime.manifest.bundle_id} from {folder}")
        gc.collect()
        gc.freeze()  # later collections in the control loop skip these lasting objects

    def _check(self) -> None:
        """Ends goals, watches the heartbeat, and logs every change of state with its reason."""
        self._stop.check()
        self._action.end_when_over()
        self._latency.report_when_over()
        if self.loop is None:
            return
        told = describe(self.loop)
        if told != self._told:
            bad = self.loop.episode.state is State.FAULT or self.loop.refusal
            self._told = told
            # rclpy wants one severity for each line that logs
            if bad:
                self.get_logger().error(told)
            else:
                self.get_logger().info(told)

    def _check_publishers(self) -> None:
        loop, found = self.loop, self._watch.check()
        if loop is None:
            return
        if found:
            loop.hinder(Reason.SECOND_PUBLISHER, found, latched=False)
        else:
            loop.allow(Reason.SECOND_PUBLISHER)

    def _publish_status(self) -> None:
        self._action.report()
        stamp = self.get_clock().now().to_msg()
        self._status.publish(policy_status(self.loop, stamp))

    def destroy_node(self) -> None:
        """Destroys the action server first."""
        self._action.destroy()
        super().destroy_node()


def _is_over(node: PolicyNode, loop: ControlLoop) -> bool:
    return node.active_loop is not loop


def control(node: PolicyNode, executor: Executor) -> None:
    """Runs control periods at their deadlines and callbacks in between, in one thread."""
    node.port.attach(executor)
    if node.autostart:
        for transition in (node.trigger_configure, node.trigger_activate):
            if transition() != _DONE:
                raise SystemExit(1)
    while True:
        loop = node.active_loop
        if loop is None:
            executor.spin_once(timeout_sec=_IDLE_SPIN_S)
        else:
            loop.run(stop=partial(_is_over, node, loop))


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    torch.set_num_threads(1)
    return run_node(PolicyNode, args, body=control)


if __name__ == "__main__":
    sys.exit(main())
