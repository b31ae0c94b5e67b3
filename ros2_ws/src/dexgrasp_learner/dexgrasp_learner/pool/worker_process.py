"""A simulator worker on this host: its process, its socket, its log."""

import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

from dexgrasp_learner.console import warn
from dexgrasp_learner.pool.config import WorkerSpec
from dexgrasp_learner.pool.worker_connection import WorkerConnection, WorkerDied, drain
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.foreign_python import environment_for
from dexgrasp_sim.stop_signals import children_without_stop_signals
from dexgrasp_sim.transport.channel import Channel, ChannelClosed, Listener, ready_channels
from dexgrasp_sim.transport.protocol import Message, MessageType
from dexgrasp_sim.transport.shared_memory import socket_path
from dexgrasp_sim.worker.process import THREAD_VARIABLES

_TAIL_BYTES = 8192
_EXIT_TIMEOUT_S = 1.5
_KILL_TIMEOUT_S = 10.0


class WorkerProcess(WorkerConnection):
    """A worker on this host, started by this learner or by hand.

    Attributes:
        spec: How it is started.
        log_path: Where its stdout and stderr go, if this learner has started it.
    """

    def __init__(self, run_id: str, index: int, spec: WorkerSpec, log_path: Path) -> None:
        """Listens for the worker; `spawn` starts it."""
        python, module = spec.python or sys.executable, ["-m", "dexgrasp_sim.worker"]
        self.command = [python, *module, "--run-id", run_id, "--index", str(index)]
        super().__init__(index, shlex.join(self.command))
        self.spec = spec
        self.log_path = log_path
        self._log_start = 0
        self._listener = Listener(socket_path(run_id, index))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, None for a worker started by hand."""
        return self._process.pid if self._process else None

    @property
    @override
    def source(self) -> Channel | Listener:
        return self.channel or self._listener

    @property
    @override
    def is_alive(self) -> bool:
        """Whether its process runs or, if it was started by hand, is connected."""
        if self._process is not None:
            return self._process.poll() is None
        return self.channel is not None

    @property
    @override
    def refused(self) -> int:
        return len(self._listener.refused)

    @property
    @override
    def traces(self) -> str:
        return f"see {self.log_path}"

    @override
    def spawn(self) -> None:
        """Starts the worker, or prints the command to start it by hand.

        It runs in its own session and ignores SIGINT, SIGTERM and SIGHUP: where all processes get
        them, it is the learner that stops the workers. Its output is appended to the log of the
        worker before it.

        Raises:
            ConfigError: The interpreter cannot be started.
        """
        if not self.spec.spawn:
            warn(f"worker {self.index} is to be started by hand: {self.command_line}")
            return
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "ab") as log:
            self._log_start = log.tell()
            try:
                with children_without_stop_signals():
                    self._process = subprocess.Popen(
                        self.command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=worker_environment(self.spec.python, self.spec.threads),
                        start_new_session=True,
                    )
            except OSError as error:
                raise ConfigError(
                    f"cannot start {self.spec.python!r}: {error.strerror}; give the path of a "
                    "Python interpreter that has dexgrasp's simulator packages"
                ) from None

    @override
    def may_be_replaced(self, hung: bool) -> bool:
        # a worker that seems to hang may write again, and only our own processes can be killed
        return self.spec.spawn or not hung

    @override
    def replace(self) -> None:
        """Kills its process and starts another one.

        Raises:
            subprocess.TimeoutExpired: The operating system does not end the process.
        """
        self.disconnect()
        if self._process is not None:
            self._process.kill()
            self._process.wait(_KILL_TIMEOUT_S)
        self.spawn()

    @override
    def hello(self) -> Message | None:
        if self.channel is None:
            self._accept()
        if self.channel is None:
            if self._process is not None and self._process.poll() is not None:
                raise self.died()
            return None
        if not ready_channels([self.channel], 0.0):
            return None
        return self.receive({MessageType.HELLO, MessageType.ERROR})

    def _accept(self) -> None:
        before = self.refused
        self.channel = self._listener.accept(0.0)
        if self.refused > before:
            warn(
                f"user {self._listener.refused[-1]} is refused as worker {self.index} of this run"
            )

    @override
    def lost(self, error: ChannelClosed) -> WorkerDied:
        return self.died()  # its log tells more than the error

    @override
    def died(self, reason: str = "") -> WorkerDied:
        returncode = self._wait(_EXIT_TIMEOUT_S)
        return WorkerDied(self.index, returncode, reason.splitlines() or self._log_tail())

    @override
    def end(self, deadline_s: float) -> None:
        if self.channel is not None:
            drain(self.channel, deadline_s)
            self.channel.close()
        self._listener.close()
        if self._process is not None and self._wait(deadline_s - time.monotonic()) is None:
            self._process.kill()
            if self._wait(_KILL_TIMEOUT_S) is None:  # only warn, to end the others too
                warn(f"worker {self.index}, process {self._process.pid}, does not end")

    def _log_tail(self) -> list[str]:
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(self._log_start, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []

    def _wait(self, timeout_s: float) -> int | None:
        if self._process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(max(timeout_s, 0.0))
        return None


def worker_environment(python: str, threads: int) -> dict[str, str]:
    """Environment variables of a worker process.

    Args:
        python: Interpreter, see `environment_for`.
        threads: For the thread pools of numerical libraries.
    """
    environment = environment_for(python)
    environment.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    return environment
