"""Processes of a plan: started with their parameters, watched, and all gone afterwards."""

import os
import signal

import pytest
import yaml

from dexgrasp_sim.bringup import (
    PARENT_VARIABLE,
    NodeFailed,
    NodeGroup,
    NodeSpec,
    free_domain_id,
)
from test_support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

WORKER = """
import json, os, sys, yaml
path = sys.argv[sys.argv.index("--params-file") + 1]
print("not json")
print(json.dumps({"parameters": yaml.safe_load(open(path)), "parent": os.environ["PARENT"]}))
print(json.dumps([1]))
""".replace("PARENT", PARENT_VARIABLE)
SLEEPER = "import time\nprint('ready', flush=True)\ntime.sleep(600)\n"
STUBBORN = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
FAILING = "import sys\nprint('the reason')\nsys.exit(3)\n"
PROMPT = "pass\n"


@pytest.fixture
def package(tmp_path):
    """A package `toy` with a module per kind of node."""
    nodes = tmp_path / "toy" / "nodes"
    nodes.mkdir(parents=True)
    sources = {
        "worker": WORKER,
        "sleeper": SLEEPER,
        "stubborn": STUBBORN,
        "failing": FAILING,
        "prompt": PROMPT,
    }
    for name, source in sources.items():
        (nodes / f"{name}.py").write_text(source)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def spec(executable, **changes):
    return NodeSpec("toy", executable, f"my_{executable}", **{"stop_s": 0.5, **changes})


def group(package, tmp_path, *specs):
    return NodeGroup(specs, package, tmp_path)


def processes(started):
    return [process.popen for process in started._processes.values()]


def wait_for_line(process, line):
    wait_until(lambda: line in process.tail, line)


def test_parameters_reach_the_node_and_its_json_comes_back(package, tmp_path, capfd):
    parameters = {"arm.driver": "mock", "rate_hz": 60.0, "names": ["a", "b"], "on": True}
    with group(package, tmp_path, spec("worker", parameters=parameters)) as started:
        result = started.wait("my_worker", timeout_s=PATIENCE_S)
    assert result["parameters"] == {"my_worker": {"ros__parameters": parameters}}
    assert result["parent"] == str(os.getpid())
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "[my_worker] not json" in captured.err


def test_every_process_ends_with_the_group(package, tmp_path):
    plan = [spec("sleeper", stop_s=PATIENCE_S), spec("stubborn"), spec("worker")]
    with group(package, tmp_path, *plan) as started:
        started.wait("my_worker", timeout_s=PATIENCE_S)
        for name in ("my_sleeper", "my_stubborn"):
            wait_for_line(started._processes[name], "ready")
        running = processes(started)
        assert [process.poll() for process in running][:2] == [None, None]
    codes = [process.poll() for process in running]
    assert codes == [-signal.SIGTERM, -signal.SIGKILL, 0]


def test_node_that_dies_ends_the_wait_with_its_last_words(package, tmp_path):
    with (
        group(package, tmp_path, spec("sleeper"), spec("failing")) as started,
        pytest.raises(NodeFailed, match=r"(?s)my_failing ended with exit code 3.*the reason"),
    ):
        started.wait("my_sleeper", timeout_s=PATIENCE_S)


def test_node_that_ends_too_early_is_an_error_unless_allowed(package, tmp_path):
    plan = [spec("prompt"), spec("sleeper")]
    with (
        group(package, tmp_path, *plan) as started,
        pytest.raises(NodeFailed, match="my_prompt ended with exit code 0"),
    ):
        started.wait(None, timeout_s=PATIENCE_S)
    with (
        group(package, tmp_path, *plan) as started,
        pytest.raises(NodeFailed, match="my_sleeper did not finish within 1 s"),
    ):
        started.wait("my_sleeper", timeout_s=1, others_may_end=True)


def test_nothing_is_left_when_one_cannot_be_started(package, tmp_path, monkeypatch):
    started = group(package, tmp_path, spec("sleeper"), spec("worker", parameters={"x": object()}))
    with pytest.raises(yaml.YAMLError):
        started.__enter__()
    assert [process.poll() is not None for process in processes(started)] == [True]


def test_stop_can_be_called_again(package, tmp_path):
    with group(package, tmp_path, spec("sleeper", stop_s=PATIENCE_S)) as started:
        wait_for_line(started._processes["my_sleeper"], "ready")
        for _ in range(2):
            started.stop()
            assert [process.returncode for process in processes(started)] == [-signal.SIGTERM]


def test_free_domain_avoids_one_in_use():
    import socket

    first = free_domain_id()
    assert 1 <= first <= 101
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 7410 + 250 * first))
        assert free_domain_id() != first


def test_module_of_a_node():
    assert spec("worker").module == "toy.nodes.worker"
