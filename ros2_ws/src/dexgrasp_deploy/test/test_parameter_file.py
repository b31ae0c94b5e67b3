"""ROS parameter files: what ROS accepts means the same here, what cannot be is one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from dexgrasp_deploy.parameter_file import with_parameter_file
from dexgrasp_deploy.processes import deploy_nodes
from dexgrasp_sim.config import ConfigError

TIMEOUT_S = 120.0
FORMS = {
    "wildcard": "/**:\n  ros__parameters:\n    a: 1\n",
    "slash": "/policy_node:\n  ros__parameters:\n    a: {b: 1.5, c: [1, 2]}\n",
    "name": "policy_node:\n  ros__parameters: {a.b: x, a: {c: true}}\n",
    "empty": "policy_node:\n  ros__parameters: {}\n",
    "one part": "/*:\n  ros__parameters: {a: 1}\n",
    "any parts": "/**/policy_node:\n  ros__parameters: {a: 1}\n",
    "nested": "/**:\n  policy_node:\n    ros__parameters: {a: 1}\n",
    "order": "policy_node:\n  ros__parameters: {a: 1}\n/**:\n  ros__parameters: {a: 2}\n",
    "other order": "/**:\n  ros__parameters: {a: 2}\npolicy_node:\n  ros__parameters: {a: 1}\n",
    "beside others": "camera_node:\n  ros__parameters: {a: 9}\n/**:\n  ros__parameters: {b: 1}\n",
    "and strangers": "gripper:\n  ros__parameters: {a: 9}\n/**:\n  ros__parameters: {b: 1}\n",
    "namespace": "/left:\n  policy_node:\n    ros__parameters: {a: 9}\n"
    "/*:\n  ros__parameters: {b: 1}\n",
    "lists": "/**:\n  ros__parameters: {a: [true, false], b: ['1', x], c: [0.5, 1.0], d: [3]}\n",
    "numbers": "/**:\n  ros__parameters: {a: 1e3, b: 0x10, c: -1.5e-3, d: yes, e: '1', f: 1.}\n",
    "no content": "# nothing\n",
}
REFUSED = {
    "a list of two types": ("/**:\n  ros__parameters: {a: [1, 2.5]}\n", "parameter a = [1, 2.5]"),
    "an empty list": ("/**:\n  ros__parameters: {a: []}\n", "an empty list has no type"),
    "a name without value": ("/**:\n  ros__parameters:\n    a:\n", "parameter a = None"),
    "no ros__parameters": ("policy_node:\n  speed: 1\n", "`policy_node/speed` must hold"),
    "an unclosed brace": ("policy_node:\n  ros__parameters: {a: 1\n", "line 3"),
    "a list of nodes": ("- policy_node\n", "must hold node names"),
    "a list in a list": ("/**:\n  ros__parameters: {a: [[1]]}\n", "the values of a list"),
}


def parameters_by_ros(path):
    """The parameters that a node of ROS gets from a file."""
    context = Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    node = Node(
        "policy_node", context=context, automatically_declare_parameters_from_overrides=True
    )
    found = {name: value.value for name, value in node.get_parameters_by_prefix("").items()}
    executor = SingleThreadedExecutor(context=context)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
    standard = ("use_sim_time", "start_type_description_service")
    return {name: value for name, value in found.items() if name not in standard}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_means_what_it_means_to_ros(form, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(FORMS[form])
    before = deploy_nodes("mock", "bundle")
    nodes = with_parameter_file(before, path)
    own = {k: v for k, v in nodes[2].parameters.items() if k not in before[2].parameters}
    assert own == parameters_by_ros(path)
    assert {k: type(v) for k, v in own.items()} == {
        k: type(v) if not hasattr(v, "typecode") else list
        for k, v in parameters_by_ros(path).items()
    }


def test_values_lie_on_top_of_the_plan(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("policy_node: {ros__parameters: {autostart: false, approach_speed: 0.1}}")
    nodes = with_parameter_file(deploy_nodes("mock", "bundle"), path)
    assert nodes[2].parameters["autostart"] is False
    assert nodes[2].parameters["approach_speed"] == 0.1
    assert "approach_speed" not in nodes[0].parameters


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_parameter_file_is_refused_in_one_line(name, tmp_path):
    text, reason = REFUSED[name]
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        with_parameter_file(deploy_nodes("mock", "bundle"), path)
    message = str(caught.value)
    assert reason in message and str(path) in message and "\n" not in message


def test_a_file_that_fits_no_node_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("polcy_node: {ros__parameters: {a: 1}}")
    with pytest.raises(ConfigError, match="is for polcy_node; must be for one of robot_driver"):
        with_parameter_file(deploy_nodes("mock", "bundle"), path)
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read"):
        with_parameter_file(deploy_nodes("mock", "bundle"), tmp_path / "missing.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/**:\n  ros__parameters: {a: [1, 2.5]}\n", "Sequence should be of same type"),
        ("/**:\n  ros__parameters: {a: []}\n", "PARAMETER_NOT_SET"),
        ("/**:\n  ros__parameters: {a: 1\n", "Couldn't parse params file"),
        ("/**:\n  ros__parameters: {unheard_of: 1}\n", "unknown parameter unheard_of"),
        ("/**:\n  ros__parameters: {state_rate_hz: fast}\n", "state_rate_hz = 'fast'"),
    ],
)
def test_a_node_refuses_a_wrong_file_in_one_line(text, reason, tmp_path):
    path = Path(tmp_path / "params.yaml")
    path.write_text(text)
    command = [sys.executable, "-m", "dexgrasp_deploy.nodes.robot_driver_node"]
    done = subprocess.run(
        [*command, "--ros-args", "--params-file", str(path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    own = [line for line in done.stderr.splitlines() if "[dexgrasp]" in line]
    assert done.returncode == 2, done.stderr
    assert len(own) == 1 and reason in own[0]
    assert "Traceback" not in done.stderr and "/project/" not in own[0]
