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
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from dexgrasp_deploy.control.sensing.scene_check import table_depth
from dexgrasp_deploy.drivers.base import Intrinsics
from dexgrasp_deploy.nodes.conversions import to_camera_info
from dexgrasp_deploy.nodes.parameters import Parameters
from dexgrasp_msgs.action import Grasp
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_msgs.srv import LoadPolicy
from dexgrasp_sim.bringup import NodeGroup, NodeSpec
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.conversions import to_image, to_joint_state, to_stamp
from dexgrasp_sim.nodes.qos import COMMAND, LATCHED, NEWEST
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
        camera, table = manifest.task.camera, manifest.task.table
        self.table = (1000 * table_depth(camera, table)).astype(np.uint16)
        self.lens = Intrinsics.centered(camera.width, camera.height, camera.focal_px)
        self.images, self.hand_states = 0, None
        self.heal()
        self.commands, self.statuses = [], []
        self._states = self.node.create_publisher(JointState, "joint_states", COMMAND)
        self._images = self.node.create_publisher(Image, "camera/depth/image_raw", NEWEST)
        self._infos = self.node.create_publisher(CameraInfo, "camera/depth/camera_info", NEWEST)
        self._echo = self.node.create_publisher(JointState, "joint_command_echo", COMMAND)
        self._button = self.node.create_publisher(Bool, "estop", LATCHED)
        self.node.create_subscription(JointState, "joint_command", self._on_command, COMMAND)
        self.node.create_subscription(PolicyStatus, "policy/status", self.statuses.append, NEWEST)
        self.node.create_timer(PERIOD_S, self._publish)
        self.grasp = ActionClient(self.node, Grasp, "grasp")
        self.load = self.node.create_client(LoadPolicy, "policy/load")
        self.release = self.node.create_client(Trigger, "policy/release")
        names = ("home", "hold", "open_hand", "estop", "reset", "confirm_faster")
        self.services = {
            name: self.node.create_client(Trigger, f"policy/{name}") for name in names
        }
        self.change = self.node.create_client(ChangeState, "policy_node/change_state")

    def heal(self):
        """Sees, measures and moves as it should."""
        self.sees, self.broken, self.in_degrees = True, False, False
        self.depth, self.encoding, self.ahead_s = self.table, "16UC1", 0.0
        self.echo = None

    def _publish(self):
        stamp = to_stamp(self.node.get_clock(), time.monotonic())
        names = sorted(self.position)
        parts = {self._states: names}
        if self.hand_states is not None:
            arm = [name for name in names if name.startswith("iiwa")]
            hand = [name for name in names if name not in arm]
            parts = {self._states: arm, self.hand_states: hand}
        for publisher, part in parts.items():
            values = [float("nan") if self.broken else self.position[name] for name in part]
            values = np.rad2deg(values).tolist() if self.in_degrees else values
            publisher.publish(to_joint_state(part, values, [0.0] * len(part), stamp))
        if self.echo is not None:
            self._echo.publish(to_joint_state(names[-1:], [self.echo], [], stamp))
        if self.sees:
            self._show()

    def _show(self):
        """Publishes the image with a bar that moves on."""
        self.images += 1
        depth = self.depth.copy()
        depth[:, self.images % 32] = 0.9 * depth[:, self.images % 32]
        stamp = to_stamp(self.node.get_clock(), time.monotonic() + self.ahead_s)
        image = to_image(depth, "camera", stamp)
        image.encoding = self.encoding
        self._infos.publish(to_camera_info(image, self.lens))
        self._images.publish(image)

    def press(self, pressed):
        self._button.publish(Bool(data=pressed))

    def trigger(self, name):
        return self.call(self.services[name], Trigger.Request())

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
    running.heal()
    running.until(lambda: running.trigger("reset").success, "the reset")
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


def test_missing_heartbeat_is_an_emergency_stop(context, bundle, bundle_folder, tmp_path):
    parameters = {"bundle": str(bundle_folder), "autostart": True, "estop.heartbeat_s": 0.2}
    # before `running` begins: two policies would disturb each other
    with policy_process(tmp_path, **parameters):
        robot = Robot(context, bundle.manifest)
        found = robot.until_state(PolicyStatus.FAULT)
        assert "no heartbeat on estop/heartbeat for 0.2 s" in found.message
        assert "the heartbeat is missing" in robot.trigger("reset").message
        robot.executor.shutdown()
        robot.node.destroy_node()


def test_goal_runs_an_episode_and_commands_by_name(robot_at_start, robot):
    feedback = []
    handle = robot_at_start.send(feedback.append)
    status, result = robot_at_start.outcome(handle)
    assert (status, result.success) == (GoalStatus.STATUS_ABORTED, False), "the hand holds nothing"
    assert result.error_code == Grasp.Result.TIMEOUT
    assert "the hand is not closed on anything" in result.error_msg
    assert "the object is estimated at" in result.error_msg
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


def test_driver_that_echoes_other_commands_is_a_fault(robot_at_start):
    handle = robot_at_start.send(timeout_s=60.0)
    robot_at_start.until(lambda: len(robot_at_start.commands) > 3, "commands")
    robot_at_start.echo = 9.0
    result = robot_at_start.outcome(handle)[1]
    assert result.error_code == Grasp.Result.FAULT
    assert result.error_msg.startswith("the driver does not obey")
    assert "thumb_joint_3" in result.error_msg
    robot_at_start.heal()

    def obeys_again():
        robot_at_start.call(robot_at_start.release, Trigger.Request())
        return robot_at_start.outcome(robot_at_start.send(timeout_s=0.1))[1].steps > 0

    robot_at_start.until(obeys_again, "the driver to be believed again")


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


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ({"depth": np.zeros((24, 32), np.uint16)}, Grasp.Result.FAULT, "every pixel is 0"),
        ({"ahead_s": 30.0}, Grasp.Result.STALE_OBSERVATION, "ahead of now"),
        ({"in_degrees": True}, Grasp.Result.FAULT, "in degrees"),
        ({"broken": True}, Grasp.Result.FAULT, "is not finite"),
        ({"encoding": "yuv422"}, Grasp.Result.FAULT, "encoding 'yuv422' is not understood"),
    ],
    ids=["covered", "clock", "degrees", "NaN", "encoding"],
)
def test_unfit_robot_does_not_move_and_the_reason_is_told(robot_at_start, fault, code, message):
    for name, value in fault.items():
        setattr(robot_at_start, name, value)

    def refused():
        result = robot_at_start.outcome(robot_at_start.send(timeout_s=0.1))[1]
        return message in result.error_msg and result.error_code == code

    # an episode may still begin with what was measured before; then it ends in a fault
    robot_at_start.until(refused, "the refusal")
    robot_at_start.call(robot_at_start.release, Trigger.Request())
    robot_at_start.until_state(PolicyStatus.IDLE)
    robot_at_start.commands.clear()
    result = robot_at_start.outcome(robot_at_start.send())[1]
    assert (result.success, result.steps, result.error_code) == (False, 0, code)
    assert result.error_msg.startswith("refused: ") and message in result.error_msg
    assert not robot_at_start.commands
    robot_at_start.until(lambda: message in robot_at_start.statuses[-1].message, "the status")


def test_arm_and_hand_may_report_separately(robot_at_start):
    node = robot_at_start.node
    robot_at_start.hand_states = node.create_publisher(JointState, "joint_states", COMMAND)
    robot_at_start.until(
        lambda: robot_at_start.outcome(robot_at_start.send())[1].steps == 18, "an episode"
    )
    node.destroy_publisher(robot_at_start.hand_states)
    robot_at_start.hand_states = None


def test_robot_goes_home_by_itself_within_its_limits(robot_at_start, robot):
    away = dict(zip(robot.arm_joints, (-0.4, 0.3, -0.4, -0.4, 0.4, -0.4, -0.4), strict=True))

    def sets_out():
        """Where the node still knows the old posture only, it is at home at once, and holds."""
        robot_at_start.call(robot_at_start.release, Trigger.Request())
        robot_at_start.position = {
            name: value + away.get(name, 0.0) for name, value in robot_at_start.start.items()
        }
        robot_at_start.until_state(PolicyStatus.IDLE)
        robot_at_start.trigger("home")
        robot_at_start.statuses.clear()
        robot_at_start.until(lambda: robot_at_start.statuses, "a status")
        return robot_at_start.statuses[-1].state == PolicyStatus.RUNNING

    robot_at_start.until(sets_out, "the way home to begin")
    found = robot_at_start.until_state(PolicyStatus.HOLD)
    assert found.message.startswith("HOLD: at home")
    assert robot_at_start.position == pytest.approx(robot_at_start.start, abs=0.02)
    assert robot_at_start.trigger("open_hand").success
    assert robot_at_start.until_state(PolicyStatus.HOLD).message.startswith("HOLD: put down")


@pytest.mark.parametrize("way", ["topic", "service"])
def test_emergency_stop_is_latched_until_it_is_reset(robot_at_start, way):
    handle = robot_at_start.send(timeout_s=60.0)
    robot_at_start.until(lambda: len(robot_at_start.commands) > 3, "commands")
    if way == "topic":
        robot_at_start.press(True)
    else:
        assert robot_at_start.trigger("estop").success
    result = robot_at_start.outcome(handle)[1]
    assert result.error_code == Grasp.Result.FAULT
    assert result.error_msg.startswith("emergency stop")
    assert not robot_at_start.call(robot_at_start.release, Trigger.Request()).success
    assert "emergency stop" in robot_at_start.outcome(robot_at_start.send())[1].error_msg
    if way == "topic":
        answer = robot_at_start.trigger("reset")
        assert (answer.success, answer.message) == (
            False,
            "not reset: the topic estop is still true",
        )
        robot_at_start.press(False)
    robot_at_start.until(lambda: robot_at_start.trigger("reset").success, "the reset")
    robot_at_start.until_state(PolicyStatus.IDLE)


@pytest.mark.parametrize("topic", ["joint_command", "joint_states"])
def test_second_publisher_stops_the_robot_and_is_named(robot_at_start, context, topic):
    handle = robot_at_start.send(timeout_s=60.0)
    robot_at_start.until(lambda: len(robot_at_start.commands) > 3, "commands")
    stranger = rclpy.create_node("stranger", context=context)
    stranger.create_publisher(JointState, topic, COMMAND)
    result = robot_at_start.outcome(handle)[1]
    assert result.error_code == Grasp.Result.FAULT
    assert "somebody else publishes" in result.error_msg and "/stranger" in result.error_msg
    stranger.destroy_node()

    def released():
        return robot_at_start.call(robot_at_start.release, Trigger.Request()).success

    robot_at_start.until(released, "the stranger to be gone")


def set_speed(robot, client, scale, name="speed_scale"):
    parameter = Parameter(name, value=scale).to_parameter_msg()
    return robot.call(client, SetParameters.Request(parameters=[parameter])).results[0]


def test_slower_at_once_and_faster_only_with_confirmation(robot_at_start):
    client = robot_at_start.node.create_client(SetParameters, "policy_node/set_parameters")
    assert set_speed(robot_at_start, client, 0.5).successful
    refused = set_speed(robot_at_start, client, 1.0)
    assert not refused.successful and "call policy/confirm_faster first" in refused.reason
    assert not set_speed(robot_at_start, client, -0.1).successful
    assert robot_at_start.trigger("confirm_faster").success
    assert set_speed(robot_at_start, client, 1.0).successful
    assert set_speed(robot_at_start, client, 0.5).successful
    assert not set_speed(robot_at_start, client, 1.0).successful, "one call allows one change"
    robot_at_start.trigger("confirm_faster")
    assert set_speed(robot_at_start, client, 1.0).successful
    refused = set_speed(robot_at_start, client, 0.5, "safety.velocity_scale")
    assert not refused.successful and "read when the node starts" in refused.reason


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
