"""What a GPU host is, and whether Warp and MuJoCo Warp work on it.

`python -m benchmarks.gpu.facts cuda` prints a JSON object.
"""

import json
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import check_device, wait_for
from benchmarks.grasp_tape import grasp_config
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.vec_env import allocate

_FIELDS = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit"
_PACKAGES = ("torch", "numpy", "numba", "mujoco", "mujoco-warp", "warp-lang", "pydantic")
_WORLDS = 64


def facts(device: str) -> dict[str, Any]:
    """Versions, the GPU, its copy rate, and seconds of first steps."""
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
        "nvidia_smi": _nvidia_smi(),
        "shared_memory_gib": round(shutil.disk_usage("/dev/shm").total / 2**30, 1),
        "cuda": torch.version.cuda,
    }
    if device != "cpu":
        found["compute_capability"] = torch.cuda.get_device_capability()
        found["copy_gb_per_s"] = _copy_rate()
    return {**found, **_first_steps(device)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _nvidia_smi() -> str | None:
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except OSError:
        return None


def _copy_rate() -> float:
    """GB/s of copies on the device, bytes read and written."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    for _ in range(20):
        target.copy_(source)
    torch.cuda.synchronize()
    return round(20 * 2 * source.nbytes / (time.perf_counter() - started_s) / 1e9, 1)


def _first_steps(device: str) -> dict[str, Any]:
    """The task with MuJoCo Warp: seconds of the start, and of a first and a second step."""
    started_s = time.perf_counter()
    config = grasp_config(Path("config/laptop_depth.yaml"), 60.0).task
    config = replace(config, physics=replace(config.physics, backend="mujoco_warp"))
    env = make_grasp_env(config, _WORLDS, groups=("proprio", "depth"), device=device)
    out = allocate(env)
    env.reset(out)
    where = check_device(device)
    times = {"start_s": round(time.perf_counter() - started_s, 2)}
    actions = torch.zeros(_WORLDS, env.action_dim, device=where)
    for name in ("first_step_s", "second_step_s"):
        wait_for(where)
        started_s = time.perf_counter()
        env.step(actions, out)
        wait_for(where)
        times[name] = round(time.perf_counter() - started_s, 4)
    depth = out["depth"]
    return {**times, "depth_in_range": round(float((depth > 0).float().mean()), 3)}


if __name__ == "__main__":
    print(json.dumps(facts(sys.argv[1])))
