"""The viewer of a robot, on real DDS: what it reads, what its page shows, and its stop button."""

import os
import threading

import numpy as np
import pytest
from visualization_msgs.msg import Marker

from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.bringup import domains_in_use, free_domain_id
from dexgrasp_sim.nodes.display.markers import ball
from dexgrasp_sim.nodes.robot_view.graph import RobotGraph
from dexgrasp_sim.nodes.robot_view.joint_table import COLORS, joint_table
from dexgrasp_sim.nodes.robot_view.page import RobotPage
from dexgrasp_sim.nodes.robot_view.search import robot_graph
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.view.server import page_url, start_server, stop_server
from test_support.browser import open_page
from test_support.fake_robot import CAMERA, FakeRobot
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

ROBOT = load_robot()
DOMAIN = int(os.environ.get("ROS_DOMAIN_ID", "0"))


@pytest.fixture
def robot():
    with FakeRobot(ROBOT) as robot:
        yield robot


@pytest.fixture
def graph():
    with RobotGraph(DOMAIN) as graph:
        yield graph


@pytest.fixture
def page():
    server = start_server("127.0.0.1", 0)
    yield RobotPage(server)
    stop_server(server)


def spin_until(graph, condition, what):
    wait_until(condition, what, meanwhile=lambda: graph.spin(0.05))


def node_of(page, name):
    return page._scene.get_handle_by_name(name)


def test_the_scene_is_that_of_the_topics(robot, graph, page):
    assert not graph.is_alive and graph.missing == "robot_description and joint_states"
    spin_until(graph, lambda: graph.is_alive and len(graph.markers) == 2, "the robot")
    spin_until(graph, lambda: graph.points and graph.picture and graph.cameras, "the camera")
    page.show(graph)
    assert not node_of(page, "/commanded").visible, "nothing is commanded"
    link = ROBOT.joints[ROBOT.arm_joints[5]].child
    np.testing.assert_allclose(
        node_of(page, f"/robot/{link}").position, graph.pose_of(link)[:3, 3], atol=1e-6
    )
    goal = node_of(page, "/markers/goal/0")
    np.testing.assert_allclose(goal.position, (-0.5, 0.1, 0.6))
    np.testing.assert_allclose(2 * goal.radius * np.array(goal.scale), 0.03)
    assert node_of(page, "/labels/goal").text == "goal"
    np.testing.assert_allclose(node_of(page, f"/cameras/{CAMERA}").position, (-1.0, 0.0, 0.7))
    cloud = node_of(page, "/points")
    assert cloud.points.shape == (12, 3)
    np.testing.assert_allclose(cloud.position, (-1.0, 0.0, 0.7))
    np.testing.assert_allclose(cloud.wxyz, (0.0, 1.0, 0.0, 0.0), atol=1e-9)

    moved = dict(zip(ROBOT.joint_names, ROBOT.postures["pregrasp"]))
    moved[ROBOT.arm_joints[3]] += 0.2
    robot.commanded = moved
    robot.markers = [ball("goal", (-0.4, 0.1, 0.6), 0.05, (0.2, 0.8, 0.3))]
    spin_until(graph, lambda: graph.commanded, "the command")
    spin_until(graph, lambda: ("contacts", 0) not in graph.markers, "the contact to pass")
    page.show(graph)
    assert node_of(page, "/commanded").visible
    apart = node_of(page, f"/commanded/{link}").position - node_of(page, f"/robot/{link}").position
    assert np.linalg.norm(apart) > 0.02
    goal = node_of(page, "/markers/goal/0")
    np.testing.assert_allclose(goal.position, (-0.4, 0.1, 0.6))
    np.testing.assert_allclose(2 * goal.radius * np.array(goal.scale), 0.05)
    assert node_of(page, "/markers/contacts/0") is None
    robot.commanded = {}
    spin_until(graph, lambda: not graph.commanded, "the command to be forgotten")
    page.show(graph)
    assert not node_of(page, "/commanded").visible
    page.wait_for("another robot")
    assert node_of(page, f"/robot/{link}") is None and node_of(page, "/points") is None


def test_every_kind_of_marker_that_the_nodes_send_is_drawn(graph, robot, page):
    kinds = (Marker.CUBE, Marker.SPHERE, Marker.CYLINDER, Marker.LINE_LIST, Marker.LINE_STRIP)
    markers = []
    for number, kind in enumerate((*kinds, Marker.TRIANGLE_LIST, Marker.TEXT_VIEW_FACING)):
        marker = ball("any", (0.0, 0.0, 0.1 * number), 0.1, (1.0, 0.0, 0.0), 0.5, number)
        marker.type = kind
        if kind in (Marker.LINE_LIST, Marker.LINE_STRIP, Marker.TRIANGLE_LIST):
            marker.points = [robot.status.predicted_object_position] * 6
        markers.append(marker)
    robot.markers = markers
    spin_until(graph, lambda: graph.is_alive and len(graph.markers) >= 7, "the markers")
    page.show(graph)
    drawn = [node_of(page, f"/markers/any/{number}") is not None for number in range(7)]
    assert drawn == [True] * 6 + [False], "words are in the panel"


def test_the_table_colours_joints_near_their_limits():
    middle = dict(zip(ROBOT.joint_names, ((ROBOT.lower + ROBOT.upper) / 2).tolist()))
    table = joint_table(ROBOT, middle, {})
    assert all(name in table for name in ROBOT.joint_names)
    assert COLORS[1] not in table and COLORS[2] not in table
    arm, finger = ROBOT.arm_joints[0], ROBOT.hand_joints[0]
    near = dict(middle)
    near[arm] = float(ROBOT.upper[0])
    low, high = (limit[ROBOT.joint_names.index(finger)] for limit in (ROBOT.lower, ROBOT.upper))
    near[finger] = float(low + 0.03 * (high - low))
    del near[ROBOT.hand_joints[5]]
    rows = joint_table(ROBOT, near, {arm: 0.5}).split("<tr>")
    [at] = [row for row in rows if f">{arm}<" in row]
    [close] = [row for row in rows if f">{finger}<" in row]
    [unknown] = [row for row in rows if f">{ROBOT.hand_joints[5]}<" in row]
    assert COLORS[2] in at and f"{np.degrees(ROBOT.upper[0]):.1f}°" in at and "28.6°" in at
    assert COLORS[1] in close and "not measured" in unknown


def test_the_page_in_a_browser_tells_and_stops(robot, browser, tmp_path):
    server = start_server("127.0.0.1", 0)
    shown = RobotPage(server)
    done = threading.Event()

    def serve():
        with RobotGraph(DOMAIN) as graph:
            while not done.is_set():
                graph.spin(2.0)  # a browser without a GPU draws slowly
                if graph.is_alive:
                    shown.show(graph)
                if shown.wishes.stop:
                    shown.wishes.stop = False
                    graph.stop()

    loop = threading.Thread(target=serve)
    loop.start()
    try:
        with open_page(browser, page_url(server), tmp_path) as page:
            words = ("RUNNING", "GRASP: goal accepted", "c0ffee, 15 Hz", "safety interventions")
            for text in (*words, "what the policy sees", ROBOT.joint_names[-1]):
                wait_until(lambda text=text: text in page.text(), text)
            with page.only_the_scene():
                wait_until(lambda: page.orange_pixels() > 500, "the robot")
            page.click("STOP the robot")
            wait_until(lambda: robot.stops == 1, "the stop")
            robot.status = PolicyStatus(state=PolicyStatus.FAULT, message="<b>gone</b> & lost")
            wait_until(lambda: "FAULT <b>gone</b> & lost" in page.text(), "the fault, as text")
    finally:
        done.set()
        loop.join(60)
        stop_server(server)


def test_without_an_emergency_stop_there_is_no_button(graph, page):
    with FakeRobot(ROBOT, can_stop=False):
        spin_until(graph, lambda: graph.is_alive, "the robot")
        page.show(graph)
        assert not page._stop.visible
    spin_until(graph, lambda: not graph.is_alive, "its end")
    with FakeRobot(ROBOT):
        spin_until(graph, lambda: graph.is_alive and graph.can_stop, "a robot that can be stopped")
        page.show(graph)
        assert page._stop.visible and not page._stop.disabled


def test_the_search_finds_the_robot_of_a_namespace_in_any_domain_of_this_host():
    namespace = f"view_test_{os.getpid()}"
    told = []
    with FakeRobot(ROBOT, namespace), robot_graph(None, namespace, told.append) as graph:
        assert graph.domain == DOMAIN and graph.is_alive
        assert DOMAIN in domains_in_use()
        assert free_domain_id() not in domains_in_use()
