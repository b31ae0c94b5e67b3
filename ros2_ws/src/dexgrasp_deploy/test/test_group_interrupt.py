"""Ctrl-C in `ros2 launch` of a deployment: every node gets it, and gets it again from `launch`."""

import signal

import pytest

from dexgrasp_deploy.processes import deploy_nodes, episode_node
from dexgrasp_sim.bringup import free_domain_id
from dexgrasp_sim.ros_environment import ros_environment
from test_support.launched_nodes import LaunchedNodes
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def launched(bundle_folder, tmp_path):
    nodes = deploy_nodes("sim", bundle_folder, record=tmp_path / "recordings")
    nodes.append(episode_node("sim", bundle_folder, 1000))
    environment = {**ros_environment(), "ROS_DOMAIN_ID": str(free_domain_id())}
    launched = LaunchedNodes(nodes, tmp_path, environment)
    yield launched
    launched.kill()


def assert_all_end_quietly(launched):
    launched.signal_all(signal.SIGINT)
    launched.signal_all(signal.SIGINT)  # a launcher passes on what its children have had already
    assert set(launched.codes().values()) <= {0, 130}, launched.said()
    assert "Traceback" not in launched.said()


def test_nodes_that_still_import_end_quietly(launched):
    launched.wait_until_all_import()
    assert_all_end_quietly(launched)


def test_nodes_of_a_running_robot_end_quietly(launched):
    launched.wait_until_all_listen()
    wait_until(lambda: "HOLD: " in launched.said(), lambda: launched.said()[-2000:])
    assert_all_end_quietly(launched)
