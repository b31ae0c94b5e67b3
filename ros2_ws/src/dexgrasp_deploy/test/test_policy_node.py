"""The policy node as others meet it over ROS: life cycle, goals, services, commands."""

import shutil
import time
import uuid

import numpy as np
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from dexgrasp_deploy.nodes.parameters import COMMAND, NEWEST, Parameters
from dexgrasp_msgs.action import Grasp
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_msgs.srv import LoadPolicy
from dexgrasp_sim.bringup import NodeGroup, NodeSpec
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.conversions import to_image, to_joint_state, to_stamp
from dexgrasp_sim.ros_environment import ros_environment
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

PERIOD_S = 0.02
MAX_IMAGE_AGE_S = 3.0


@pytest.fixture(scope="module")
def context():
    own = rclpy.Context()
    rclpy.init(context=own)
    yield own
    rclpy.try_shutdown(context=own)


class Robot:
    """An obedient robot with a camera, and the client of the policy, in one node."""

    def __init__(self, context, manifest):
        self.node = rclpy.create_node(f"robot_{uuid.uuid4().hex[:8]}", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        robot = manifest.robot
        self.start = dict(zip(robot.joint_names, robot.start_position_rad, strict=True))
        self.position = dict(self.start)
        self.depth = np.full((24, 32), 500, np.uint16)
        self.sees, self.broken = True, False
        self.commands, self.statuses = [], []
        self._states = self.node.create_publisher(JointState, "joint_states", COMMAND)
        self._images = self.node.create_publisher(Image, "camera/depth/image_raw", NEWEST)
        self.node.create_subscription(JointState, "joint_command", self._on_command, COMMAND)
        self.node.create_subscription(PolicyStatus, "policy/status", self.statuses.append, NEWEST)
        self.node.create_timer(PERIOD_S, self._publish)
        self.grasp = ActionClient(self.node, Grasp, "grasp")
        self.load = self.node.create_client(LoadPolicy, "policy/load")
        self.release = self.node.create_client(Trigger, "policy/release")
        self.change = self.node.create_client(ChangeState, "policy_node/change_state")

    def _publish(self):
        stamp = to_stamp(self.node.get_clock(), time.monotonic())
        names = sorted(self.position)
        values = [float("nan") if self.broken else self.position[name] for name in names]
        self._states.publish(to_joint_state(names, values, [0.0] * len(names), stamp))
        if self.sees:
            self._images.publish(to_image(self.depth, "camera", stamp))

    def _on_command(self, message):
        command = dict(zip(message.name, message.position, strict=True))
        self.commands.append(command)
        self.position |= command

    def until(self, condition, what):
        wait_until(condition, what, meanwhile=lambda: self.executor.spin_once(timeout_sec=0.05))

    def result(self, future):
        self.until(future.done, "an answer")
        return future.result()

    def call(self, client, request):
        self.until(client.service_is_ready, client.srv_name)
        return self.result(client.call_async(request))

    def send(self, feedback=None, **goal):
        self.until(self.grasp.server_is_ready, "the action server")
        return self.result(self.grasp.send_goal_async(Grasp.Goal(**goal), feedback))

    def outcome(self, handle):
        answer = self.result(handle.get_result_async())
        return answer.status, answer.result

    def until_state(self, state):
        self.statuses.clear()
        self.until(lambda: self.statuses and self.statuses[-1].state == state, f"state {state}")
        return self.statuses[-1]


def policy_process(folder, **parameters):
    """The policy node alone, as a process group."""
    freshness = {"max_joint_age_s": 5.0, "max_image_age_s": MAX_IMAGE_AGE_S}
    spec = NodeSpec(
        "dexgrasp_deploy", "policy_node", "policy_node", {"freshness": freshness, **parameters}
    )
    return NodeGroup([spec], ros_environment(), folder)


@pytest.fixture(scope="module")
def running(context, bundle, bundle_folder, tmp_path_factory):
    """A robot whose policy node is active; every test leaves it without an episode."""
    folder = tmp_path_factory.mktemp("policy_node")
    with policy_process(folder, bundle=str(bundle_folder), autostart=True):
        robot = Robot(context, bundle.manifest)
        robot.until(lambda: robot.statuses and robot.statuses[-1].bundle_id, "the policy")
        yield robot
        robot.executor.shutdown()
        robot.node.destroy_node()


@pytest.fixture
def robot_at_start(running):
    """The robot at its start posture, healthy, and the policy idle."""
    running.sees, running.broken = True, False
    running.call(running.release, Trigger.Request())
    running.until_state(PolicyStatus.IDLE)
    running.position = dict(running.start)
    running.commands.clear()
    return running


def test_life_cycle(context, bundle, bundle_folder, tmp_path):
    with policy_process(tmp_path, bundle=str(bundle_folder)):
        robot = Robot(context, bundle.manifest)
        status, result = robot.outcome(robot.send())
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Grasp.Result.NO_POLICY)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            assert robot.call(robot.change, request).success
        found = robot.until_state(PolicyStatus.IDLE)
        assert found.bundle_id == bundle.manifest.bundle_id
        robot.until(lambda: robot.outcome(robot.send())[1].steps == 18, "an episode")
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        assert robot.call(robot.change, request).success
        assert robot.outcome(robot.send())[1].error_code == Grasp.Result.NO_POLICY
        robot.executor.shutdown()
        robot.node.destroy_node()


def test_goal_runs_an_episode_and_commands_by_name(robot_at_start, robot):
    feedback = []
    handle = robot_at_start.send(feedback.append)
    status, result = robot_at_start.outcome(handle)
    expected = GoalStatus.STATUS_SUCCEEDED if result.success else GoalStatus.STATUS_ABORTED
    assert status == expected
    assert result.error_code == (Grasp.Result.SUCCESS if result.success else Grasp.Result.TIMEOUT)
    assert result.steps == 18
    assert len(robot_at_start.commands) >= 18
    for command in robot_at_start.commands:
        values = np.array([command[name] for name in robot.joint_names])
        assert (values >= robot.lower - 1e-6).all()
        assert (values <= robot.upper + 1e-6).all()
    assert feedback
    found = robot_at_start.until_state(PolicyStatus.HOLD)
    assert found.step == 18
    assert len(found.action) == 7
    assert found.control_hz == pytest.approx(15.0)
    assert np.isfinite(found.predicted_object_position.x)


def test_cancel_and_busy(robot_at_start, bundle_folder):
    handle = robot_at_start.send(timeout_s=60.0)
    robot_at_start.until(lambda: robot_at_start.commands, "a command")
    status, result = robot_at_start.outcome(robot_at_start.send())
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Grasp.Result.BUSY)
    request = LoadPolicy.Request(bundle=str(bundle_folder))
    assert robot_at_start.call(robot_at_start.load, request).error_code == LoadPolicy.Response.BUSY
    assert not robot_at_start.call(robot_at_start.release, Trigger.Request()).success
    robot_at_start.result(handle.cancel_goal_async())
    status, result = robot_at_start.outcome(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, Grasp.Result.CANCELLED)
    robot_at_start.until_state(PolicyStatus.HOLD)


@pytest.mark.parametrize(
    "goal", [{"timeout_s": -1.0}, {"timeout_s": 1e4}, {"lift_height_m": -0.1}, {"mode": 7}]
)
def test_invalid_goal(robot_at_start, goal):
    status, result = robot_at_start.outcome(robot_at_start.send(**goal))
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Grasp.Result.INVALID_GOAL)
    assert result.error_msg


def test_shadow_commands_nothing(robot_at_start):
    handle = robot_at_start.send(mode=Grasp.Goal.SHADOW)
    assert robot_at_start.outcome(handle)[1].steps == 18
    assert not robot_at_start.commands


def test_blind_policy_stops_and_holds(robot_at_start):
    handle = robot_at_start.send(timeout_s=60.0)
    robot_at_start.until(lambda: len(robot_at_start.commands) > 3, "commands")
    robot_at_start.sees = False
    status, result = robot_at_start.outcome(handle)
    assert status == GoalStatus.STATUS_ABORTED
    assert result.error_code == Grasp.Result.STALE_OBSERVATION
    count = len(robot_at_start.commands)
    robot_at_start.until(lambda: len(robot_at_start.commands) > count, "the hold command")
    robot_at_start.until_state(PolicyStatus.HOLD)


def test_fault_is_kept_until_released(robot_at_start):
    handle = robot_at_start.send(timeout_s=60.0)
    robot_at_start.until(lambda: len(robot_at_start.commands) > 3, "commands")
    robot_at_start.broken = True
    assert robot_at_start.outcome(handle)[1].error_code == Grasp.Result.FAULT
    robot_at_start.broken = False
    robot_at_start.until_state(PolicyStatus.FAULT)
    refused = robot_at_start.outcome(robot_at_start.send())[1]
    assert refused.error_code == Grasp.Result.FAULT
    assert "FAULT" in refused.error_msg
    assert robot_at_start.call(robot_at_start.release, Trigger.Request()).success
    robot_at_start.until_state(PolicyStatus.IDLE)


def test_load_policy(robot_at_start, bundle_folder, tmp_path):
    spoilt = shutil.copytree(bundle_folder, tmp_path / "spoilt")
    (spoilt / "policy.onnx").write_bytes(b"nothing")
    for folder, code in (
        (tmp_path / "nowhere", LoadPolicy.Response.NOT_FOUND),
        (spoilt, LoadPolicy.Response.INVALID),
        (bundle_folder, LoadPolicy.Response.SUCCESS),
    ):
        request = LoadPolicy.Request(bundle=str(folder))
        answer = robot_at_start.call(robot_at_start.load, request)
        assert answer.error_code == code
        assert answer.success == (code == LoadPolicy.Response.SUCCESS)
    robot_at_start.until(
        lambda: robot_at_start.outcome(robot_at_start.send())[1].steps == 18, "an episode"
    )


def node_with(context, **values):
    overrides = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
    return rclpy.create_node(
        f"parameters_{uuid.uuid4().hex[:8]}",
        context=context,
        parameter_overrides=overrides,
        automatically_declare_parameters_from_overrides=True,
    )


def test_parameters_are_read_checked_and_never_ignored(context):
    node = node_with(context, rate_hz=30, arm__address="10.0.0.1", aproach_speed=0.1)
    parameters = Parameters(node)
    assert parameters.get("rate_hz", 60.0) == 30.0
    assert parameters.get("bundle", "none") == "none"
    assert parameters.under("arm") == {"address": "10.0.0.1"}
    with pytest.raises(ConfigError, match=r"unknown parameter aproach_speed; .* has arm\."):
        parameters.reject_unknown()
    with pytest.raises(ConfigError, match="rate_hz = 30: not a str"):
        parameters.get("rate_hz", "fast")
    node.destroy_node()
