"""The folder of one training run: what was run, with what, and what it measured."""

import itertools
import json
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.storage.history import file_hashes, record_start
from dexgrasp_learner.storage.provenance import provenance
from dexgrasp_sim.config import ConfigError


def new_run_id(name: str) -> str:
    """A name for a run and its folder: `<name>_<time>`."""
    return f"{name}_{datetime.now():%Y%m%d_%H%M%S}"


def create_run_folder(parent: Path, name: str, config: RunConfig, run_id: str = "") -> Path:
    """Makes `parent/<run id>` with `config.yaml` (resolved), `run.json` (provenance) and history.

    Args:
        parent: Made if it is not there.
        name: Of the config.
        config: The run's.
        run_id: See `new_run_id`; "" makes a new one. An existing folder is not changed; the new
            one then gets a number after its name.

    Raises:
        ConfigError: The folder cannot be written, or a file that the config names not be read.
    """
    file_hashes(config)  # a file that is missing is said before there is a folder
    run_id = run_id or new_run_id(name)
    folder = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = make_folder(parent, run_id)
        (folder / "logs").mkdir()
        (folder / "run.json").write_text(json.dumps(provenance(), indent=2) + "\n")
        record_start(folder, config)
    except OSError as error:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(
            f"run folder {parent / run_id}: {error.strerror}; free some space or give another "
            "--runs folder"
        ) from None
    return folder


def make_folder(parent: Path, name: str) -> Path:
    """Makes `parent/name`, or with a number after the name where it is taken; raises OSError."""
    for attempt in itertools.count(1):
        folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
        with suppress(FileExistsError):  # two runs may start in the same second
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")
