"""How a worker on another host leaves."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import threading

from dexgrasp_sim.worker.remote import _leave_with_learner
from dexgrasp_sim.transport.tcp import TcpListener, connect_tcp

listener = TcpListener("127.0.0.1:0")
channel = connect_tcp(listener.address)
learner = listener.accept(10.0)
is_over = threading.Event()
if sys.argv[1] == "after STOP":
    is_over.set()
learner.close()
_leave_with_learner(channel, is_over)
print("by itself")
"""


@pytest.mark.parametrize(
    ("when", "ending"),
    [
        ("after STOP", (0, "by itself\n", "")),
        ("before", (1, "", "dexgrasp remote worker: the learner is gone\n")),
    ],
)
def test_a_closed_connection_ends_the_process_unless_it_leaves_already(when, ending):
    command = [sys.executable, "-c", SCRIPT, when]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100.0, check=False)
    assert (found.returncode, found.stdout, found.stderr) == ending
