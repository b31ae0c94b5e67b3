"""How a worker on another host comes and leaves."""

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import socket
import sys
import threading

from dexgrasp_sim.transport.handshake import Dialogue, as_learner
from dexgrasp_sim.transport.worker_link import StreamWorkerLink
from dexgrasp_sim.worker.process import exit_with_learner

secret = b"0123456789abcdef" * 2
listener = socket.create_server(("127.0.0.1", 0))


def let_in():
    global learner
    learner, _ = listener.accept()
    dialogue = Dialogue(as_learner(secret))
    learner.sendall(dialogue.outgoing)
    for _ in range(3):  # start, nonce, proof
        learner.sendall(dialogue.feed(learner.recv(dialogue.wanted, socket.MSG_WAITALL)))


thread = threading.Thread(target=let_in)
thread.start()
address = f"127.0.0.1:{listener.getsockname()[1]}"
link = StreamWorkerLink(address, index=0, timeout_s=10.0, secret=secret)
thread.join()
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


def run_worker(*options, **environment):
    command = [sys.executable, "-m", "dexgrasp_sim.worker", "--index", "0", *options]
    variables = {name: v for name, v in os.environ.items() if not name.startswith("DEXGRASP_SEC")}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=100.0,
        check=False,
        env={**variables, **environment},
    )


def test_a_worker_without_a_secret_says_where_it_is_to_be_had():
    found = run_worker("--learner", "127.0.0.1:1")
    assert found.returncode == 2
    assert re.search("--secret-file FILE, .* none of them is given; .*run folder", found.stderr)
    assert len(found.stderr.splitlines()) == 1


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef" * 2)
    path.chmod(0o640)
    found = run_worker("--learner", "127.0.0.1:1", DEXGRASP_SECRET_FILE=str(path))
    assert found.returncode == 2
    assert f"{path} has mode 0640" in found.stderr and f"chmod go-rwx {path}" in found.stderr


def test_a_local_worker_needs_no_secret(tmp_path):
    found = run_worker("--run-id", "r", "--secret-file", str(tmp_path / "secret"))
    assert found.returncode == 2
    assert "--secret-file is for --learner" in found.stderr
