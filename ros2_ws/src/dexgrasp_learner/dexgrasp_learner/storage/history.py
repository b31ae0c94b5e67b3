"""What a run was told and when: the settings of every start, and the files that they name.

`config.yaml` in a run folder holds the present settings. `history.jsonl` has a line for each
start of the run: from which iteration on, at which commit, which settings were changed, and the
hashes of the mesh and robot files in use.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.console import warn
from dexgrasp_learner.storage.checkpoint_files import run_folder_of, sha256, write_atomically
from dexgrasp_sim.config import ConfigError, to_dict
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.version import git_commit
from dexgrasp_sim.yaml_file import as_yaml

CONFIG, HISTORY = "config.yaml", "history.jsonl"

Changes = dict[str, tuple[Any, Any]]
"""`group.key` to its old and its new value."""


def load_settings(folder: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The present settings of a run, for going on with it.

    Args:
        folder: The run folder.
        overrides: `a.b=value` strings that change them.

    Raises:
        ConfigError: `config.yaml` is missing, empty or wrong.
    """
    path = folder / CONFIG
    if path.is_file() and not path.stat().st_size:  # as a disk that was full leaves it
        raise ConfigError(
            f"{path}: is empty; restore it from a copy, or from `config` in a checkpoint's "
            "state.json"
        )
    return load_run_config(path, list(overrides))


def record_start(
    folder: Path, config: RunConfig, iteration: int = 0, changes: Changes | None = None
) -> None:
    """Writes `config.yaml` and adds a line to `history.jsonl`.

    Args:
        folder: The run folder.
        config: With which the run goes on.
        iteration: Iterations done.
        changes: What differs from the settings before, see `config_changes`.

    Raises:
        ConfigError: A file that the config names cannot be read.
        OSError: The run folder cannot be written.
    """
    line = {
        "iteration": iteration,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": git_commit(),
        "changes": {key: new for key, (_, new) in (changes or {}).items()},
        "files": file_hashes(config),
    }
    write_atomically(folder / CONFIG, as_yaml(to_dict(config)))
    earlier = "".join(json.dumps(entry) + "\n" for entry in read_history(folder))
    write_atomically(folder / HISTORY, earlier + json.dumps(line) + "\n")


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of `history.jsonl`, without what is damaged; none in runs of earlier versions."""
    try:
        lines = (folder / HISTORY).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [entry for entry in map(_parsed, lines) if isinstance(entry, dict)]


def config_changes(old: RunConfig, new: RunConfig) -> Changes:
    """What differs between two configs, in the order of the keys; lists count as one value."""
    return dict(_differences(to_dict(old), to_dict(new)))


def file_hashes(config: RunConfig) -> dict[str, str]:
    """SHA-256 by path of the mesh files and of the robot that a config names by path.

    The robot's is over all its files, see `Robot.sha256`.

    Raises:
        ConfigError: One cannot be read.
    """
    meshes = [item.path for item in config.task.objects if item.path is not None]
    try:
        hashes = {str(path): sha256(path) for path in meshes}
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: cannot be read ({error.strerror}); correct `task.objects`"
        ) from None
    if config.task.robot.endswith(".yaml"):
        hashes[config.task.robot] = load_robot(config.task.robot).sha256
    return hashes


def changed_files(folder: Path, config: RunConfig) -> list[str]:
    """Mesh and robot files of a config that are not those with which the run has trained."""
    known: dict[str, str] = {}
    for entry in read_history(folder):
        known |= entry.get("files") or {}
    hashes = file_hashes(config)
    return [path for path, found in hashes.items() if known.get(path, found) != found]


def check_files(folder: Path, config: RunConfig) -> None:
    """Makes sure that a run goes on with the mesh and robot files that it began with.

    Raises:
        ConfigError: One has changed, or cannot be read.
    """
    if changed := changed_files(folder, config):
        raise ConfigError(
            f"{', '.join(changed)}: changed since the run {folder} has trained with it; restore "
            "it, start a new run, or say --allow-changed-files"
        )


def warn_of_changed_files(path: Path, config: RunConfig) -> None:
    """Says which mesh and robot files are not those that a policy was trained with.

    Args:
        path: Of the policy: run folder or checkpoint.
        config: Of the task in which the policy shall act.
    """
    if changed := changed_files(run_folder_of(path), config):
        warn(f"{', '.join(changed)}: changed since the training of {path}")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Changes:
    found: Changes = {}
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found |= _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found[prefix + key] = (before, after)
    return found


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
