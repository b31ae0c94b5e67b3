"""Ctrl-C in `ros2 launch`, the end of a session, a process manager: all processes are signalled.

Nodes are started in one process group, as `ros2 launch` does it. The signal goes to all of them
and to the simulator workers.
"""

import json
import os
import signal
from pathlib import Path

import pytest

from dexgrasp_learner.run.processes import LEARNER, train_nodes
from dexgrasp_sim.ros_environment import find_workspace_root
from dexgrasp_sim.transport.shared_memory import run_folder
from dexgrasp_sim.transport.telemetry import RunObserver
from test_support.launched_nodes import LaunchedNodes
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

SMOKE = find_workspace_root() / "config" / "smoke.yaml"
SMALL = ["simulators.num_envs=8", "training.iterations=100000", "training.checkpoint_every=100000"]


class Training(LaunchedNodes):
    """The nodes of a training."""

    def __init__(self, folder: Path) -> None:
        nodes = train_nodes(SMOKE, runs=folder / "runs", overrides=SMALL)
        self.run_id = str(nodes[0].parameters["run_id"])
        super().__init__(nodes, folder)

    def wait_for_iterations(self, count: int) -> list[int]:
        """Waits until the run has trained; returns the process ids of its workers."""
        metrics = self.folder / "runs" / self.run_id / "metrics.jsonl"

        def trained() -> bool:
            assert self.processes[LEARNER].poll() is None, self.said()
            return metrics.exists() and metrics.read_text().count("\n") >= count

        wait_until(trained, "iterations")
        self.wait_until_all_listen()
        return [status.pid for status in RunObserver(self.run_id).statuses()]


@pytest.fixture
def launched(tmp_path):
    launched = Training(tmp_path)
    yield launched
    launched.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_ends_a_training_in_order(launched, number):
    workers = launched.wait_for_iterations(2)
    assert len(workers) == 2
    launched.signal_all(number)
    for pid in workers:
        os.kill(pid, number)
    if number == signal.SIGINT:  # a launcher passes on what its children have had already
        launched.signal_all(number)
    assert set(launched.codes().values()) == {0}, launched.said()
    said = launched.said()
    assert not any(word in said for word in ("Traceback", "failed", "died", "replaced"))
    state = launched.folder / "runs" / launched.run_id / "checkpoints" / "latest" / "state.json"
    assert json.loads(state.read_text())["iteration"] >= 2
    assert not run_folder(launched.run_id).exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_training_that_only_starts_ends_too(launched):
    wait_until(lambda: run_folder(launched.run_id).exists(), "shared memory")
    launched.wait_until_all_listen()
    launched.signal_all(signal.SIGINT)
    assert set(launched.codes().values()) == {0}, launched.said()
    said = launched.said()
    assert not any(word in said for word in ("Traceback", "failed", "died", "replaced"))
    wait_until(lambda: not run_folder(launched.run_id).exists(), "shared memory to go")


def test_a_training_whose_nodes_still_import_ends_quietly(launched):
    launched.wait_until_all_import()
    launched.signal_all(signal.SIGINT)
    assert set(launched.codes().values()) <= {0, 130}, launched.said()
    assert "Traceback" not in launched.said()
