"""How a worker on another host leaves."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import threading

from dexgrasp_sim.transport.tcp import TcpListener
from dexgrasp_sim.transport.worker_link import StreamWorkerLink
from dexgrasp_sim.worker.process import exit_with_learner

listener = TcpListener("127.0.0.1:0")
link = StreamWorkerLink(listener.address, index=0, timeout_s=10.0)
learner = listener.accept(10.0)
is_over = threading.Event()
if sys.argv[1] == "after STOP":
    is_over.set()
learner.close()
exit_with_learner(link, is_over)
print("by itself")
"""


@pytest.mark.parametrize(
    ("when", "ending"),
    [
        ("after STOP", (0, "by itself\n", "")),
        ("before", (1, "", r"dexgrasp worker: the learner at 127\.0\.0\.1:\d+ is gone\n")),
    ],
)
def test_a_closed_connection_ends_the_process_unless_it_leaves_already(when, ending):
    command = [sys.executable, "-c", SCRIPT, when]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100.0, check=False)
    returncode, stdout, stderr = ending
    assert (found.returncode, found.stdout) == (returncode, stdout)
    assert re.fullmatch(stderr, found.stderr)
