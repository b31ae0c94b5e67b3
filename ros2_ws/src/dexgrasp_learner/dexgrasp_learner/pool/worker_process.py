"""The learner's end of one simulator worker: its process, its socket, its log."""

import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dexgrasp_sim
from dexgrasp_learner.console import warn
from dexgrasp_learner.pool.pool_spec import WorkerSpec
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.channel import TRANSFER_TIMEOUT_S, Channel, ChannelClosed, Listener
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError
from dexgrasp_sim.transport.shared_memory import socket_path
from dexgrasp_sim.worker.process import THREAD_VARIABLES

_TAIL_LINES = 20
_TAIL_BYTES = 8192
_EXIT_TIMEOUT_S = 1.5
_KILL_TIMEOUT_S = 10.0
_FOREIGN_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "AMENT_PREFIX_PATH")
"""What points one interpreter at another one's libraries, so that imports crash."""


class WorkerDied(RuntimeError):
    """A worker has ended, or has lost its connection, without being asked to.

    Attributes:
        index: Worker index.
        returncode: Exit code, negative for a signal; None if it is not known or still ending.
        stderr_tail: Last lines of the traceback it has sent, else of its log.
    """

    def __init__(self, index: int, returncode: int | None, stderr_tail: list[str]) -> None:
        super().__init__(
            f"simulator worker {index} died (exit code {returncode}); it said last:\n"
            + "\n".join(stderr_tail or ["(nothing)"])
        )
        self.index = index
        self.indices = [index]
        self.returncode = returncode
        self.stderr_tail = stderr_tail


class WorkerProcess:
    """One worker, whether this learner has started it or a person has.

    Attributes:
        index: Worker index.
        spec: How it is started.
        channel: Connection to it, None before it has connected.
        log_path: Where its stdout and stderr go, if this learner has started it.
    """

    def __init__(self, run_id: str, index: int, spec: WorkerSpec, log_path: Path) -> None:
        """Listens for the worker; `spawn` starts it."""
        self.run_id = run_id
        self.index = index
        self.spec = spec
        self.log_path = log_path
        self._log_start = 0
        self.channel: Channel | None = None
        self._listener = Listener(socket_path(run_id, index))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """Program and arguments that start this worker."""
        python = self.spec.python or sys.executable
        module = ["-m", "dexgrasp_sim.worker"]
        return [python, *module, "--run-id", self.run_id, "--index", str(self.index)]

    @property
    def command_line(self) -> str:
        """The same for a shell, for a person to start it on this host."""
        return shlex.join(self.command)

    @property
    def pid(self) -> int | None:
        """Process id, None for a worker started by hand."""
        return self._process.pid if self._process else None

    @property
    def source(self) -> Channel | Listener:
        """Where news of it comes from next."""
        return self.channel or self._listener

    @property
    def is_alive(self) -> bool:
        """Whether its process runs or, if a person has started it, is connected."""
        if self._process is not None:
            return self._process.poll() is None
        return self.channel is not None

    def spawn(self) -> None:
        """Starts the worker, or says how a person can.

        Its own session keeps a Ctrl-C in the terminal from it: the learner gets it and stops
        the workers in order. Its log goes on where that of a worker before it ends.

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

    def replace(self) -> None:
        """Ends what is left of the worker, for it must not write any more, and starts another.

        Raises:
            subprocess.TimeoutExpired: The operating system does not end it.
        """
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(_KILL_TIMEOUT_S)
        self.spawn()

    def connect(self) -> bool:
        """Takes the worker's connection if it has come; says whether it is connected."""
        if self.channel is None:
            self.channel = self._listener.accept(0.0)
        return self.channel is not None

    def check_started(self) -> None:
        """Raises WorkerDied if its process has ended before it could connect."""
        if self.channel is None and self._process and self._process.poll() is not None:
            raise self.died()

    def send(self, message: Message) -> None:
        """Sends a message.

        Raises:
            WorkerDied: The worker is gone.
        """
        try:
            self.connected().send(message)
        except ChannelClosed:
            raise self.died() from None

    def receive(self) -> Message:
        """The worker's message that has begun to arrive.

        Raises:
            WorkerDied: The worker is gone, or sends an ERROR.
            ProtocolError: It is of another version.
        """
        try:
            message = self.connected().receive(TRANSFER_TIMEOUT_S)
        except ChannelClosed:
            raise self.died() from None
        if message.type == MessageType.ERROR:
            raise self.died(str((message.payload or {}).get("text", "")))
        return message

    def died(self, text: str = "") -> WorkerDied:
        """The error to raise about this worker; waits a moment for its exit code.

        Args:
            text: The traceback that it has sent, "" to read its log.
        """
        returncode = self._wait(_EXIT_TIMEOUT_S)
        lines = text.splitlines() or self._log_tail()
        return WorkerDied(self.index, returncode, lines[-_TAIL_LINES:])

    def ask_to_stop(self) -> None:
        """Sends STOP if it can be sent."""
        if self.channel is not None:
            with suppress(ChannelClosed):
                self.channel.send(Message(MessageType.STOP))

    def end(self, deadline_s: float) -> None:
        """Waits until `deadline_s` (monotonic) for the worker to leave, then ends it by force."""
        if self.channel is not None:
            with suppress(TimeoutError, ChannelClosed, ProtocolError):
                while True:
                    self.channel.receive(max(deadline_s - time.monotonic(), 0.0))
            self.channel.close()
        self._listener.close()
        if self._process is not None:
            if self._wait(deadline_s - time.monotonic()) is None:
                self._process.terminate()
            if self._wait(_EXIT_TIMEOUT_S) is None:
                self._process.kill()
                if self._wait(_KILL_TIMEOUT_S) is None:  # the others are to be ended all the same
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

    def connected(self) -> Channel:
        """The connection; raises RuntimeError before there is one."""
        if self.channel is None:
            raise RuntimeError(f"worker {self.index} is not connected; call start() first")
        return self.channel


def worker_environment(python: str, threads: int) -> dict[str, str]:
    """Environment variables of a worker process.

    Args:
        python: Interpreter; "" is this one, which keeps what this one was given. Another one
            must not find this one's libraries, nor a ROS made for this one.
        threads: For the thread pools of numerical libraries.
    """
    environment = dict(os.environ)
    if python and Path(python).absolute() != Path(sys.executable):
        ros = [name for name in environment if name.startswith(("ROS_", "RMW_"))]
        for name in (*_FOREIGN_VARIABLES, *ros):
            environment.pop(name, None)
    environment.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    root = Path(str(dexgrasp_sim.__file__)).parents[1]
    if not (root / "torch").exists():  # a source tree or workspace, no shared site-packages
        paths = [str(root), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment
