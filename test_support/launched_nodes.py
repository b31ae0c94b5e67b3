"""Nodes in one process group, as `ros2 launch` starts them from a terminal."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from dexgrasp_sim.bringup import NodeSpec
from test_support.waiting import PATIENCE_S, wait_until


class LaunchedNodes:
    """Runs the console script of every node; keeps what they print in a folder."""

    def __init__(
        self, nodes: Sequence[NodeSpec], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        leader = 0
        for node in nodes:
            file = folder / f"{node.name}.yaml"
            file.write_text(yaml.safe_dump({node.name: {"ros__parameters": {**node.parameters}}}))
            arguments = ["-r", f"__node:={node.name}", "--params-file", str(file)]
            script = f"from {node.package}.nodes.programs import {node.executable} as node"
            with (folder / f"{node.name}.log").open("wb") as log:
                self.processes[node.name] = subprocess.Popen(
                    [sys.executable, "-c", f"{script}; exit(node())", "--ros-args", *arguments],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    preexec_fn=lambda group=leader: _join(group),
                )
            leader = leader or self.processes[node.name].pid
        self._group = leader

    def wait_until_all_import(self) -> None:
        """Waits until every node imports modules of its own or has come further."""
        for process in self.processes.values():
            wait_until(lambda pid=process.pid: "libtorch" in _maps(pid), "its imports")

    def wait_until_all_listen(self) -> None:
        """Waits until every node has imported its modules and handles signals."""
        for process in self.processes.values():
            wait_until(lambda pid=process.pid: _handles(pid, signal.SIGHUP), "its handlers")

    def signal_all(self, number: int) -> None:
        """What a terminal or a process manager does."""
        os.killpg(self._group, number)

    def codes(self) -> dict[str, int]:
        """Exit codes of all nodes, once they have ended."""
        return {name: process.wait(PATIENCE_S) for name, process in self.processes.items()}

    def said(self) -> str:
        """All that the nodes have printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def kill(self) -> None:
        """Ends what is left."""
        for process in self.processes.values():
            process.kill()
            process.wait()


def _maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def _handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (number - 1) & 1)


def _join(group: int) -> None:
    """Enters a process group and takes SIGHUP, which whoever runs the tests may ignore."""
    os.setpgid(0, group)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
