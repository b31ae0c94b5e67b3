"""The ROS face of a worker: a real node beside a run whose worker rows this test writes."""

import json
import secrets
import subprocess
import sys

import numpy as np
import pytest
import rclpy
import torch
import yaml
from rcl_interfaces.srv import ListParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from visualization_msgs.msg import Marker, MarkerArray

from dexgrasp_msgs.msg import SimWorkerStatus
from dexgrasp_sim.config import parse_config
from dexgrasp_sim.nodes.worker_report import WorkerReporter
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.ros_environment import find_workspace_root
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import view_specs
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.shared_memory import Segment
from dexgrasp_sim.transport.telemetry import WorkerState, WorkerStatus, WorkerTelemetry
from dexgrasp_sim.vec_env import EVERY_EPISODE, WHOLE, EnvSpecs
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

ROBOT = load_robot()
JOINT_NAMES = ROBOT.joint_names
URDF_PATH = ROBOT.urdf_path

HEIGHT, WIDTH, HORIZON = 6, 8, 4
SPECS = EnvSpecs(
    (TensorSpec("depth", (HEIGHT, WIDTH), "int16"),), 2, 0.1, EVERY_EPISODE, view_specs(ROBOT)
)
LAYOUT = RunLayout(SPECS, HORIZON, ((0, 2), (2, 4)))
ENV = 3  # the second one of worker 1
TIMEOUT_S = 120.0
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
TASK = {
    "table": {"center_m": [-0.5, 0.0, 0.2], "size_m": [0.6, 0.8, 0.1]},
    "objects": [
        {"name": "ball", "shape": "sphere", "size_m": [0.07]},
        {"name": "can", "shape": "cylinder", "size_m": [0.05, 0.12], "rgb": [0.25, 0.5, 1.0]},
    ],
}
VIEW = {
    "joint_position": torch.arange(23) / 10,
    "joint_velocity": -torch.arange(23) / 10,
    "joint_target": torch.arange(23) / 20,
    "object_pose": torch.tensor([-0.5, 0.125, 0.25, 0.5, 0.5, -0.5, 0.5]),
    "goal": torch.tensor([-0.5, 0.0, 0.75]),
}
DEPTH = torch.arange(HEIGHT * WIDTH, dtype=torch.int16).reshape(HEIGHT, WIDTH) * 600


@pytest.fixture
def run():
    segment = Segment.create(f"test-node-{secrets.token_hex(4)}", LAYOUT)
    yield segment
    segment.close()


@pytest.fixture
def observer():
    rclpy.init()
    node = rclpy.create_node("observer")
    yield node
    node.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def start(tmp_path):
    """Starts worker nodes and ends those that are left."""
    processes = []

    def start(**parameters) -> subprocess.Popen:
        file = tmp_path / "parameters.yaml"
        file.write_text(yaml.safe_dump({"sim_worker_1": {"ros__parameters": parameters}}))
        arguments = ["--ros-args", "-r", "__node:=sim_worker_1", "--params-file", str(file)]
        command = [sys.executable, "-m", "dexgrasp_sim.nodes.sim_worker_node", *arguments]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


class Inbox(dict):
    """The newest message of every topic it listens to."""

    def __init__(self, node, topics):
        super().__init__()
        self._node = node
        for topic, (kind, profile) in topics.items():
            node.create_subscription(
                kind, topic, lambda m, topic=topic: self._add(topic, m), profile
            )

    def _add(self, topic, message):
        self[topic] = message

    def wait_until(self, true, meanwhile=lambda: None):
        def spin():
            meanwhile()
            rclpy.spin_once(self._node, timeout_sec=0.05)

        wait_until(lambda: true(self), lambda: f"other messages than {self}", meanwhile=spin)


def call(node, service_type, name, request):
    client = node.create_client(service_type, name)
    assert client.wait_for_service(TIMEOUT_S)
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_S)
    return future.result()


def choose_env(node, env):
    parameter = Parameter("env_index", value=env).to_parameter_msg()
    request = SetParameters.Request(parameters=[parameter])
    return call(node, SetParameters, "/sim_worker_1/set_parameters", request).results[0]


def test_shows_the_watched_environment_and_ends_with_the_run(run, observer, start):
    worker = WorkerTelemetry(run.telemetry, 1)
    worker.count(state=WorkerState.STEPPING, steps=9, slot=1, episodes=5, policy_version=2)
    WorkerTelemetry(run.telemetry, 0).count(policy_version=3)
    run.tensors["depth"][1, ENV] = DEPTH
    inbox = Inbox(
        observer,
        {
            "sim_worker_1/status": (SimWorkerStatus, 1),
            "joint_states": (JointState, 1),
            "markers": (MarkerArray, 1),
            "camera/depth/image_raw": (Image, NEWEST),
            "camera/depth/camera_info": (CameraInfo, NEWEST),
            "robot_description": (String, LATCHED),
        },
    )
    process = start(run_id=run.run_id, worker=1, env_index=ENV, task=json.dumps(TASK))

    def show():
        if worker.wanted_env(2, 4) is not None:
            worker.show(ENV, VIEW)

    inbox.wait_until(lambda box: len(box) == 6, meanwhile=show)
    check_status(inbox["sim_worker_1/status"], run)
    check_joints(inbox["joint_states"])
    check_markers(inbox["markers"].markers)
    check_images(inbox["camera/depth/image_raw"], inbox["camera/depth/camera_info"])
    assert inbox["robot_description"].data == URDF_PATH.read_text()

    refusal = choose_env(observer, 4)
    assert not refusal.successful and "0..3" in refusal.reason
    assert choose_env(observer, 0).successful
    inbox.wait_until(lambda box: run.telemetry["telemetry.watched"].item() == 1)

    worker.count(state=WorkerState.STOPPED)
    run.close()
    inbox.wait_until(lambda box: box["sim_worker_1/status"].state == SimWorkerStatus.FINISHED)
    assert process.wait(TIMEOUT_S) == 0


def check_status(status, run):
    assert status.run_id == run.run_id
    assert status.schema_hash == LAYOUT.schema_hash
    assert status.state == SimWorkerStatus.RUNNING
    assert (status.worker, status.num_envs, status.transport) == (1, 2, "shared_memory")
    assert (status.steps, status.episodes, status.policy_version) == (9, 5, 2)
    assert (status.slot, status.horizon, status.policy_lag) == (2, HORIZON, 1)


def check_joints(joints):
    assert joints.header.frame_id == "base"
    assert tuple(joints.name) == JOINT_NAMES
    np.testing.assert_allclose(joints.position, VIEW["joint_position"])
    np.testing.assert_allclose(joints.velocity, VIEW["joint_velocity"])


def check_markers(markers):
    table, item, goal, _, status, *_ = markers
    assert [marker.ns for marker in markers[:5]] == [
        *("table", "object", "goal", "workspace", "status")
    ]
    assert status.text == f"environment {ENV}: can"
    assert {marker.header.frame_id for marker in markers} == {"base"}
    assert [marker.type for marker in markers[:3]] == [
        *(Marker.CUBE, Marker.CYLINDER, Marker.SPHERE)
    ]
    assert vector(table.pose.position) == (-0.5, 0.0, 0.2)
    assert vector(table.scale) == (0.6, 0.8, 0.1)
    assert vector(item.scale) == (0.05, 0.05, 0.12)
    assert vector(item.pose.position) == (-0.5, 0.125, 0.25)
    turn = item.pose.orientation
    assert (turn.w, turn.x, turn.y, turn.z) == (0.5, 0.5, -0.5, 0.5)
    assert (item.color.r, item.color.g, item.color.b, item.color.a) == (0.25, 0.5, 1.0, 1.0)
    assert vector(goal.pose.position) == (-0.5, 0.0, 0.75)


def vector(message):
    return message.x, message.y, message.z


def check_images(image, info):
    assert (image.height, image.width, image.encoding) == (HEIGHT, WIDTH, "16UC1")
    pixels = np.frombuffer(image.data, "<u2").reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(pixels, DEPTH.numpy())
    assert info.header.frame_id == image.header.frame_id
    assert (info.height, info.width) == (HEIGHT, WIDTH)
    focal_px = parse_config(GraspConfig, TASK).camera.focal_px
    assert info.k.tolist() == [focal_px, 0, 3.5, 0, focal_px, 2.5, 0, 0, 1]


def test_says_so_when_the_run_is_lost(run, observer, start):
    WorkerTelemetry(run.telemetry, 1).count(state=WorkerState.WAITING)
    inbox = Inbox(observer, {"sim_worker_1/status": (SimWorkerStatus, 1)})
    process = start(run_id=run.run_id, worker=1)
    inbox.wait_until(lambda box: box)
    run.close()
    assert process.wait(TIMEOUT_S) == 1
    inbox.wait_until(lambda box: box["sim_worker_1/status"].state == SimWorkerStatus.FAILED)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"run_id": "test-never", "wait_s": 0.3}, "no run 'test-never'"),
        ({"run_id": ""}, "run id ''"),
        ({"run_id": "test-never", "task": '{"tables": 2}'}, "tables"),
    ],
)
def test_a_wrong_parameter_is_named(start, parameters, reason):
    process = start(**parameters)
    assert process.wait(TIMEOUT_S) == 2
    assert reason in process.stderr.read()


def test_the_parameter_file_knows_the_nodes_defaults(observer, start):
    share = find_workspace_root() / "ros2_ws/src/dexgrasp_sim/config/sim_worker_node.yaml"
    values = yaml.safe_load(share.read_text())["/**"]["ros__parameters"]
    process = start(run_id="test-never")
    names = call(
        observer, ListParameters, "/sim_worker_1/list_parameters", ListParameters.Request()
    )
    assert set(values) <= set(names.result.names)
    process.terminate()
    assert process.wait(TIMEOUT_S) == 0


def reading(**values) -> list[WorkerStatus]:
    zeros = {"policy_version": 0, "simulating_s": 0.0, "rendering_s": 0.0, "waiting_s": 0.0}
    state = WorkerState.WAITING
    counts = {"pid": 1, "state": state, "steps": 0, "episodes": 0, "slot": 0}
    return [WorkerStatus(index, **{**zeros, **counts, **values}) for index in (0, 1)]


def empty_tensors():
    return {b.name: torch.zeros(b.shape, dtype=b.torch_dtype) for b in LAYOUT.rollout_blocks}


def test_rates_are_of_the_last_period():
    reporter = WorkerReporter("run", 1, LAYOUT, empty_tensors())
    first = reporter.report(reading(steps=10, simulating_s=5.0), now_s=100.0)
    assert first.env_steps_per_second == first.fraction_simulating == 0.0
    spent = {"simulating_s": 6.0, "rendering_s": 0.5, "waiting_s": 7.0}
    second = reporter.report(reading(steps=40, slot=HORIZON, **spent), now_s=102.0)
    assert second.env_steps_per_second == 30 * 2 / 2.0
    assert second.fraction_simulating == pytest.approx(0.5)
    assert second.fraction_rendering == pytest.approx(0.25)
    assert second.fraction_waiting == 1.0  # a wait of 7 s ended in this period of 2 s
    assert second.slot == 1  # slot 0 is filled from the last one


def test_success_is_counted_once_per_episode():
    tensors = empty_tensors()
    reporter = WorkerReporter("run", 1, LAYOUT, tensors)
    assert np.isnan(reporter.report(reading(), now_s=0.0).episode_success)
    tensors["sequence"][1:4, 1] = torch.tensor([1, 2, 3])
    tensors["truncated"][2, 2:] = True
    tensors["terminated"][3, ENV] = True
    tensors["episode"][..., WHOLE] = 1.0
    tensors["episode"][2, 2, 2] = 1.0
    tensors["terminated"][3, 0] = True  # worker 0's
    tensors["truncated"][4] = True  # not written yet
    for now_s in (1.0, 2.0):
        assert reporter.report(reading(), now_s).episode_success == pytest.approx(1 / 3)
    tensors["sequence"][4, 1] = 4
    tensors["episode"][4, 2:, 2] = 1.0
    assert reporter.report(reading(), 3.0).episode_success == pytest.approx(3 / 5)


def test_a_worker_that_builds_has_no_slot():
    message = WorkerReporter("run", 0, LAYOUT, empty_tensors()).report(
        reading(state=WorkerState.BUILDING), now_s=0.0
    )
    assert (message.state, message.slot) == (SimWorkerStatus.STARTING, 0)
