"""Time and memory of work on a device."""

import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def check_device(name: str) -> torch.device:
    """The device of that name; ConfigError if it is a GPU and torch finds none."""
    from dexgrasp_learner.run.assembly import learner_device

    device = torch.device(name)
    if device.type == "cuda":
        learner_device("cuda")
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device


def wait_for(device: torch.device) -> None:
    """Waits until the device has done all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(
    work: Callable[[], object], device: torch.device, least_s: float, warm_up: int = 3
) -> float:
    """Mean seconds of a call when calls follow each other; they take at least `least_s`."""
    for _ in range(warm_up):
        work()
    wait_for(device)
    calls, batch, started_s = 0, 1, time.perf_counter()
    while True:
        for _ in range(batch):
            work()
        wait_for(device)
        calls += batch
        taken_s = time.perf_counter() - started_s
        if taken_s >= least_s:
            return taken_s / calls
        # the host waits for the device a few times only
        batch = max(1, round(calls * min(4.0, (least_s - taken_s) / taken_s)))


def median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of single calls, each with the wait for its end."""
    taken_s = []
    for _ in range(repeats):
        wait_for(device)
        started_s = time.perf_counter()
        work()
        wait_for(device)
        taken_s.append(time.perf_counter() - started_s)
    return statistics.median(taken_s)


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds on a device now, without context and code.

    On a GPU tensors of torch and arrays of Warp; on the CPU all private memory.
    """
    gc.collect()
    if device.type == "cpu":
        return _status_bytes("VmRSS") - _status_bytes("RssFile")
    wait_for(device)
    held = torch.cuda.memory_allocated(device)
    if "warp" in sys.modules:
        import warp

        held += warp.get_mempool_used_mem_current(f"cuda:{device.index}")
    return held


def footprint_bytes(device: torch.device) -> int:
    """Bytes of a device that all processes hold, contexts and code included.

    Torch keeps what it once needed, Warp's pool may not: its peak is counted. On the CPU: private
    memory of this process.
    """
    if device.type == "cpu":
        return held_bytes(device)
    wait_for(device)
    free, total = torch.cuda.mem_get_info(device)
    taken = total - free
    if "warp" in sys.modules:
        import warp

        name = f"cuda:{device.index}"
        taken += warp.get_mempool_used_mem_high(name) - warp.get_mempool_used_mem_current(name)
    return taken


def release(device: torch.device) -> None:
    """Gives unused memory back, so that the next measurement finds it free."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}; run this on Linux")
