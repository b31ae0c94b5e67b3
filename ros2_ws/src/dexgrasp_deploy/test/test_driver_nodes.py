"""The driver nodes on topics: what they publish, and which commands they refuse."""

import json
import uuid

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from dexgrasp_deploy.nodes.camera_node import CameraNode
from dexgrasp_deploy.nodes.robot_driver_node import RobotDriverNode
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.conversions import to_joint_state
from dexgrasp_sim.nodes.qos import COMMAND, LATCHED, NEWEST
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow


class Bench:
    """Nodes under test and a listener in one executor."""

    def __init__(self):
        self.executor = SingleThreadedExecutor()
        self.nodes = []
        self.listener = rclpy.create_node(f"listener_{uuid.uuid4().hex[:8]}")
        self.executor.add_node(self.listener)
        self.heard = {}

    def add(self, node_class):
        node = node_class()
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def listen(self, message_type, topic, qos=NEWEST):
        self.heard[topic] = []
        self.listener.create_subscription(message_type, topic, self.heard[topic].append, qos)

    def until(self, condition, what):
        wait_until(condition, what, meanwhile=lambda: self.executor.spin_once(timeout_sec=0.05))

    def newest(self, topic):
        self.heard[topic].clear()
        self.until(lambda: self.heard[topic], topic)
        return self.heard[topic][-1]

    def positions(self):
        message = self.newest("joint_states")
        return dict(zip(message.name, message.position, strict=True))

    def close(self):
        self.executor.shutdown()
        for node in (*self.nodes, self.listener):
            node.destroy_node()


@pytest.fixture
def make_bench(bundle_folder):
    """Makes a bench; parameters are for all nodes or, as `node:name`, for one."""
    benches = []

    def make(parameters=None):
        values = {"bundle": bundle_folder, **(parameters or {})}
        arguments = [word for key, value in values.items() for word in ("-p", f"{key}:={value}")]
        rclpy.init(args=["--ros-args", *arguments])
        benches.append(Bench())
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()
    rclpy.try_shutdown()


def command(names, positions):
    return to_joint_state(names, positions, [], rclpy.clock.Clock().now().to_msg())


def test_robot_driver_publishes_and_obeys_by_name(make_bench, bundle, robot):
    bench = make_bench()
    bench.add(RobotDriverNode)
    bench.listen(JointState, "joint_states")
    bench.listen(JointState, "joint_command_echo")
    bench.listen(String, "robot_description", LATCHED)
    bench.listen(DiagnosticArray, "/diagnostics")
    publisher = bench.listener.create_publisher(JointState, "joint_command", COMMAND)
    start = dict(zip(robot.joint_names, bundle.manifest.robot.start_position_rad, strict=True))
    assert bench.positions() == pytest.approx(start)
    bench.until(lambda: bench.heard["robot_description"], "the URDF")
    assert "<robot" in bench.heard["robot_description"][0].data
    levels = [status.level for status in bench.newest("/diagnostics").status]
    assert levels == [b"\x00", b"\x00"]

    bench.until(lambda: publisher.get_subscription_count() == 1, "the driver")
    publisher.publish(command(["thumb_joint_1", "iiwa7_joint_4"], [0.5, -1.25]))
    wanted = start | {"thumb_joint_1": 0.5, "iiwa7_joint_4": -1.25}
    bench.until(lambda: bench.positions() == pytest.approx(wanted), "the motion")
    echo = bench.newest("joint_command_echo")
    assert dict(zip(echo.name, echo.position, strict=True)) == {
        "thumb_joint_1": 0.5,
        "iiwa7_joint_4": -1.25,
    }


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (["iiwa7_joint_1", "joint_of_another_robot"], [0.1, 0.1]),
        (["iiwa7_joint_1"], [float("nan")]),
        (["iiwa7_joint_1", "iiwa7_joint_2"], [0.1]),
    ],
    ids=["unknown joint", "nan", "lengths"],
)
def test_robot_driver_refuses_bad_commands(make_bench, names, positions):
    bench = make_bench()
    node = bench.add(RobotDriverNode)
    bench.listen(JointState, "joint_states")
    before = bench.positions()
    publisher = bench.listener.create_publisher(JointState, "joint_command", COMMAND)
    bench.until(lambda: publisher.get_subscription_count() == 1, "the driver")
    publisher.publish(command(names, positions))
    bench.until(lambda: node.refused_commands == 1, "the refusal")
    assert bench.positions() == before


def test_simulated_world_on_topics(make_bench):
    bench = make_bench({"arm.driver": "sim", "hand.driver": "sim", "seed": 3})
    bench.add(RobotDriverNode)
    bench.listen(JointState, "joint_states")
    bench.listen(PoseStamped, "sim/object_pose")
    bench.listen(String, "sim/object_name", LATCHED)
    bench.listen(MarkerArray, "markers")
    reset = bench.listener.create_client(Trigger, "sim/reset")
    bench.until(reset.service_is_ready, "sim/reset")
    names = []
    for number in range(2):
        future = reset.call_async(Trigger.Request())
        bench.until(future.done, "the reset")
        episode = json.loads(future.result().message)
        assert (episode["seed"], episode["episode"]) == (3, number)
        names.append(episode["object"])
        bench.until(
            lambda name=names[-1]: bench.heard["sim/object_name"][-1].data == name, "the name"
        )
        pose = bench.newest("sim/object_pose")
        assert pose.header.frame_id == "base"
        assert pose.pose.position.z == pytest.approx(episode["start_height_m"], abs=0.01)
        stamps = [message.header.stamp for message in bench.heard["joint_states"]]
        assert pose.header.stamp in stamps, "object and joints are of one moment"
    assert names == ["box", "cylinder"]
    namespaces = [marker.ns for marker in bench.newest("markers").markers]
    assert namespaces == ["object"]


def test_mock_camera_on_topics(make_bench, bundle):
    bench = make_bench({"camera.rate_hz": 20.0})
    bench.add(CameraNode)
    bench.listen(Image, "camera/depth/image_raw")
    bench.listen(CameraInfo, "camera/depth/camera_info")
    image = bench.newest("camera/depth/image_raw")
    assert (image.encoding, image.height, image.width) == ("16UC1", 24, 32)
    info = bench.newest("camera/depth/camera_info")
    assert info.k[0] == pytest.approx(bundle.manifest.task.camera.focal_px)
    assert info.header.frame_id == "camera_depth_optical_frame"


def test_simulated_stereo_camera_follows_the_world(make_bench, bundle):
    robot = {"robot_driver_node:arm.driver": "sim", "robot_driver_node:hand.driver": "sim"}
    camera = {"camera_node:camera.driver": "sim", "camera_node:camera.kind": "stereo_rgb"}
    bench = make_bench(robot | camera)
    bench.add(RobotDriverNode)
    bench.add(CameraNode)
    for side in ("left", "right"):
        bench.listen(Image, f"camera/{side}/image_raw")
        bench.listen(CameraInfo, f"camera/{side}/camera_info")
    bench.listen(JointState, "joint_states")
    left = bench.newest("camera/left/image_raw")
    bench.until(lambda: bench.heard["camera/right/image_raw"], "the right image")
    right = bench.heard["camera/right/image_raw"][-1]
    assert left.encoding == right.encoding == "rgb8"
    assert np.any(np.array(left.data) != np.array(right.data))
    task = bundle.manifest.task
    projection = bench.newest("camera/right/camera_info").p
    assert projection[3] == pytest.approx(-task.camera.focal_px * task.stereo_baseline_m)
    assert bench.newest("camera/left/camera_info").p[3] == 0.0


@pytest.mark.parametrize(
    ("node_class", "parameters", "message"),
    [
        (RobotDriverNode, {"arm.driver": "kuka"}, "not one of mock, sim"),
        (RobotDriverNode, {"arm.topics": 1}, "unknown key `topics`"),
        (RobotDriverNode, {"state_rate": 30.0}, "unknown parameter state_rate"),
        (RobotDriverNode, {"state_rate_hz": 0.0}, "state_rate_hz = 0.0: must be positive"),
        (CameraNode, {"camera.rate_hz": -1.0}, "greater than 0"),
        (CameraNode, {"bundle": "nowhere"}, "no bundle here"),
    ],
)
def test_wrong_parameters_are_named(make_bench, node_class, parameters, message):
    make_bench(parameters)
    with pytest.raises(ConfigError, match=message):
        node_class()
