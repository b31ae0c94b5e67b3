"""Shadow mode and recording of a deployment of real nodes, and what is read from the files."""

import json
import uuid
from contextlib import contextmanager
from dataclasses import replace

import pytest
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from dexgrasp_deploy.commands.cli import main
from dexgrasp_deploy.processes import deploy_nodes
from dexgrasp_deploy.recording.reading import read_recording
from dexgrasp_deploy.recording.replay import Comparison
from dexgrasp_msgs.action import Grasp
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.bringup import NodeGroup
from dexgrasp_sim.nodes.qos import COMMAND, NEWEST
from dexgrasp_sim.ros_environment import ros_environment
from test_support.waiting import wait_until

RELAXED = {"freshness": {"max_joint_age_s": 5.0, "max_image_age_s": 5.0}}
RECORDER = {"min_free_mb": 0.0, "after_fault_s": 0.2}


class Client:
    """Sends goals to the policy and hears what it says."""

    def __init__(self, context):
        self.node = rclpy.create_node(f"client_{uuid.uuid4().hex[:8]}", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.commands, self.safe, self.statuses = [], [], []
        self.listen(JointState, "joint_command", self.commands, COMMAND)
        self.listen(PolicyStatus, "policy/status", self.statuses, NEWEST)
        self.grasp = ActionClient(self.node, Grasp, "grasp")

    def listen(self, kind, topic, kept, qos):
        self.node.create_subscription(kind, topic, kept.append, qos)

    def until(self, condition, what):
        wait_until(condition, what, meanwhile=lambda: self.executor.spin_once(timeout_sec=0.05))

    def result(self, future):
        self.until(future.done, "an answer")
        return future.result()

    def trigger(self, name):
        client = self.node.create_client(Trigger, name)
        self.until(client.service_is_ready, name)
        return self.result(client.call_async(Trigger.Request()))

    def run_episode(self):
        """Sends goals until an episode begins: first measurements may lack."""
        self.until(self.grasp.server_is_ready, "the action server")

        def episode():
            handle = self.result(self.grasp.send_goal_async(Grasp.Goal()))
            self.last = self.result(handle.get_result_async()).result
            return self.last.steps

        self.until(episode, "an episode")
        return self.last

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()


@contextmanager
def deployment(folder, bundle_folder, calibration="", **options):
    recorder = {**RECORDER, "calibration": calibration}
    own = {"policy_node": RELAXED, "recorder_node": recorder}
    specs = [
        replace(spec, parameters={**spec.parameters, **own.get(spec.name, {})})
        for spec in deploy_nodes("mock", bundle_folder, **options)
    ]
    context = rclpy.Context()
    rclpy.init(context=context)
    with NodeGroup(specs, ros_environment(), folder):
        client = Client(context)
        yield client
        client.close()
    rclpy.try_shutdown(context=context)


@pytest.mark.slow
def test_in_shadow_no_message_appears_on_the_command_topic(bundle_folder, tmp_path):
    with deployment(tmp_path, bundle_folder, shadow=True) as client:
        client.listen(JointState, "policy/safe", client.safe, COMMAND)
        steps = []
        client.listen(PolicyStatus, "policy/step", steps, COMMAND)
        client.until(lambda: client.node.count_publishers("policy/step"), "the policy")
        assert client.run_episode().steps == 18
        client.until(lambda: client.safe and steps, "what would be sent")
        client.until(
            lambda: "shadow: no command leaves" in client.statuses[-1].message, "the status"
        )
        assert client.trigger("policy/home").success
        client.until(lambda: client.trigger("policy/open_hand").success, "the end of the way home")
        assert client.node.count_publishers("joint_command") == 0
    assert client.commands == []


@pytest.fixture(scope="module")
def recorded(bundle_folder, tmp_path_factory):
    """Folder of a recorded episode and of the black box of the fault that followed."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "run").mkdir()
    (folder / "lens").mkdir()
    (folder / "lens" / "left.yaml").write_text("focal: 600\n")
    options = {"record": folder / "out", "calibration": str(folder / "lens")}
    with deployment(folder / "run", bundle_folder, **options) as client:
        for topic, readers in (("policy/step", 1), ("camera/depth/image_raw", 2)):
            client.until(
                lambda: client.node.count_subscribers(topic) >= readers,  # noqa: B023
                f"the recorder to listen to {topic}",
            )
        assert client.run_episode().steps == 18
        assert client.trigger("policy/estop").success
        client.until(lambda: [*folder.glob("out/*_black_box/metadata.yaml")], "the black box")
    (recording,) = folder.glob("out/*_recording")
    (black_box,) = folder.glob("out/*_black_box")
    return recording, black_box


@pytest.mark.slow
def test_a_recording_has_all_topics_and_says_where_it_comes_from(recorded, bundle):
    for path in recorded:
        with AnyReader([path]) as reader:
            counts = {topic: info.msgcount for topic, info in reader.topics.items()}
            (about,) = [c for c in reader.connections if c.topic == "/recording/about"]
            texts = [
                json.loads(reader.deserialize(data, about.msgtype).data)
                for _, _, data in reader.messages(connections=[about])
            ]
        for topic in ("joint_states", "joint_command", "camera/depth/image_raw"):
            assert counts[f"/{topic}"] > 10, counts
        for topic in ("step", "measured", "decoded", "safe", "image_time"):
            assert counts[f"/policy/{topic}"] >= 18
        assert counts["/policy/status"] and counts["/camera/depth/camera_info"]
        assert texts[-1]["bundle_id"] == bundle.manifest.bundle_id
        assert texts[-1]["parameters"]["policy_node"]["freshness.max_joint_age_s"] == 5.0
        assert texts[-1]["version"]
        assert list(texts[-1]["calibration"].values()) == ["focal: 600\n"]


@pytest.mark.slow
def test_a_replay_gives_the_same_actions_and_targets(recorded, bundle, bundle_folder, capsys):
    for path in recorded:
        assert main(["replay", str(path), "--bundle", str(bundle_folder), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["recorded_bundle"] == report["bundle"] == bundle.manifest.bundle_id
        (episode,) = report["episodes"]
        assert (episode["steps"], episode["complete"], episode["without_image"]) == (18, True, 0)
        assert episode["first_difference"] is None
        assert report["max"] < 1e-5 and episode["max_target_rad"] < 1e-5
        assert max(abs(step.action).max() for step in read_recording(path).episodes[0].steps) > 0
    assert main(["replay", str(path), "--bundle", str(bundle_folder)]) == 0
    assert "18" in capsys.readouterr().out.splitlines()[2]


@pytest.mark.slow
def test_the_latency_report_is_in_the_recording(recorded, capsys):
    recording, _ = recorded
    assert main(["latency", str(recording), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    for stage in ("exposure to arrival", "inference", "safety", "publishing", "image to command"):
        assert report["stages"][stage]["count"] > 0
    assert report["stages"]["inference"]["count"] == 18
    assert set(report["task"]["latency"]) == {
        "action_delay_s",
        "joint_age_steps",
        "image_age_steps",
    }


def test_the_first_step_that_differs_is_named():
    comparison = Comparison([0.0, 1e-6, 0.3, 0.5], ["x", "x", "y", "z"], [0.0] * 4)
    found = comparison.as_dict(tolerance=1e-4)
    assert (found["first_difference"], found["steps_that_differ"]) == (3, 2)
    assert (found["max"], found["mean"]) == (0.5, pytest.approx(0.20000025))


@pytest.mark.parametrize("content", [None, "metadata.yaml"])
def test_what_is_no_recording_is_refused_in_one_line(bundle_folder, tmp_path, capsys, content):
    if content:
        (tmp_path / content).write_text("nothing: here\n")
    assert main(["replay", str(tmp_path), "--bundle", str(bundle_folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path) in error
