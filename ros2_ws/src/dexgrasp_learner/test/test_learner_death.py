"""However a learner ends, its workers end with it and its shared memory goes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dexgrasp_sim.transport.shared_memory import live_runs, run_folder
from test_support.waiting import wait_until

pytestmark = pytest.mark.slow

TIMEOUT_S = 120.0


def processes_of(run_id):
    """Ids of live processes that have the run id in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if run_id.encode() in command and b"dexgrasp_sim.worker" in command:
            found.append(int(folder.name))
    return found


def nothing_is_left(run_id):
    return not (run_folder(run_id).exists() or processes_of(run_id))


@pytest.fixture
def run_id():
    name = f"test-{os.getpid()}-{os.urandom(4).hex()}"
    yield name
    assert nothing_is_left(name)


LEARNER = """
import os, sys, time
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.pool_spec import PoolSpec
pool = make_pool(PoolSpec(kind="synthetic", config={config}, groups=("state",), horizon=2,
                          simulators=SimulatorsConfig(num_envs=4, restarts=0),
                          run_id=sys.argv[1]))
pool.start()
pool.send(0, 0)
print("ready", flush=True)
{then}
"""


def start_learner(run_id, then, config=None):
    """A learner with two workers in a process and a session of its own."""
    learner = subprocess.Popen(
        [sys.executable, "-c", LEARNER.format(then=then, config=config or {}), run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert learner.stdout is not None
    assert learner.stdout.readline() == "ready\n"
    assert len(processes_of(run_id)) == 2
    assert run_id in live_runs()
    return learner


@pytest.mark.parametrize("config", [None, {"fault": "hang", "fault_step": 1}])
def test_a_killed_learner_takes_its_workers_and_its_memory_along(run_id, config):
    learner = start_learner(run_id, "time.sleep(600)", config)
    learner.kill()
    learner.communicate()
    wait_until(lambda: nothing_is_left(run_id), "its workers and its shared memory to go")


def test_ctrl_c_reaches_the_learner_alone_which_closes_in_order(run_id):
    learner = start_learner(run_id, "time.sleep(600)")
    os.killpg(learner.pid, signal.SIGINT)
    learner.communicate(timeout=TIMEOUT_S)
    assert nothing_is_left(run_id)


def test_a_learner_that_forgets_to_close_leaves_nothing(run_id):
    learner = start_learner(run_id, "sys.stdin.read()")  # ends when stdin is closed
    learner.communicate(timeout=TIMEOUT_S)
    assert learner.returncode == 0
    assert nothing_is_left(run_id)
