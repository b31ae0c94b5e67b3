"""The folder of one training run: what was run, with what, and what it measured."""

import itertools
import json
import platform
import subprocess
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import torch
import yaml

from dexgrasp_sim.config import ConfigError, to_dict


def new_run_id(name: str) -> str:
    """A name for a run and its folder: `<name>_<time>`."""
    return f"{name}_{datetime.now():%Y%m%d_%H%M%S}"


def create_run_folder(parent: Path, name: str, config: Any, run_id: str = "") -> Path:
    """Makes `parent/<run id>` with `config.yaml` (resolved) and `run.json` (provenance).

    Args:
        parent: Made if it is not there.
        name: Of the config.
        config: A config dataclass.
        run_id: See `new_run_id`; "" makes a new one. An existing folder is not changed; the new
            one then gets a number after its name.

    Raises:
        ConfigError: The folder cannot be written.
    """
    run_id = run_id or new_run_id(name)
    folder = parent / run_id
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = _make_folder(parent, run_id)
        (folder / "logs").mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
        (folder / "run.json").write_text(json.dumps(provenance(), indent=2) + "\n")
    except OSError as error:
        raise ConfigError(
            f"run folder {folder}: {error.strerror}; give a writable --runs folder"
        ) from None
    return folder


def _make_folder(parent: Path, name: str) -> Path:
    for attempt in itertools.count(1):
        folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
        with suppress(FileExistsError):  # two runs may start in the same second
            folder.mkdir()
            return folder
    raise AssertionError("unreachable")


def provenance() -> dict[str, Any]:
    """Commit, versions and hardware, for run folders, bundles and benchmark files."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPU of this machine, as figures must name them."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_kb = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if "MemTotal" in line), 0
    )
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    cores = torch.multiprocessing.cpu_count()
    return {"cpu": processor, "cores": cores, "memory_gb": round(memory_kb / 2**20, 1), "gpu": gpu}


def git_commit() -> str:
    """The commit of the source tree, with "-dirty" when it has uncommitted changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return result.stdout.strip() or "unknown"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
