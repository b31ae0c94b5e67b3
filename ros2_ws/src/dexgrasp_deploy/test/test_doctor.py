import fcntl
import json
import os

import pytest

from dexgrasp_deploy.commands import doctor
from dexgrasp_deploy.commands.cli import main
from dexgrasp_sim.physics.backends import BACKENDS, Backend
from dexgrasp_sim.transport import shared_memory


@pytest.fixture
def shm(tmp_path, monkeypatch):
    """A shared-memory folder of this test's own."""
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY_ROOT", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_this_machine_is_ready(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["ok"] is True and report["problems"] == []
    assert report["messages"] is True
    assert report["ros"]["source"] in ("wheels", "system")
    assert report["ros"]["distro"] in ("jazzy", "kilted")
    assert "fastrtps" in report["ros"]["middleware"]
    assert report["backends"]["mujoco"]["available"] is True
    assert report["shm_free_mb"] > 0
    assert set(report) >= {"python", "torch", "gpu", "dead_runs"}


def test_a_backend_that_is_not_there_has_a_reason_and_a_remedy(monkeypatch):
    for module in ("dexgrasp_sim.physics.nothing", "dexgrasp_sim.physics.engine"):
        absent = Backend(module, "Engine", "no_such_package", ("cpu",), "run `make setup`")
        for name in BACKENDS:
            monkeypatch.setitem(BACKENDS, name, absent)
        report = doctor.examine()
        state = report["backends"]["mujoco"]
        assert state["available"] is False and "no_such_package" in state["reason"]
        assert any("run `make setup`" in problem for problem in report["problems"])


def test_a_missing_workspace_is_a_problem(shm, monkeypatch, capsys):
    monkeypatch.setenv("DEXGRASP_ROOT", str(shm))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM: no ros2_ws/src/dexgrasp_msgs/package.xml" in shown
    assert shown.endswith("not ready\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF", "ROS_AUTOMATIC_DISCOVERY_RANGE=OFF"),
        ("ROS_DOMAIN_ID", "1000", "ROS_DOMAIN_ID=1000"),
        ("ROS_DISCOVERY_SERVER", "127.0.0.1:9", "do not find each other"),
    ],
)
def test_a_setting_with_which_nodes_do_not_meet_is_no_good(
    monkeypatch, capsys, variable, value, said
):
    monkeypatch.setenv(variable, value)
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    (problem,) = report["problems"]
    assert said in problem and "make clean setup" not in problem
    assert report["messages"] is False
    assert any(variable in text for text in [problem, *report["hints"]])


def test_dead_runs_are_told_from_live_ones(shm):
    (shm / "dexgrasp_dead").mkdir()
    (shm / "dexgrasp_live").mkdir()
    (shm / "fastrtps_port7411").touch()
    live = os.open(shm / "dexgrasp_live", os.O_RDONLY)
    fcntl.flock(live, fcntl.LOCK_EX)
    try:
        assert doctor._dead_runs() == [str(shm / "dexgrasp_dead")]
    finally:
        os.close(live)


@pytest.mark.slow
def test_too_little_shared_memory_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "_SHM_NEEDED_MB", 1e12)
    report = doctor.examine()
    assert report["ok"] is False
    assert any("--shm-size" in problem for problem in report["problems"])
