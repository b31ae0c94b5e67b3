"""Which dexgrasp this is."""

import subprocess
from importlib import metadata
from pathlib import Path

UNKNOWN = "unknown"
_FILE = Path(__file__).resolve()


def version() -> str:
    """The version, as of pyproject.toml and the packages."""
    try:
        return metadata.version("dexgrasp")
    except metadata.PackageNotFoundError:  # installed as ROS packages, by colcon
        return metadata.version("dexgrasp_sim")


def git_commit() -> str:
    """The commit of the source tree, with "-dirty" when it has uncommitted changes.

    `UNKNOWN` outside a checkout; an installed copy inside another project's does not count.
    """
    if not _git("ls-files", "--error-unmatch", _FILE.name):
        return UNKNOWN
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or UNKNOWN


def version_line() -> str:
    """One line for people: the version, and the commit in a checkout."""
    commit = git_commit()
    return f"dexgrasp {version()}" + (f" (commit {commit})" if commit != UNKNOWN else "")


def _git(*arguments: str) -> str:
    """What git answers about the folder of this file, "" if it fails."""
    command = ["git", *arguments]
    try:
        result = subprocess.run(
            command, cwd=_FILE.parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
