"""A training run under ROS: real processes, real DDS, the list that launch files start."""

import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from builtin_interfaces.msg import Time
from rcl_interfaces.srv import ListParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from visualization_msgs.msg import MarkerArray

from dexgrasp_learner.nodes.learner_report import learner_status
from dexgrasp_learner.run.control import RunControl, RunState, RunStatus
from dexgrasp_learner.run.processes import LEARNER, train_nodes
from dexgrasp_msgs.msg import LearnerStatus, SimWorkerStatus
from dexgrasp_msgs.srv import SaveCheckpoint, SetRunState
from dexgrasp_sim.bringup import NodeGroup, NodeSpec
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.ros_environment import find_workspace_root
from dexgrasp_sim.transport.shared_memory import run_folder
from dexgrasp_sim.transport.telemetry import RunObserver
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

ROBOT = load_robot()
JOINT_NAMES = ROBOT.joint_names

ROOT = find_workspace_root()
SMOKE = ROOT / "config" / "smoke.yaml"
SMALL = ["simulators.num_envs=8", "training.iterations=100000", "training.checkpoint_every=100000"]
TIMEOUT_S = 120.0
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
STATUS = "learner_node/status"
WORKERS = ("sim_worker_0/status", "sim_worker_1/status")


class Watcher:
    """A node that keeps the newest message of each topic and calls services."""

    def __init__(self):
        self.node = rclpy.create_node("watcher")
        self.newest = {}

    def listen(self, topic, kind, profile=1):
        self.node.create_subscription(
            kind, topic, lambda message: self.newest.update({topic: message}), profile
        )

    def wait_until(self, true):
        """Spins until a condition on the newest messages holds."""
        wait_until(
            lambda: true(self.newest),
            lambda: f"other messages than {self.newest}",
            meanwhile=lambda: rclpy.spin_once(self.node, timeout_sec=0.1),
        )

    def next(self, topic):
        self.newest.pop(topic, None)
        self.wait_until(lambda newest: topic in newest)
        return self.newest[topic]

    def wait_for_state(self, state):
        self.wait_until(lambda newest: STATUS in newest and newest[STATUS].state == state)
        return self.newest[STATUS]

    def call(self, kind, name, **values):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(TIMEOUT_S)
        future = client.call_async(kind.Request(**values))
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=TIMEOUT_S)
        return future.result()


@pytest.fixture
def watcher():
    rclpy.init()
    watcher = Watcher()
    watcher.listen(STATUS, LearnerStatus)
    for topic in WORKERS:
        watcher.listen(topic, SimWorkerStatus)
    yield watcher
    watcher.node.destroy_node()
    rclpy.shutdown()


def end_codes(group):
    """Exit codes by node name, once all have ended by themselves."""
    return {name: process.popen.wait(TIMEOUT_S) for name, process in group._processes.items()}


def test_a_run_is_watched_paused_saved_and_stopped(watcher, tmp_path):
    watcher.listen("joint_states", JointState)
    watcher.listen("markers", MarkerArray)
    watcher.listen("camera/depth/image_raw", Image, NEWEST)
    nodes = train_nodes(SMOKE, runs=tmp_path / "runs", overrides=SMALL)
    run_id = nodes[0].parameters["run_id"]
    with NodeGroup(nodes, os.environ, tmp_path) as group:
        status = watcher.wait_for_state(LearnerStatus.RUNNING)
        watcher.wait_until(lambda newest: len(newest) == 6)
        check_learner(status, run_id)
        check_workers([watcher.next(topic) for topic in WORKERS], status)
        check_scene(watcher.newest)

        assert watcher.call(SetRunState, "learner_node/set_run_state", command=0).success
        paused = watcher.wait_for_state(LearnerStatus.PAUSED)
        assert [watcher.next(STATUS).iteration for _ in range(2)] == [paused.iteration] * 2

        saved = watcher.call(SaveCheckpoint, "learner_node/save_checkpoint")
        assert saved.success, saved.message
        assert saved.path.startswith(str(tmp_path / "runs" / run_id))
        assert saved_iteration(saved.path) == paused.iteration

        assert watcher.call(SetRunState, "learner_node/set_run_state", command=1).success
        watcher.wait_until(lambda newest: newest[STATUS].iteration > paused.iteration)
        assert not watcher.call(SetRunState, "learner_node/set_run_state", command=9).success

        assert watcher.call(SetRunState, "learner_node/set_run_state", command=2).success
        result = group.wait(LEARNER, TIMEOUT_S, others_may_end=True)
        assert set(end_codes(group).values()) == {0}
    assert result["slot_mismatches"] == 0
    assert result["run_dir"] == str(tmp_path / "runs" / run_id)
    assert watcher.wait_for_state(LearnerStatus.FINISHED).workers_alive == 0
    assert not run_folder(run_id).exists()


def saved_iteration(checkpoint):
    return json.loads((Path(checkpoint) / "state.json").read_text())["iteration"]


def check_learner(status, run_id):
    assert status.run_id == run_id
    assert len(status.schema_hash) == 16
    assert status.env_steps == (1 + status.iteration) * 8 * 8 > 0
    assert status.iterations_total == 100000
    assert status.env_steps_per_second > 0.0
    assert status.eta_s > 0.0
    assert 0.0 < status.fraction_rollout + status.fraction_update <= 1.0
    assert status.policy_version == status.iteration
    assert (status.num_workers, status.workers_alive) == (2, 2)


def check_workers(workers, learner):
    assert [worker.worker for worker in workers] == [0, 1]
    for worker in workers:
        assert worker.run_id == learner.run_id
        assert (worker.num_envs, worker.horizon) == (4, 8)
        assert worker.state == SimWorkerStatus.RUNNING
        assert worker.steps > 0
        assert 1 <= worker.slot <= 8
        assert worker.policy_lag <= 1  # one worker may have begun the next rollout already
        shares = worker.fraction_simulating + worker.fraction_rendering + worker.fraction_waiting
        assert 0.0 <= shares <= 3.0


def check_scene(newest):
    joints, image = newest["joint_states"], newest["camera/depth/image_raw"]
    assert tuple(joints.name) == JOINT_NAMES
    assert len(joints.position) == 23 and all(map(math.isfinite, joints.position))
    assert (image.height, image.width, image.encoding) == (24, 32, "16UC1")
    depth = np.frombuffer(image.data, np.uint16)
    assert depth[depth > 0].min() >= 200 and depth.max() <= 950  # mm, the camera's near and far
    namespaces = [marker.ns for marker in newest["markers"].markers]
    assert namespaces[:5] == ["table", "object", "goal", "workspace", "status"]


def test_a_lost_worker_fails_the_run(watcher, tmp_path):
    overrides = [*SMALL, "simulators.restarts=0"]
    nodes = train_nodes(SMOKE, runs=tmp_path / "runs", overrides=overrides)
    run_id = nodes[0].parameters["run_id"]
    with NodeGroup(nodes, os.environ, tmp_path) as group:
        watcher.wait_for_state(LearnerStatus.RUNNING)
        watcher.wait_until(lambda newest: set(WORKERS) <= set(newest))
        os.kill(RunObserver(run_id).statuses()[1].pid, signal.SIGKILL)
        failed = watcher.wait_for_state(LearnerStatus.FAILED)
        assert end_codes(group) == {LEARNER: 1, "sim_worker_0": 0, "sim_worker_1": 1}
    assert "worker 1 died" in failed.message
    assert failed.checkpoint
    assert not run_folder(run_id).exists()


@pytest.fixture
def start_learner(tmp_path):
    processes = []

    def start(**parameters) -> subprocess.Popen:
        file = tmp_path / "learner.yaml"
        file.write_text(yaml.safe_dump({LEARNER: {"ros__parameters": parameters}}))
        command = [sys.executable, "-m", "dexgrasp_learner.nodes.learner_node"]
        command += ["--ros-args", "--params-file", str(file)]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(watcher, start_learner, tmp_path, number):
    overrides = [*SMALL, "simulators.transport=in_process"]
    process = start_learner(
        config=str(SMOKE), runs=str(tmp_path), run_id="ends", overrides=overrides
    )
    running = watcher.wait_for_state(LearnerStatus.RUNNING)
    assert running.run_id == "ends"
    check_parameter_file(watcher)
    process.send_signal(number)
    assert process.wait(TIMEOUT_S) == 0
    assert saved_iteration(tmp_path / "ends" / "checkpoints" / "latest") >= running.iteration


def check_parameter_file(watcher):
    file = ROOT / "ros2_ws/src/dexgrasp_learner/config/learner_node.yaml"
    values = yaml.safe_load(file.read_text())[LEARNER]["ros__parameters"]
    names = watcher.call(ListParameters, "learner_node/list_parameters").result.names
    assert set(values) <= set(names)


def test_a_wrong_config_is_named(start_learner, tmp_path):
    process = start_learner(config=str(SMOKE), runs=str(tmp_path), overrides=["sed=1"])
    assert process.wait(TIMEOUT_S) == 2
    assert "sed" in process.stderr.read()
    assert not any(tmp_path.glob("smoke*"))


def test_plan_has_a_node_for_each_worker():
    learner, *workers = train_nodes(SMOKE, run_id="x", runs="/somewhere", env_index=9)
    assert learner == NodeSpec(
        "dexgrasp_learner",
        LEARNER,
        LEARNER,
        {"run_id": "x", "runs": "/somewhere", "config": str(SMOKE)},
    )
    assert [node.name for node in workers] == ["sim_worker_0", "sim_worker_1"]
    assert [node.parameters["worker"] for node in workers] == [0, 1]
    assert {node.parameters["run_id"] for node in workers} == {"x"}
    # 16 environments: 8 to 15 are worker 1's
    assert [node.parameters.get("env_index") for node in workers] == [None, 9]
    assert json.loads(workers[0].parameters["task"])["control_hz"] == 15.0


def test_plan_resumes_a_run_under_its_name(tmp_path):
    folder = tmp_path / "smoke_1"
    folder.mkdir()
    (folder / "config.yaml").write_text("simulators: {num_workers: 3, num_envs: 12}")
    nodes = train_nodes(resume=folder, overrides=["seed=3"])
    assert nodes[0].parameters["run_id"] == "smoke_1"
    assert nodes[0].parameters["resume"] == str(folder)
    assert nodes[0].parameters["overrides"] == ["seed=3"]
    assert "config" not in nodes[0].parameters
    assert len(nodes) == 1 + 3


def test_plan_goes_back_to_a_checkpoint_of_a_run(tmp_path):
    checkpoint = tmp_path / "smoke_1" / "checkpoints" / "iteration_000004"
    checkpoint.mkdir(parents=True)
    (tmp_path / "smoke_1" / "config.yaml").write_text("simulators: {num_workers: 3, num_envs: 12}")
    nodes = train_nodes(resume=checkpoint)
    assert nodes[0].parameters["run_id"] == "smoke_1"
    assert nodes[0].parameters["resume"] == str(checkpoint)
    assert len(nodes) == 1 + 3


def test_plan_without_worker_processes_is_the_learner_alone():
    nodes = train_nodes(SMOKE, overrides=["simulators.transport=in_process"])
    assert [node.name for node in nodes] == [LEARNER]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({}, "nothing to train"), ({"config": SMOKE, "env_index": 16}, "0 to 15")],
)
def test_plan_refuses(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        train_nodes(**arguments)


def test_the_launch_file_offers_what_the_plan_takes():
    source = (ROOT / "ros2_ws/src/dexgrasp_learner/launch/train.launch.py").read_text()
    declared = re.findall(r'DeclareLaunchArgument\("(\w+)"', re.sub(r"\(\s+", "(", source))
    assert set(declared) == {*inspect.signature(train_nodes).parameters, "rviz"}


def test_status_message():
    control = RunControl()
    first = learner_status(control, "run", Time())
    assert (first.state, first.run_id) == (LearnerStatus.STARTING, "run")
    assert math.isnan(first.eta_s) and math.isnan(first.episode_success)
    control.status = RunStatus(
        RunState.RUNNING, iteration=4, iterations=10, env_steps=400, env_steps_per_s=50.0
    )
    running = learner_status(control, "run", Time())
    assert running.eta_s == 6 * 100 / 50.0
    control.stop()
    assert learner_status(control, "run", Time()).state == LearnerStatus.STOPPING
    control.status = RunStatus(RunState.FAILED, message="broken")
    failed = learner_status(control, "run", Time())
    assert (failed.state, failed.message) == (LearnerStatus.FAILED, "broken")


def test_states_have_the_messages_numbers():
    assert {state.name: state.value for state in RunState} == {
        state.name: getattr(LearnerStatus, state.name) for state in RunState
    }
