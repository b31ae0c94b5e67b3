"""The environment that a child process needs to import rclpy and dexgrasp_msgs.

This module imports no ROS: the loader reads library paths only at the start of a process, so ROS
can be made available to a child process but not to the running one.
"""

import os
import subprocess
from importlib import metadata
from pathlib import Path

from dexgrasp_sim.config import ConfigError

ROOT_VARIABLE = "DEXGRASP_ROOT"
_ROOT_MARK = Path("ros2_ws/src/dexgrasp_msgs/package.xml")
_SETUP = Path("ros2_ws/install/setup.bash")
_MESSAGES = Path("ros2_ws/install/dexgrasp_msgs")
_FASTDDS_PROFILES = Path("scripts/fastdds.xml")
_WHEEL_DISTROS = ("jazzy", "kilted")
_BOOTSTRAP_GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


class WorkspaceError(ConfigError):
    """The repository or the built ROS workspace was not found; the message says what to do."""


def find_workspace_root() -> Path:
    """The repository's root folder: $DEXGRASP_ROOT, else a parent of this file or of the cwd.

    Raises:
        WorkspaceError: None of them holds the workspace.
    """
    if given := os.environ.get(ROOT_VARIABLE):
        candidates = [Path(given).resolve()]
    else:
        candidates = [*Path(__file__).resolve().parents, *(Path.cwd() / "_").parents]
    for candidate in candidates:
        if (candidate / _ROOT_MARK).is_file():
            return candidate
    where = f"{ROOT_VARIABLE}={given}" if given else f"{__file__} and {Path.cwd()}"
    raise WorkspaceError(
        f"no {_ROOT_MARK} at or above {where}; set {ROOT_VARIABLE} to the dexgrasp repository"
    )


def wheels_distro() -> str | None:
    """The ROS 2 distribution installed from wheels beside this Python; None without wheels."""
    for distro in _WHEEL_DISTROS:
        try:
            metadata.version(f"ros-{distro}-rclpy")
        except metadata.PackageNotFoundError:
            continue
        return distro
    return None


def ros_environment() -> dict[str, str]:
    """This process's environment with the built ROS workspace and its ROS 2 added.

    It is the result of `source ros2_ws/install/setup.bash`, for ROS 2 from a system installation
    or from wheels, plus our Fast DDS profile and discovery limited to this host, unless these
    variables are already set.

    Raises:
        WorkspaceError: The repository was not found or its workspace is not built.
    """
    root = find_workspace_root()
    setup = root / _SETUP
    if not (setup.is_file() and (root / _MESSAGES).is_dir()):
        raise WorkspaceError(f"{setup} with dexgrasp_msgs is missing; run `make setup` in {root}")
    environment = _sourced(setup)
    distro = wheels_distro() or environment.get("ROS_DISTRO", "")
    environment.setdefault(_fastdds_variable(distro), str(root / _FASTDDS_PROFILES))
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return environment


def _fastdds_variable(distro: str) -> str:
    """The variable that names the profile file; Kilted's Fast DDS 3 warns about the older one."""
    return f"FAST{'RTPS' if distro == 'jazzy' else 'DDS'}_DEFAULT_PROFILES_FILE"


def _sourced(setup: Path) -> dict[str, str]:
    # with the guard a child Python would use library paths that may belong to another venv
    inherited = {key: value for key, value in os.environ.items() if key != _BOOTSTRAP_GUARD}
    try:
        result = subprocess.run(
            ["bash", "-c", 'source "$1" >&2 && env -0', "bash", str(setup)],
            env=inherited,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=30,
        )
    except subprocess.CalledProcessError as error:
        reason = os.fsdecode(error.stderr).strip().splitlines()[-1:] or ["no output"]
        raise WorkspaceError(
            f"{setup} cannot be sourced ({reason[0]}); run `make clean setup`"
        ) from None
    pairs = (pair.partition("=") for pair in os.fsdecode(result.stdout).split("\0") if pair)
    return {key: value for key, _, value in pairs if key != _BOOTSTRAP_GUARD}
