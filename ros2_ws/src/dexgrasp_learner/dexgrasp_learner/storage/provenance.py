"""Where a result comes from: commit, versions and hardware."""

import platform
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import torch

from dexgrasp_sim.version import git_commit


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


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
