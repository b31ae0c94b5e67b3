"""Commands whose output goes to a pipe, a closed stream, a full disk or no terminal at all."""

import ast
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CLI = f"'{sys.executable}' -m dexgrasp_deploy.commands.cli"
SMOKE = ROOT / "config" / "smoke.yaml"
TIMEOUT_S = 240.0
TRAIN = f"train {SMOKE} --set=simulators.num_envs=8 --set=training.iterations=3 --runs"


def shell(script):
    """Runs a script of bash; returns its exit code, stdout and stderr."""
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments", ["inspect robot --json", "inspect observations", "--help", "train --help"]
)
def test_a_reader_that_leaves_changes_nothing(arguments):
    code, out, err = shell(f"{CLI} {arguments} | head -c 10; exit ${{PIPESTATUS[0]}}")
    assert (code, len(out), err) == (0, 10, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_change_nothing(closed, tmp_path):
    code, _, err = shell(f"{CLI} inspect robot {closed}")
    assert (code, err) == (0, "")
    code, _, err = shell(f"{CLI} inspect robot --robot {tmp_path}/none.yaml {closed}")
    assert code == 2 and "Traceback" not in err


def test_results_that_are_lost_on_a_full_disk_are_a_failure():
    code, _, err = shell(f"{CLI} inspect robot --json > /dev/full")
    assert (code, err) == (1, "dexgrasp: results are lost: No space left on device\n")
    assert shell(f"{CLI} inspect robot 2> /dev/full")[0] == 0


def test_a_training_whose_readers_leave_trains_on(tmp_path):
    code, out, _ = shell(f"{CLI} {TRAIN} {tmp_path} 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert (code, out) == (0, "")
    (folder,) = tmp_path.iterdir()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_without_a_terminal_a_training_prints_lines(tmp_path):
    code, out, err = shell(f"{CLI} {TRAIN} {tmp_path} --json")
    assert code == 0, err
    assert json.loads(out)["iterations"] == 3
    (folder,) = tmp_path.iterdir()
    lines = err.splitlines()
    assert str(folder / "metrics.jsonl") in lines[0]
    assert "\r" not in err and "it/s" not in err
    progress = [line for line in lines if line.startswith("iteration ")]
    assert "iteration 1/3: " in progress[0] and "steps/s" in progress[0]
    assert "iteration 3/3: " in progress[-1] and "success" in progress[-1]


def test_on_a_terminal_there_is_a_bar():
    leader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    script = (
        "from dexgrasp_learner.run.metrics import Progress\n"
        "bar = Progress(2, 0, 'run', enabled=True)\nbar.update(1.0, 0.0, 0.5)\n"
        "bar.update(1.0, 0.0, 0.5)\nbar.close()\n"
    )
    subprocess.run([sys.executable, "-c", script], stderr=terminal, check=True, timeout=TIMEOUT_S)
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # the end of what a closed terminal has shown
        while part := os.read(leader, 100_000):
            shown += part
    os.close(leader)
    assert b"2/2" in shown


def test_no_bar_is_drawn_without_a_terminal():
    """tqdm draws everywhere unless its `disable` says otherwise; None means terminals only."""
    calls = []
    for folder in ("benchmarks", "ros2_ws/src"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm":
                    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    calls.append((path.name, given.get("disable", "False")))
    assert len(calls) > 5
    assert [call for call in calls if call[1] == "False"] == []
