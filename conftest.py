"""Runs every pytest of the repository inside the ROS environment and apart from other ROS systems.

The loader reads library paths at the start of a process, so pytest starts itself once more.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from dexgrasp_sim.ros_environment import WorkspaceError, ros_environment

_MARK = "DEXGRASP_TEST_PID"
sys.path.insert(0, str(Path(__file__).parent))  # for `benchmarks` and `test_support`


def _is_prepared() -> bool:
    """Whether this process, or the one that has started it to share the work, began anew."""
    return os.environ.get(_MARK) in (str(os.getpid()), str(os.getppid()))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if _is_prepared():
        return
    try:
        environment = ros_environment()
    except WorkspaceError:
        return  # tests without ROS can still run; pytest_report_header says why the others fail
    environment |= {
        _MARK: str(os.getpid()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),  # two test runs on one host do not meet
        "ROS_LOG_DIR": tempfile.mkdtemp(prefix="dexgrasp_ros_log_"),
        "ROS_PYTHON_CHECK_FIELDS": "1",  # else wrong types in message fields pass silently
    }
    config.pluginmanager.getplugin("capturemanager").stop_global_capturing()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def pytest_report_header() -> str:
    if not _is_prepared():
        return "ROS: workspace not built, tests that need it fail (run `make setup`)"
    return f"ROS: domain {os.environ['ROS_DOMAIN_ID']}, logs {os.environ['ROS_LOG_DIR']}"


def pytest_unconfigure() -> None:
    if os.environ.get(_MARK) == str(os.getpid()):
        shutil.rmtree(os.environ["ROS_LOG_DIR"], ignore_errors=True)
