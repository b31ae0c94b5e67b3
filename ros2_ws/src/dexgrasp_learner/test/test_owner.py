"""A run folder belongs to one training at a time."""

import os
import re
import signal
import subprocess
import sys

import pytest

from dexgrasp_learner.storage.owner import LOCK, OwnerLock
from dexgrasp_sim.config import ConfigError

TIMEOUT_S = 60.0
HOLDER = """
import sys, time
from pathlib import Path
from dexgrasp_learner.storage.owner import OwnerLock
lock = OwnerLock(Path(sys.argv[1]))
print("mine", flush=True)
time.sleep(600)
"""


def test_the_second_is_refused_by_the_process_id_of_the_first(tmp_path):
    first = OwnerLock(tmp_path)
    with pytest.raises(ConfigError, match=rf"{tmp_path}: process {os.getpid()} trains in it"):
        OwnerLock(tmp_path)
    first.close()
    first.close()
    OwnerLock(tmp_path).close()


def test_the_owner_of_another_host_is_named_with_its_host(tmp_path):
    first = OwnerLock(tmp_path)
    (tmp_path / LOCK).write_text("17 elsewhere\n")  # as its process on that host has written it
    with pytest.raises(ConfigError, match="process 17 on elsewhere trains"):
        OwnerLock(tmp_path)
    first.close()


def test_a_file_that_is_left_over_or_copied_locks_nothing(tmp_path):
    (tmp_path / LOCK).write_text("1 elsewhere\n")
    OwnerLock(tmp_path).close()


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere/owner\.lock: cannot be written"):
        OwnerLock(tmp_path / "nowhere")


@pytest.mark.slow
def test_the_lock_is_gone_with_a_killed_process(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        with pytest.raises(ConfigError) as caught:
            OwnerLock(tmp_path)
        assert re.search(rf"process {holder.pid} trains in it", str(caught.value))
        holder.kill()
        assert holder.wait(TIMEOUT_S) == -signal.SIGKILL
    OwnerLock(tmp_path).close()


@pytest.mark.slow
def test_a_child_that_outlives_its_learner_does_not_keep_the_lock(tmp_path):
    code = HOLDER.replace(
        "print(", "import subprocess; subprocess.Popen(['sleep', '600']); print("
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mine\n"
            holder.kill()
            holder.wait(TIMEOUT_S)
            OwnerLock(tmp_path).close()
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
