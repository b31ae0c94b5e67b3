"""What a GPU host is, and whether Warp and MuJoCo Warp work on it.

`python -m benchmarks.gpu.facts cuda` prints a JSON object.
"""

import json
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_FIELDS = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit"
_PACKAGES = ("torch", "numpy", "numba", "mujoco", "mujoco-warp", "warp-lang", "pydantic")
_MODEL = """<mujoco><worldbody><geom type="plane" size="1 1 1"/>
<body pos="0 0 0.2"><freejoint/><geom type="box" size="0.05 0.05 0.05"/></body>
</worldbody></mujoco>"""
_WORLDS = 64


def facts(device: str) -> dict[str, Any]:
    """Versions, the GPU, its copy rate, and seconds of MuJoCo Warp's first and second step."""
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
    started_s = time.perf_counter()
    import mujoco
    import mujoco_warp as mjw
    import warp as wp

    wp.init()
    times = {"warp_start_s": round(time.perf_counter() - started_s, 2)}
    host = mujoco.MjModel.from_xml_string(_MODEL)
    with wp.ScopedDevice(device):
        model, data = mjw.put_model(host), mjw.make_data(host, _WORLDS)
        for name in ("first_step_s", "second_step_s"):
            started_s = time.perf_counter()
            mjw.step(model, data)
            wp.synchronize()
            times[name] = round(time.perf_counter() - started_s, 4)
    height_m = float(wp.to_torch(data.qpos)[:, 2].mean())
    return {**times, "fell": height_m < 0.2}


if __name__ == "__main__":
    print(json.dumps(facts(sys.argv[1])))
