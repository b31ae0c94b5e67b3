"""The launch plans as real processes over real DDS, from the command line to the JSON line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

TIMEOUT_S = 200
RELAXED = {"freshness": {"max_joint_age_s": 5.0, "max_image_age_s": 5.0}}
"""Nothing here measures time, and a busy computer may stall for long."""


def start_up(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "dexgrasp_deploy.commands.cli", "up", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process):
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        pytest.fail(f"dexgrasp up did not end:\n{out}\n{err}")
    return process.returncode, out, err


def children_of(pid):
    """Processes that a process started, by pid."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def write_params(path, **nodes):
    content = {name: {"ros__parameters": values} for name, values in nodes.items()}
    path.write_text(yaml.safe_dump(content))
    return path


def test_mock_with_drivers_of_a_lab(bundle_folder, tmp_path):
    (tmp_path / "lab.py").write_text(
        "from dexgrasp_deploy.drivers.mock import MockArm, MockHand\n"
        "class Backwards:\n"
        "    def configure(self, context, parameters):\n"
        "        own = dict(parameters)\n"
        "        assert own.pop('address') == '10.0.0.1', parameters\n"
        "        super().configure(context, own)\n"
        "        self.joint_names = self.joint_names[::-1]\n"
        "class Arm(Backwards, MockArm): pass\n"
        "class Hand(Backwards, MockHand): pass\n"
    )
    drivers = {f"{kind}.driver": f"lab:{kind.title()}" for kind in ("arm", "hand")}
    drivers |= {"arm.address": "10.0.0.1", "hand.address": "10.0.0.1"}
    params = write_params(tmp_path / "params.yaml", policy_node=RELAXED, robot_driver_node=drivers)
    process = start_up(
        "mock",
        *("--bundle", bundle_folder, "--episodes", 2, "--params", params, "--json"),
        PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    )
    code, out, err = finish(process)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["success_rate"] is None, "without a simulation nothing can judge"
    assert [item["steps"] for item in result["outcomes"]] == [18, 18]
    for item in result["outcomes"]:
        assert item["ended"].startswith("episode time is up: the hand is not closed on anything")
        assert item["way_home"].startswith("HOLD: at home")
        assert (item["refused"], item["believed"]) == (False, False)
    assert result["refused"] == 0
    assert result["control_hz"] > 0


def test_sim_grasps_what_the_script_grasps_in_training(grasping_bundle_folder, tmp_path):
    params = write_params(tmp_path / "params.yaml", policy_node=RELAXED)
    process = start_up(
        "sim", "--bundle", grasping_bundle_folder, "--episodes", 2, "--params", params, "--json"
    )
    code, out, err = finish(process)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    first, second = result["outcomes"]
    assert (first["object"], second["object"]) == ("box", "cylinder")
    assert first["success"], "the same actions as in training must lift the same object"
    assert first["max_lift_m"] > 0.1
    assert first["steps"] == second["steps"] == 68
    assert result["episodes"] == 2
    assert result["success_rate"] == (1.0 if second["success"] else 0.5)


def test_node_that_cannot_start_ends_everything(bundle_folder, tmp_path):
    params = write_params(tmp_path / "params.yaml", robot_driver_node={"arm.driver": "kuka"})
    code, out, err = finish(start_up("mock", "--bundle", bundle_folder, "--params", params))
    assert code == 1
    assert out == ""
    assert "arm.driver = 'kuka': not one of mock, sim" in err
    assert "robot_driver_node ended with exit code 2" in err


def test_wrong_bundle_is_a_usage_error(tmp_path):
    code, _, err = finish(start_up("mock", "--bundle", tmp_path))
    assert code == 2
    assert "no bundle here" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_node_outlives_the_command(bundle_folder, number):
    process = start_up("mock", "--bundle", bundle_folder)
    wait_until(lambda: len(children_of(process.pid)) == 4, "four nodes")
    nodes = children_of(process.pid)
    for line in process.stderr or ():
        if "policy" in line and str(bundle_folder) in line:
            break
    process.send_signal(number)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    wait_until(lambda: not any(map(is_alive, nodes)), "the nodes to end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_script_can_stop_what_it_has_started_in_the_background(bundle_folder, number):
    """A shell that runs a script starts background commands with SIGINT ignored."""
    inherited = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}
    inherited |= {signal.SIGHUP: signal.SIG_DFL}
    before = {each: signal.signal(each, handler) for each, handler in inherited.items()}
    try:
        process = start_up("mock", "--bundle", bundle_folder)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    wait_until(lambda: len(children_of(process.pid)) == 4, "four nodes")
    nodes = children_of(process.pid)
    for line in process.stderr or ():
        if "policy" in line and str(bundle_folder) in line:
            break
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert not any(map(is_alive, nodes))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ROS_DOMAIN_ID", "abc"), ("RMW_IMPLEMENTATION", "rmw_none"), ("ROS_STATIC_PEERS", "a,b")],
)
def test_a_wrong_setting_of_ros_is_refused_in_one_line(bundle_folder, variable, value):
    code, out, err = finish(start_up("mock", "--bundle", bundle_folder, **{variable: value}))
    assert (code, out) == (2, "")
    said = [line for line in err.splitlines() if not line.startswith("ROS_DOMAIN_ID=")]
    assert len(said) == 1 and said[0].startswith(f"dexgrasp up: {variable}")
