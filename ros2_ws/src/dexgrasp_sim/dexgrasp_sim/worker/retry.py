"""Starts a lost worker again: `python -m dexgrasp_sim.worker --retry N`."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from dexgrasp_sim.stop_signals import STOP_SIGNALS

WRONG_CONFIG = 2
_EXIT_TIMEOUT_S = 10.0


def run_again(arguments: Sequence[str], times: int) -> int:
    """Runs a worker in a child process and starts it again when it is lost.

    It is not started again if the learner has stopped it, if its arguments are wrong, or after
    SIGINT, SIGTERM or SIGHUP.

    Args:
        arguments: Of the command line, including `--retry`.
        times: Largest number of restarts.

    Returns:
        The exit code of the last process.
    """
    command = [sys.executable, "-m", "dexgrasp_sim.worker", *arguments, "--retry", "0"]
    for attempt in range(times + 1):
        returncode = _run(command)
        if returncode in (0, WRONG_CONFIG, *(128 + number for number in STOP_SIGNALS)):
            break
        if attempt < times:
            print(
                f"dexgrasp worker: ended with exit code {returncode}; started anew "
                f"({attempt + 1} of {times})",
                file=sys.stderr,
                flush=True,
            )
    return returncode


def _run(command: Sequence[str]) -> int:
    """Runs a command, which is ended with this process; returns its exit code."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except SystemExit as error:
        process.terminate()
        try:
            process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return int(error.code or 0)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
