"""`dexgrasp doctor --robot` over real DDS, with nodes that speak as a robot does."""

import json

import numpy as np
import pytest
from std_msgs.msg import Float64MultiArray

from dexgrasp_deploy.commands.cli import main
from test_support.camera_peer import HEIGHT, WIDTH, CameraPeer, image, later
from test_support.robot_peer import BEST_EFFORT, RELIABLE, RobotPeer

pytestmark = pytest.mark.slow

NAMES = [f"lbr_A{i}" for i in range(1, 8)]
STATES, COMMANDS = "/lbr/joint_states", "/lbr/forward_position_controller/commands"
DEPTH = "/camera/camera/depth"


def peer(**changes):
    settings = {"forward": True, "state_qos": RELIABLE, "command_qos": RELIABLE, **changes}
    return RobotPeer(NAMES, STATES, COMMANDS, **settings)


@pytest.fixture
def camera():
    depth = np.full((HEIGHT, WIDTH), 700, np.uint16)
    camera = CameraPeer(BEST_EFFORT)
    camera.add(f"{DEPTH}/image_rect_raw", lambda number: image(depth, "16UC1"))
    camera.add_info(f"{DEPTH}/camera_info")
    return camera


@pytest.fixture
def doctor(capsys, bundle_folder):
    """Runs the command; outcome and text by check."""

    def run(*arguments):
        drivers = ["--arm", "lbr", "--hand", "mock", "--camera", "realsense_node"]
        words = ["doctor", "--robot", "--json", "--bundle", str(bundle_folder), *drivers]
        code = main([*words, *arguments])
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert code == (0 if report["ok"] else 1)
        found = {}
        for each in report["checks"]:
            found.setdefault(each["check"], []).append((each["outcome"], each["text"]))
        return found

    return run


def outcome(found, check):
    return [outcome for outcome, _ in found[check]]


def test_a_robot_that_is_ready(doctor, camera):
    with peer(), camera:
        found = doctor("--seconds", "2")
    for check in ("arm state", "arm command", "arm stamps", "arm joints", "camera image"):
        assert outcome(found, check) == ["ok"], found[check]
    assert outcome(found, f"commanders of {COMMANDS}") == ["ok"]
    assert "64x48 16UC1" in found["camera rate"][0][1]
    assert outcome(found, "bundle") == ["ok"]
    assert "/robot_peer" in found["ROS graph"][0][1]


def test_what_is_wrong_on_the_graph_is_named(doctor, camera):
    with peer() as robot, camera:
        robot.position = [0.0] * 5 + [-90.0, 0.0]
        robot.change = lambda message: later(message, 30.0)
        other = robot.node.create_publisher(Float64MultiArray, COMMANDS, 1)
        found = doctor("--seconds", "2")
        robot.node.destroy_publisher(other)
    assert outcome(found, "arm joints") == ["failed"]
    assert "degrees" in found["arm joints"][0][1]
    assert outcome(found, "arm stamps") == ["failed"]
    assert outcome(found, f"commanders of {COMMANDS}") == ["failed"]
    assert "/robot_peer" in found[f"commanders of {COMMANDS}"][0][1]


def test_two_drivers_of_the_same_arm_are_seen(doctor):
    with peer(), peer():
        found = doctor("--seconds", "2")
    assert "two nodes publish the same joints" in found["arm joints"][0][1]
    assert outcome(found, "camera image") == ["failed"]


def test_quality_of_service_that_does_not_fit_is_named(doctor, tmp_path):
    params = tmp_path / "robot.yaml"
    params.write_text(
        "{robot_driver_node: {ros__parameters: {arm.state.qos.reliability: reliable}}}"
    )
    with peer(state_qos=BEST_EFFORT):
        found = doctor("--seconds", "0.5", "--params", str(params))
    assert outcome(found, "arm state") == ["failed"]
    assert "published best effort, subscribed reliable" in found["arm state"][0][1]


def test_options_of_the_robot_need_it(capsys):
    assert main(["doctor", "--arm", "lbr"]) == 2
    assert "--arm is for `dexgrasp doctor --robot`" in capsys.readouterr().err
