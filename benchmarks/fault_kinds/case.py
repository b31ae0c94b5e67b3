"""One fault: what is damaged, the command that meets it, and what it made of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "dexgrasp_deploy.commands.cli")
CONFIG = Path(__file__).parents[2] / "config" / "smoke.yaml"
SMALL = ("simulators.num_envs=4", "training.horizon=4", "training.checkpoint_every=1")
REFUSED = (1, 2)
"""Exit codes with which a command refuses to go on, saying why on one line."""
INTERRUPTED = 130
_TIMEOUT_S = 240.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        fault: Name of the fault.
        code: Exit code.
        said: stdout and stderr.
        expected: Exit codes that are right, beside those of a refusal on one line.
        sound: What else must hold, such as a checkpoint that can be read.
    """

    fault: str
    code: int
    said: str
    expected: tuple[int, ...] = (0,)
    sound: bool = True

    @property
    def traceback(self) -> bool:
        """Whether the user saw a traceback."""
        return "Traceback" in self.said

    @property
    def handled(self) -> bool:
        """Whether the fault was survived, or refused on one line that begins with `dexgrasp`."""
        if self.traceback or not self.sound:
            return False
        reasons = [line for line in self.said.splitlines() if line.startswith("dexgrasp")]
        is_refusal = self.code in REFUSED and len(reasons) == 1
        return self.code in self.expected or is_refusal

    def as_dict(self) -> dict[str, Any]:
        """For the record: a fault that was not handled brings its last lines."""
        tail = [] if self.handled else self.said.splitlines()[-5:]
        return {"fault": self.fault, "code": self.code, "handled": self.handled, "said": tail}


Case = Callable[[Path], Outcome]
"""Takes an empty folder to work in."""


def train(*arguments: str) -> list[str]:
    """A training in this process's settings; `arguments` come on top."""
    sets = [f"--set={value}" for value in SMALL]
    return ["train", str(CONFIG), *sets, "--json", *arguments]


def run(fault: str, arguments: Sequence[str], shell: str = '"$@"', **expected: Any) -> Outcome:
    """Runs a command of dexgrasp to its end.

    Args:
        fault: Name of the fault.
        arguments: Of the command.
        shell: How bash runs it; `"$@"` is the command.
        expected: Fields of the outcome.
    """
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_S,
    )
    return Outcome(fault, done.returncode, done.stdout, **expected)


def _take_hangups() -> None:
    """SIGHUP has its effect, even if the benchmark runs under `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Running:
    """A command in the background, in a process group of its own."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, ignored: Sequence[int] = ()
    ) -> None:
        """Starts it.

        Args:
            arguments: Of the command.
            folder: For what it prints.
            ignored: Signals that it inherits as ignored, as from a script of a shell.
        """
        self._log = folder / "log"
        numbers = " ".join(str(int(number)) for number in ignored)
        shell = f"trap '' {numbers}; exec \"$@\"" if numbers else 'exec "$@"'
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", shell, "bash", *COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_take_hangups,
            )

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_TIMEOUT_S)

    def wait_for(self, is_there: Callable[[], object]) -> None:
        """Waits until something has happened, or the process has ended."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        while not is_there() and self.process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)

    def end(self, fault: str, number: int, to_group: bool = False, **expected: Any) -> Outcome:
        """Sends a signal and waits for the end."""
        if self.process.poll() is None:
            (os.killpg if to_group else os.kill)(self.process.pid, number)
        code = self.process.wait(_TIMEOUT_S)
        return Outcome(fault, code, self._log.read_text(errors="replace"), **expected)
