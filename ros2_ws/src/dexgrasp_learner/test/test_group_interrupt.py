"""Ctrl-C in `ros2 launch`, the end of a session, a process manager: all processes are signalled.

Nodes are started in one process group, as `ros2 launch` does it. The signal goes to all of them
and to the simulator workers.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dexgrasp_learner.run.processes import LEARNER, train_nodes
from dexgrasp_sim.ros_environment import find_workspace_root
from dexgrasp_sim.transport.shared_memory import run_folder
from dexgrasp_sim.transport.telemetry import RunObserver
from test_support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

SMOKE = find_workspace_root() / "config" / "smoke.yaml"
SMALL = ["simulators.num_envs=8", "training.iterations=100000", "training.checkpoint_every=100000"]


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (number - 1) & 1)


def join(group: int) -> None:
    """Enters a process group and takes SIGHUP, which whoever runs the tests may ignore."""
    os.setpgid(0, group)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Launched:
    """The nodes of a training in one process group, with what they print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        nodes = train_nodes(SMOKE, runs=folder / "runs", overrides=SMALL)
        self.run_id = str(nodes[0].parameters["run_id"])
        leader = 0
        for node in nodes:
            file = folder / f"{node.name}.yaml"
            file.write_text(yaml.safe_dump({node.name: {"ros__parameters": {**node.parameters}}}))
            with (folder / f"{node.name}.log").open("wb") as log:
                arguments = ["-r", f"__node:={node.name}", "--params-file", str(file)]
                self.processes[node.name] = subprocess.Popen(
                    [sys.executable, "-m", node.module, "--ros-args", *arguments],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=lambda group=leader: join(group),
                )
            leader = leader or self.processes[node.name].pid

    def wait_for_iterations(self, count: int) -> list[int]:
        """Waits until the run has trained; returns the process ids of its workers."""
        metrics = self.folder / "runs" / self.run_id / "metrics.jsonl"

        def trained() -> bool:
            assert self.processes[LEARNER].poll() is None, self.said()
            return metrics.exists() and metrics.read_text().count("\n") >= count

        wait_until(trained, "iterations")
        self.wait_until_all_listen()
        return [status.pid for status in RunObserver(self.run_id).statuses()]

    def wait_until_all_listen(self) -> None:
        """Waits until every node has imported its modules and handles signals."""
        for process in self.processes.values():
            wait_until(lambda pid=process.pid: handles(pid, signal.SIGHUP), "its handlers")

    def signal_all(self, number: int, workers: list[int]) -> None:
        """What a terminal or a process manager does."""
        os.killpg(self.processes[LEARNER].pid, number)
        for pid in workers:
            os.kill(pid, number)

    def codes(self) -> dict[str, int]:
        """Exit codes of all nodes, once they have ended."""
        return {name: process.wait(PATIENCE_S) for name, process in self.processes.items()}

    def said(self) -> str:
        """All that the nodes have printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def launched(tmp_path):
    launched = Launched(tmp_path)
    yield launched
    for process in launched.processes.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_ends_a_training_in_order(launched, number):
    workers = launched.wait_for_iterations(2)
    assert len(workers) == 2
    launched.signal_all(number, workers)
    if number == signal.SIGINT:  # a launcher passes on what its children have had already
        launched.signal_all(number, [])
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
    launched.signal_all(signal.SIGINT, [])
    assert set(launched.codes().values()) == {0}, launched.said()
    said = launched.said()
    assert not any(word in said for word in ("Traceback", "failed", "died", "replaced"))
    wait_until(lambda: not run_folder(launched.run_id).exists(), "shared memory to go")
