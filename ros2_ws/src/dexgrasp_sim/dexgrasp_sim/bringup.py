"""Starts nodes as processes and stops them, for systems without `ros2 launch`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

PARENT_VARIABLE = "DEXGRASP_PARENT_PID"
"""Environment variable with the parent's process id; a node ends when this process has ended."""

_POLL_S = 0.05
_HURRY_S = 5.0
_KILL_S = 30.0
_READ_S = 10.0
_TAIL_LINES = 20
_REFUSED = 2
"""Exit code of a node that refuses its config, parameters or settings."""
_FIRST_PORT, _PORTS_PER_DOMAIN, _UNICAST_OFFSET = 7400, 250, 10
_DOMAINS = 101
"""Domain numbers 0 to 101 use ports below the ephemeral range (DDS-RTPS 2.5, 9.6.2.3)."""


@dataclass(frozen=True)
class NodeSpec:
    """One node of a launch plan; launch files and `dexgrasp up` start the same list.

    Attributes:
        package: ROS package.
        executable: Console script of the package; its module is `<package>.nodes.<executable>`.
        name: Node name.
        parameters: Parameter values by dotted name.
        stop_s: How long the node may take to end after SIGTERM. It needs less than a second of one
            core; the rest is for a busy machine and for a node that is still starting.
    """

    package: str
    executable: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    stop_s: float = 20.0

    @property
    def module(self) -> str:
        """The module that `python -m` runs."""
        return f"{self.package}.nodes.{self.executable}"


class NodeFailed(RuntimeError):
    """A node ended although it should not have, ended with an error, or did not end in time."""


class _Process:
    """One node's process and the thread that reads what it prints."""

    def __init__(self, spec: NodeSpec, environment: Mapping[str, str], folder: Path) -> None:
        self.spec = spec
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.result: dict[str, Any] | None = None
        parameters = folder / f"{spec.name}.yaml"
        content = {spec.name: {"ros__parameters": dict(spec.parameters)}}
        parameters.write_text(yaml.safe_dump(content))
        ros_arguments = ["-r", f"__node:={spec.name}", "--params-file", str(parameters)]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", spec.module, "--ros-args", *ros_arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C must reach the node only once, through stop()
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def finish_reading(self) -> None:
        """Waits for the last line, with time-out: a child of the node may hold the pipe."""
        self._reader.join(timeout=_READ_S)

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.tail.append(line.rstrip())
            self.result = _json_object(line) or self.result
            print(f"[{self.spec.name}] {line}", end="", file=sys.stderr, flush=True)


class NodeGroup:
    """The running nodes of a plan; a context manager that stops them all."""

    def __init__(
        self, specs: Sequence[NodeSpec], environment: Mapping[str, str], folder: Path
    ) -> None:
        """Starts nothing yet.

        Args:
            specs: What to start, in order.
            environment: Environment variables of every node, with those that rclpy needs.
            folder: Existing folder for the parameter files.
        """
        self._specs = specs
        self._folder = folder
        self._environment = {
            **environment,
            PARENT_VARIABLE: str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        self._processes: dict[str, _Process] = {}

    def __enter__(self) -> "NodeGroup":
        try:
            for spec in self._specs:
                self._processes[spec.name] = _Process(spec, self._environment, self._folder)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def pid(self, name: str) -> int:
        """Process id of a running node."""
        return self._processes[name].popen.pid

    def wait(
        self,
        name: str | None = None,
        timeout_s: float | None = None,
        others_may_end: bool = False,
    ) -> dict[str, Any]:
        """Waits until a node has ended and watches the others.

        Args:
            name: The node that ends by itself; None to watch until interrupted.
            timeout_s: Longest wait; None for a plan that runs until interrupted.
            others_may_end: Whether the other nodes may end before it without an error.

        Returns:
            The last JSON object that the node printed on a line of its own, or {}.

        Raises:
            NodeFailed: Another node ended, the node ended with an error, or time is up.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            for process in self._processes.values():
                code = process.popen.poll()
                if code is None:
                    continue
                process.finish_reading()
                if code == 0 and process.spec.name == name:
                    return process.result or {}
                if code == 0 and others_may_end:
                    continue
                what = f"{process.spec.name} ended with exit code {code}"
                if code == _REFUSED:  # its last line says why
                    raise NodeFailed(f"{what}: {' '.join([*process.tail][-1:])}")
                raise NodeFailed(f"{what}; its last lines:\n" + "\n".join(process.tail))
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise NodeFailed(f"{name} did not finish within {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Ends every process: SIGTERM, then SIGINT, then SIGKILL; idempotent.

        The next signal is sent when every process has ended or used up its own time. SIGTERM ends
        a node that still imports its modules without a traceback; SIGINT hurries it, see
        `stop_signals`.
        """
        processes = self._processes.values()
        for number, patience_s in (
            (signal.SIGTERM, lambda process: process.spec.stop_s),
            (signal.SIGINT, lambda _: _HURRY_S),
            (signal.SIGKILL, lambda _: _KILL_S),
        ):
            running = [p for p in processes if p.popen.poll() is None]
            for process in running:
                process.popen.send_signal(number)
            _wait_for_end(running, patience_s)
        for process in processes:
            process.finish_reading()


def _wait_for_end(processes: Sequence[_Process], patience_s: Callable[[_Process], float]) -> None:
    """Waits until each has ended or used up its time, or until Ctrl-C."""
    begun_s = time.monotonic()
    try:
        while any(
            p.popen.poll() is None and time.monotonic() - begun_s < patience_s(p)
            for p in processes
        ):
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return


def free_domain_id() -> int:
    """A DDS domain that no participant on this host uses at the moment.

    The first participant of domain d listens on UDP port 7410 + 250 d (DDS-RTPS 2.5, 9.6.2.3).

    Raises:
        NodeFailed: All are taken.
    """
    first = os.getpid() % _DOMAINS
    for offset in range(_DOMAINS):
        domain = 1 + (first + offset) % _DOMAINS
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                port = _FIRST_PORT + _PORTS_PER_DOMAIN * domain + _UNICAST_OFFSET
                probe.bind(("", port))
            except OSError:
                continue
            return domain
    raise NodeFailed("all ROS domains of this host are in use; stop some ROS processes")


def domains_in_use() -> list[int]:
    """The DDS domains whose ports a process on this host listens on; others may be among them.

    Participant p of domain d listens on UDP port 7410 + 250 d + 2 p (DDS-RTPS 2.5, 9.6.2.3).
    """
    ports = set()
    for name in ("udp", "udp6"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            ports.update(int(line.split()[1].rsplit(":", 1)[1], 16) for line in lines)
    first = _FIRST_PORT + _UNICAST_OFFSET
    domains = {(port - first) // _PORTS_PER_DOMAIN for port in ports if port >= first}
    return sorted(domain for domain in domains if domain <= _DOMAINS)


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
