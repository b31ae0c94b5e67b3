"""What displays get of a deployment: the whole graph over real DDS, against deploy.rviz."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Point
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, JointState
from visualization_msgs.msg import Marker

from dexgrasp_deploy.nodes.display.policy_markers import PolicyMarkers
from dexgrasp_deploy.nodes.display.robot_state import RobotState
from dexgrasp_deploy.processes import DISPLAY_NODE, deploy_nodes
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.bringup import NodeGroup
from dexgrasp_sim.nodes.conversions import to_camera_info, to_image, to_joint_state
from dexgrasp_sim.nodes.display.frames import optical_frame
from dexgrasp_sim.nodes.display.point_cloud import points_of
from dexgrasp_sim.nodes.display.robot_markers import CONTACTS, LIMITS
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from test_support.bundles import write
from test_support.displays import FrameTree, displays, fixed_frame, mismatch
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

RVIZ = Path(__file__).parents[1] / "rviz" / "deploy.rviz"
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
TASK = GraspConfig()


class Watcher:
    """A node that subscribes like rviz and keeps the newest message of each display."""

    def __init__(self):
        rclpy.init()
        self.node = rclpy.create_node("watcher")
        self.tree = FrameTree(self.node)
        self.newest = {}

    def listen(self, display):
        def take(message):
            if display.topic == "/markers":
                known = self.newest.setdefault("/markers", {})
                known.update({(marker.ns, marker.id): marker for marker in message.markers})
            else:
                self.newest[display.topic] = message

        self.node.create_subscription(display.kind, display.topic, take, display.qos)

    def until(self, condition, what):
        wait_until(condition, what, meanwhile=lambda: rclpy.spin_once(self.node, timeout_sec=0.1))

    def close(self):
        self.node.destroy_node()
        rclpy.shutdown()


@pytest.fixture
def watcher():
    watcher = Watcher()
    yield watcher
    watcher.close()


@pytest.fixture(scope="module")
def stereo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "stereo"
    write(folder, NetworkConfig(actor_groups=("proprio", "stereo_rgb"), hidden=(16,)))
    return folder


def test_rviz_gets_everything_of_a_simulated_robot(watcher, bundle_folder, robot, tmp_path):
    shown = list(displays(RVIZ))
    assert {each.prefix for each in shown if each.topic == "/robot_description"} == {
        "",
        "commanded",
    }
    with NodeGroup(deploy_nodes("sim", bundle_folder), os.environ, tmp_path):
        watcher.until(
            lambda: not any(mismatch(watcher.node, each) for each in shown),
            lambda: f"{[mismatch(watcher.node, each) for each in shown]}",
        )
        for each in shown:
            watcher.listen(each)
        newest = watcher.newest
        watcher.until(lambda: len(newest) == 4, lambda: f"more than {list(newest)}")
        namespaces = {"table", "workspace", "goal", "object", "status"}
        watcher.until(
            lambda: namespaces <= {ns for ns, _ in newest["/markers"]},
            lambda: f"more than {list(newest['/markers'])}",
        )
        watcher.until(lambda: len(watcher.tree.parents) >= len(robot.joints), "the frames")
    assert newest["/robot_description"].data == robot.urdf_path.read_text()
    root = fixed_frame(RVIZ)
    frames = {marker.header.frame_id for marker in newest["/markers"].values()}
    frames |= {newest[f"/display/{name}"].header.frame_id for name in ("image", "points")}
    for frame in frames | set(robot.frames):
        watcher.tree.pose(frame, root)

    picture = newest["/display/image"]
    assert picture.encoding == "rgb8" and picture.width >= 300
    points, colors = points_of(newest["/display/points"])
    pose = watcher.tree.pose(newest["/display/points"].header.frame_id)
    heights = points @ pose[2, :3] + pose[2, 3]
    top_m = TASK.table.top_m
    assert len(points) > 100 and len(np.unique(colors, axis=0)) > 10
    assert np.mean(np.abs(heights - top_m) < 0.03) > 0.2, "much of what it sees is the table"
    assert heights.min() > top_m - 0.1


def test_a_stereo_policy_has_one_picture_of_both_images(watcher, stereo_folder, tmp_path):
    shown = [each for each in displays(RVIZ) if each.topic == "/display/image"]
    with NodeGroup(deploy_nodes("mock", stereo_folder), os.environ, tmp_path):
        watcher.listen(*shown)
        watcher.until(lambda: watcher.newest, "a picture")
    picture = watcher.newest["/display/image"]
    assert picture.width > 2 * picture.height, "side by side"
    frames = [optical_frame(name) for name in ("left", "right")]
    watcher.until(lambda: set(frames) <= set(watcher.tree.parents), "the cameras")
    left, right = (watcher.tree.pose(frame) for frame in frames)
    assert np.linalg.norm(left[:3, 3] - right[:3, 3]) == pytest.approx(TASK.stereo_baseline_m)


def test_nothing_is_made_of_images_that_nobody_looks_at(watcher, bundle_folder, robot, tmp_path):
    """The camera is not even listened to, and what is commanded shows beside what is measured."""
    node = watcher.node
    [spec] = [each for each in deploy_nodes("mock", bundle_folder) if each.name == DISPLAY_NODE]
    images = node.create_publisher(Image, "camera/depth/image_raw", NEWEST)
    infos = node.create_publisher(CameraInfo, "camera/depth/camera_info", NEWEST)
    states = node.create_publisher(JointState, "joint_states", 1)
    commands = node.create_publisher(JointState, "joint_command", 1)
    joint = robot.hand_joints[1]
    by_topic = {each.topic: each for each in displays(RVIZ)}

    def publish():
        stamp = node.get_clock().now().to_msg()
        posture = dict(zip(robot.joint_names, robot.postures["pregrasp"]))
        states.publish(to_joint_state([*posture], [*posture.values()], [], stamp))
        posture[joint] += 0.3
        commands.publish(to_joint_state([*posture], [*posture.values()], [], stamp))
        image = to_image(np.full((24, 32), 500, np.uint16), optical_frame("depth"), stamp)
        infos.publish(to_camera_info(image, TASK.camera.focal_px))
        images.publish(image)

    def watch(condition, what):
        watcher.until(lambda: publish() or condition(), what)

    with NodeGroup([spec], os.environ, tmp_path):
        child = robot.joints[joint].child
        watch(lambda: {child, f"commanded/{child}"} <= set(watcher.tree.parents), "both robots")
        measured, commanded = (watcher.tree.parents[p + child] for p in ("", "commanded/"))
        assert measured[0] == commanded[0].removeprefix("commanded/")
        turn = measured[1][:3, :3].T @ commanded[1][:3, :3]
        assert np.arccos((np.trace(turn) - 1) / 2) == pytest.approx(0.3, abs=1e-6)
        assert images.get_subscription_count() == 0

        watcher.listen(by_topic["/markers"])
        watch(lambda: "/markers" in watcher.newest, "markers")
        fingers = [
            marker for (ns, _), marker in watcher.newest["/markers"].items() if ns == CONTACTS
        ]
        assert len(fingers) == 1, "the finger that stands short of its command touches something"
        assert fingers[0].lifetime.sec > 0, "it vanishes with its reason"

        display = by_topic["/display/points"]
        watcher.listen(display)
        watch(lambda: display.topic in watcher.newest, "points")
        points, _ = points_of(watcher.newest[display.topic])
        assert len(points) == 24 * 32
        np.testing.assert_allclose(points[:, 2], 0.5)
        focal_px = TASK.camera.focal_px
        np.testing.assert_allclose(points[0, 0], (0 - 15.5) / focal_px * 0.5, rtol=1e-5)


def status(state=PolicyStatus.RUNNING, place=(np.nan,) * 3, message="GRASP: goal accepted"):
    x, y, z = map(float, place)
    found = PolicyStatus(state=state, message=message)
    found.predicted_object_position = Point(x=x, y=y, z=z)
    return found


@pytest.fixture
def at_rest(robot):
    """The state of a robot that stands in the middle of all its ranges."""
    state = RobotState(robot)
    middle = (robot.lower + robot.upper) / 2
    state.measure(JointState(name=list(robot.joint_names), position=middle.tolist()))
    return state


def by_namespace(markers):
    found = {}
    for marker in markers:
        found.setdefault(marker.ns, []).append(marker)
    return found


def test_joints_near_their_limits_are_marked_where_they_are(robot, at_rest):
    markers = PolicyMarkers(robot, TASK)
    assert LIMITS not in by_namespace(markers.at(at_rest, None))
    for name, position in ((robot.arm_joints[3], robot.upper[3]), (robot.hand_joints[2], None)):
        index = robot.joint_names.index(name)
        near = robot.lower[index] + 0.03 * (robot.upper[index] - robot.lower[index])
        at_rest.measured[name] = float(near if position is None else position)
    arm, finger = by_namespace(markers.at(at_rest, None))[LIMITS]
    assert arm.color.g < 0.2 < finger.color.g, "red at the limit, amber near it"
    pose = at_rest.pose_of(robot.joints[robot.arm_joints[3]].child)
    np.testing.assert_allclose(
        [arm.pose.position.x, arm.pose.position.y, arm.pose.position.z], pose[:3, 3], atol=1e-6
    )
    assert arm.scale.x > finger.scale.x


def test_the_prediction_leaves_a_trail_and_vanishes_with_it(robot, at_rest):
    markers = PolicyMarkers(robot, TASK)
    assert "prediction" not in by_namespace(markers.at(at_rest, status()))
    for step in range(5):
        place = (-0.5, 0.1, 0.3 + 0.01 * step)
        found = by_namespace(markers.at(at_rest, status(place=place)))["prediction"]
    believed, trail = found
    assert believed.pose.position.z == pytest.approx(0.34)
    assert (trail.type, len(trail.points)) == (Marker.LINE_STRIP, 5)
    assert markers.at(at_rest, status()) and "prediction" not in by_namespace(
        markers.at(at_rest, status())
    )
    marks = markers.marks(at_rest, status(place=place))
    assert [mark.label for mark in marks if mark.label] == ["goal", "predicted"]


def test_the_status_is_written_above_the_table_in_its_colour(robot, at_rest):
    markers = PolicyMarkers(robot, TASK)
    [fault] = by_namespace(markers.at(at_rest, status(PolicyStatus.FAULT, message="x" * 200)))[
        "status"
    ]
    [fine] = by_namespace(markers.at(at_rest, status()))["status"]
    assert fine.text == "GRASP: goal accepted" and len(fault.text) < 80
    assert fault.color.r > fault.color.g and fine.color.g > fine.color.r
    assert fine.pose.position.z > TASK.table.top_m + 0.3


def test_the_goal_stands_at_the_height_of_the_object(robot):
    tall, flat = (item for item in (TASK.objects[0], TASK.objects[1]))
    task = replace(TASK, objects=(tall, flat))
    markers = PolicyMarkers(robot, task)
    for item in (tall, flat):
        markers.name_object(item.name)
        height_m = task.table.top_m + item.solid.rest_height_m
        [goal] = by_namespace(markers.at(RobotState(robot), None))["goal"]
        assert goal.pose.position.z == pytest.approx(task.goal_at(height_m)[2])
    markers.name_object("something else")
