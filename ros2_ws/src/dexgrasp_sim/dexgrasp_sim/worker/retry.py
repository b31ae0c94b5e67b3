"""A worker that is started anew when it is lost: `python -m dexgrasp_sim.worker --retry N`."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

WRONG_CONFIG = 2
_EXIT_TIMEOUT_S = 10.0


def run_again(arguments: Sequence[str], times: int) -> int:
    """Runs a worker in a process of its own, and once more each time it is lost.

    It is not started again where it ends by the learner's word or where its arguments are wrong.
    SIGINT and SIGTERM end it for good.

    Args:
        arguments: Of the command line, `--retry` included.
        times: How often it is started anew at most.

    Returns:
        The exit code of the last one.
    """
    command = [sys.executable, "-m", "dexgrasp_sim.worker", *arguments, "--retry", "0"]
    for attempt in range(times + 1):
        returncode = _run(command)
        if returncode in (0, WRONG_CONFIG, 128 + signal.SIGINT, 128 + signal.SIGTERM):
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
    """The exit code of a process that ends with this one."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
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
