"""Stop signals in real processes, as a shell, `nohup`, a terminal or a launcher sends them."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

TIMEOUT_S = 60.0
COMMAND = """
import signal, sys, time
from dexgrasp_sim.stop_signals import stop_signals
try:
    with stop_signals():
        print("ready", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    print("stopped", flush=True)
    sys.stdin.readline()  # late signals arrive now
"""
ORDERLY = """
import sys
from dexgrasp_sim.stop_signals import stop_signals
asked = []
with stop_signals(lambda: asked.append(1)):
    print("ready", flush=True)
    while sys.stdin.readline() != "end\\n":
        pass
print(len(asked), flush=True)
"""
SPAWNER = """
import subprocess, sys
from dexgrasp_sim.stop_signals import children_without_stop_signals
with children_without_stop_signals():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, grandchild.pid, flush=True)
import os, signal
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    os.kill(child.pid, number)
os.kill(grandchild.pid, signal.SIGTERM)
print(grandchild.wait(60), child.poll())
child.kill()
"""


@pytest.fixture
def start():
    """Starts a script, with signals ignored as its parent has set them."""
    processes = []

    def start(script, ignored=()):
        prelude = "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # of whoever runs the tests
        prelude += "".join(f"signal.signal({int(n)}, signal.SIG_IGN); " for n in ignored)
        launcher = f"import os, signal, sys; {prelude}os.execv(sys.executable, sys.argv[1:])"
        command = [sys.executable, "-c", launcher, sys.executable, "-c", script]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


ALL = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_script_starts_in_the_background_obeys(start, number):
    process = start(COMMAND, ignored=ALL)
    process.send_signal(number)
    assert process.stdout.readline() == "stopped\n"


def test_a_closed_terminal_stops(start):
    process = start(COMMAND)
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "stopped\n"


def test_nohup_outlives_the_terminal(start):
    process = start(COMMAND, ignored=[signal.SIGHUP])
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopped\n"


def test_signals_after_the_stop_do_no_harm(start):
    process = start(COMMAND)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopped\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    out, _ = process.communicate("go on\n", timeout=TIMEOUT_S)
    assert (process.returncode, out) == (0, "")


def test_one_request_that_arrives_as_several_signals_is_one(start):
    process = start(ORDERLY)
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
        process.stdin.write("look\n")
        process.stdin.flush()
    out, _ = process.communicate("end\n", timeout=TIMEOUT_S)
    assert (process.returncode, out) == (0, "1\n")


def test_a_child_that_its_parent_ends_gets_no_stop_signal():
    result = subprocess.run(
        [sys.executable, "-c", SPAWNER], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert result.stdout.splitlines()[1] == f"{-signal.SIGTERM} None", result.stderr
