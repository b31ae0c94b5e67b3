"""Every topic profile against a node that speaks that driver's real topics, names and order."""

import time

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from dexgrasp_deploy.drivers.base import DriverContext, Level
from dexgrasp_deploy.drivers.registry import make_driver, profiles
from dexgrasp_deploy.nodes.camera_node import CameraNode
from dexgrasp_deploy.nodes.robot_driver_node import RobotDriverNode
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.nodes.qos import COMMAND, NEWEST
from dexgrasp_sim.robot.robot import load_robot
from test_support.camera_peer import HEIGHT, WIDTH, CameraPeer, image
from test_support.robot_peer import BEST_EFFORT, RELIABLE, RobotPeer
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

LBR = [f"lbr_A{i}" for i in range(1, 8)]
FR3 = [f"fr3_joint{i}" for i in range(1, 8)]
WONIK = [f"ah_joint{finger}{joint}" for finger in range(4) for joint in range(4)]
V5 = [f"joint_{i}_0" for i in range(16)]
FINGERS = [f"{f}_joint_{i}" for f in ("index", "middle", "ring", "thumb") for i in range(4)]
THUMB_FIRST = FINGERS[12:] + FINGERS[:12]
IIWA = [f"iiwa7_joint_{i}" for i in range(1, 8)]
KUKA = [f"joint_{i}" for i in range(7)]
WONIK_QOS = rclpy.qos.QoSProfile(depth=3)
ONE = rclpy.qos.QoSProfile(depth=1)

PEERS = {
    ("arm", "lbr"): (
        *("kuka_allegro", LBR, IIWA, "/lbr/joint_states"),
        *("/lbr/forward_position_controller/commands", True, RELIABLE, RELIABLE),
    ),
    ("arm", "franka"): (
        *("franka_leap", FR3, FR3, "/franka/joint_states"),
        *("/forward_position_controller/commands", True, BEST_EFFORT, RELIABLE),
    ),
    ("hand", "wonik_ros2"): (
        *("kuka_allegro", WONIK, THUMB_FIRST, "/joint_states"),
        *("/allegro_hand_position_controller/commands", True, RELIABLE, RELIABLE),
    ),
    ("hand", "wonik_v5"): (
        *("kuka_allegro", V5, FINGERS, "/allegroHand_0/joint_states"),
        *("/allegroHand/joint_cmd", False, WONIK_QOS, WONIK_QOS),
    ),
    ("arm", "dextrah"): (
        *("kuka_allegro", KUKA, IIWA, "/kuka/joint_states"),
        *("/kuka/joint_commands", False, ONE, ONE),
    ),
    ("hand", "dextrah"): (
        *("kuka_allegro", FINGERS, FINGERS, "/allegro/joint_states"),
        *("/allegro/joint_commands", False, ONE, ONE),
    ),
}
"""Robot, the driver's names in its order, ours in that order, topics, kind of command, QoS."""

FIRST = {"thumb_joint_0": 0.5, "fr3_joint4": -1.0, "fr3_joint6": 1.0}
"""rad, for joints whose limits do not contain a small angle."""


def peer_of(key):
    _, names, _, states, commands, forward, state_qos, command_qos = PEERS[key]
    return RobotPeer(
        names, states, commands, forward=forward, state_qos=state_qos, command_qos=command_qos
    )


@pytest.fixture
def node():
    rclpy.init(args=["--ros-args", "-r", "__ns:=/dexgrasp"])
    node = rclpy.create_node("robot_driver_node")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def configured(node, kind, name, **parameters):
    robot = load_robot(
        "franka_leap" if name == "leap" else PEERS.get((kind, name), ("kuka_allegro",))[0]
    )
    driver = make_driver(kind, name)
    driver.configure(
        DriverContext(robot, time.monotonic, node=node), {"connect_timeout_s": 60.0} | parameters
    )
    return driver


def until(node, condition, what):
    wait_until(condition, what, meanwhile=lambda: rclpy.spin_once(node, timeout_sec=0.05))


def test_every_profile_of_joints_has_a_peer():
    found = {(p.kind, p.name) for p in profiles() if p.kind != "camera"}
    assert found == {*PEERS, ("hand", "leap")}


@pytest.mark.parametrize("key", PEERS, ids="-".join)
def test_profile_reads_and_moves_each_joint_by_name(node, key):
    ours = PEERS[key][2]
    with peer_of(key) as peer:
        expected = {name: FIRST.get(name, 0.01 * (1 + i)) for i, name in enumerate(ours)}
        peer.position = list(expected.values())
        driver = configured(node, *key)
        sample = driver.read()
        assert sample.names == driver.joint_names
        assert dict(zip(sample.names, sample.position.tolist())) == pytest.approx(expected)
        np.testing.assert_allclose(sample.velocity, 0.25)
        assert (sample.effort is None) == (key[1] == "wonik_v5")
        for joint in (ours[0], ours[5]):
            expected[joint] += 0.1
            driver.write({joint: expected[joint]})
            until(
                node,
                lambda: dict(zip(ours, peer.position)) == pytest.approx(expected),
                f"the motion of {joint}",
            )
        assert driver.health().level is Level.OK
        driver.deactivate()


def changed(**fields):
    """A change of every message of the peer."""

    def change(message):
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return change


def test_a_device_that_has_gone_or_garbles_is_reported(node):
    with peer_of(("arm", "lbr")) as peer:
        driver = configured(node, "arm", "lbr")
        until(node, lambda: driver.health().level is Level.OK, "a healthy arm")
        before = driver.read()
        peer.change = changed(name=[*LBR[:6], "lbr_A8"])
        until(node, lambda: "lbr_A7 missing" in driver.health().message, "the missing joint")
        peer.change = lambda message: message
        until(node, lambda: driver.health().level is Level.OK, "the recovery")
        peer.change = lambda message: None
        until(
            node,
            lambda: "no joint states on /lbr/joint_states" in driver.health().message,
            "the silence",
        )
        assert driver.read().stamp_s > before.stamp_s


def test_a_second_commander_is_reported_and_refused(node):
    with peer_of(("arm", "lbr")) as peer:
        driver = configured(node, "arm", "lbr")
        other = peer.node.create_publisher(
            Float64MultiArray, "/lbr/forward_position_controller/commands", 1
        )
        until(node, lambda: "/robot_peer commands" in driver.health().message, "the other")
        driver.deactivate()
        with pytest.raises(ConfigError, match=r"/robot_peer commands .* too"):
            configured(node, "arm", "lbr")
        peer.node.destroy_publisher(other)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ([0.0] * 5 + [-90.0, 0.0], "iiwa7_joint_6 measures -90 rad.*is it in degrees"),
        ([3.5] + [0.0] * 6, r"iiwa7_joint_1 measures 3.5 rad.*check arm.sign and arm.offset_rad"),
        ([float("nan")] + [0.0] * 6, "iiwa7_joint_1 measures nan"),
        ([0.0] * 6, "7 names and 6 values of position"),
    ],
    ids=["degrees", "offset", "nan", "lengths"],
)
def test_what_no_robot_measures_is_refused_at_the_start(node, position, message):
    with peer_of(("arm", "lbr")) as peer:
        peer.position = position
        with pytest.raises(ConfigError, match=message):
            configured(node, "arm", "lbr")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "franka",
            {"state.qos.reliability": "reliable"},
            "quality of service of robot_peer: published best effort, subscribed reliable",
        ),
        (
            "lbr",
            {"command.type": "sensor_msgs/msg/JointState"},
            "robot_peer has the type std_msgs/msg/Float64MultiArray, not sensor_msgs",
        ),
    ],
    ids=["quality of service", "type"],
)
def test_a_peer_that_does_not_fit_is_named(node, name, parameters, message):
    with peer_of(("arm", name)), pytest.raises(ConfigError, match=message):
        configured(node, "arm", name, **parameters)


def test_joints_of_another_device_on_the_same_topic_are_passed_over(node):
    """As where a hand and an arm share /joint_states."""
    with peer_of(("arm", "lbr")) as peer:
        hand = peer.node.create_publisher(JointState, "/lbr/joint_states", RELIABLE)
        message = JointState(name=["hand_joint"], position=[1.0])
        peer.node.create_timer(0.01, lambda: hand.publish(message))
        driver = configured(node, "arm", "lbr")
        for _ in range(20):
            rclpy.spin_once(node, timeout_sec=0.05)
            assert "missing" not in driver.health().message
        peer.change = lambda message: None
        driver.deactivate()
        with pytest.raises(ConfigError, match="the messages there have hand_joint"):
            configured(node, "arm", "lbr", connect_timeout_s=5.0)


@pytest.mark.parametrize(
    ("kind", "name", "parameters", "message"),
    [
        ("arm", "lbr", {}, "arm: no joint states on /lbr/joint_states: nobody publishes"),
        ("hand", "leap", {}, "the package leap_hand is not installed; build it in the workspace"),
        ("arm", "ros2_control", {}, "arm.joint_names is empty"),
        ("arm", "lbr", {"command.topic": ""}, "arm.command.topic is empty"),
        ("arm", "lbr", {"urdf_names": LBR}, "robot has iiwa7_joint_1"),
        ("arm", "lbr", {"sign": [1, -1]}, "sign has 2 entries and joint_names 7"),
        ("arm", "lbr", {"state.topic": "joint_states"}, "start dexgrasp in a namespace"),
        ("arm", "lbr", {"topic": "/x"}, "unknown key `topic`"),
        ("arm", "lbr", {"state.topic.name": "/x"}, "`topic` has no keys below it"),
        (
            "arm",
            "lbr",
            {"command.type": "lbr_fri_idl/msg/LBRJointPositionCommand"},
            "not one of std_msgs/msg/Float64MultiArray",
        ),
        (
            "hand",
            "wonik_ros2",
            {"state.type": "std_srvs/srv/Trigger", "state.topic": "/positions"},
            "its answer has no numbers position, velocity, effort",
        ),
        ("arm", "lbr", {"state.type": "no_type"}, "arm.state.type = 'no_type': not sensor_msgs"),
        ("arm", "lbr", {"state.topic": "/a b"}, "state.topic"),
        (
            "hand",
            "wonik_ros2",
            {"state.type": "no_such_hand/srv/Position"},
            "the package no_such_hand is not installed; build it .* ros-.ROS_DISTRO-no-such-hand",
        ),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(node, kind, name, parameters, message):
    with pytest.raises(ConfigError, match=message) as caught:
        configured(node, kind, name, **{"connect_timeout_s": 1.0, **parameters})
    assert "\n" not in str(caught.value)


def test_the_nodes_drive_a_robot_and_a_camera_named_by_parameters(bundle_folder):
    """What a user starts: profiles chosen by ROS parameters, commands and states through DDS."""
    drivers = {
        "robot_driver_node:arm.driver": "lbr",
        "robot_driver_node:hand.driver": "wonik_v5",
        "camera_node:camera.driver": "realsense_node",
        "robot_driver_node:arm.connect_timeout_s": 60.0,
        "robot_driver_node:hand.connect_timeout_s": 60.0,
        "camera_node:camera.connect_timeout_s": 60.0,
        "bundle": bundle_folder,
    }
    words = [word for key, value in drivers.items() for word in ("-p", f"{key}:={value}")]
    rclpy.init(args=["--ros-args", *words])
    executor = SingleThreadedExecutor()
    nodes = []
    depth = np.full((HEIGHT, WIDTH), 800, np.uint16)
    camera = CameraPeer(BEST_EFFORT)
    camera.add("/camera/camera/depth/image_rect_raw", lambda number: image(depth, "16UC1"))
    camera.add_info("/camera/camera/depth/camera_info")
    try:
        with peer_of(("arm", "lbr")) as arm, peer_of(("hand", "wonik_v5")) as hand, camera:
            hand.position[12] = 0.5
            nodes += [RobotDriverNode(), CameraNode(), rclpy.create_node("listener")]
            for node in nodes:
                executor.add_node(node)
            states, images = [], []
            listener = nodes[-1]
            listener.create_subscription(JointState, "joint_states", states.append, NEWEST)
            listener.create_subscription(Image, "camera/depth/image_raw", images.append, NEWEST)
            command = listener.create_publisher(JointState, "joint_command", COMMAND)
            message = JointState(name=["thumb_joint_0", "iiwa7_joint_2"], position=[0.75, 0.125])

            def turn():
                command.publish(message)
                executor.spin_once(timeout_sec=0.05)

            def positions():
                return dict(zip(states[-1].name, states[-1].position)) if states else {}

            def moved():
                return (arm.position[1], hand.position[12]) == (0.125, 0.75)

            wait_until(moved, "the motion", meanwhile=turn)
            wanted = dict(zip(message.name, message.position))
            wait_until(lambda: wanted.items() <= positions().items(), "states", meanwhile=turn)
            efforts = dict(zip(states[-1].name, states[-1].effort))
            assert efforts["iiwa7_joint_1"] == 0.5
            assert np.isnan(efforts["thumb_joint_0"]), "the V5 reports what was commanded"
            wait_until(lambda: images, "an image", meanwhile=turn)
            assert set(np.frombuffer(images[-1].data, np.uint16)) == {800}
    finally:
        executor.shutdown()
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
