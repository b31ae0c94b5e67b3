"""Warp on the device of a worker: start, sequences of launches as CUDA graphs, and their times."""

import os
import sys
import time
from collections.abc import Callable

import torch
import warp as wp

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.warp_streams import current_stream

_MOST_PENDING = 64
"""Pairs of events after which those of ended work are counted."""


def start_warp(device: torch.device) -> tuple[torch.device, wp.Device]:
    """Initialises Warp for a device.

    Returns:
        The device with its index, for torch and for Warp.

    Raises:
        ConfigError: There is no such device, the driver is too old, or Warp cannot write its
            kernel cache.
    """
    wp.config.log_level = wp.LOG_WARNING
    try:
        wp.init()
    except OSError as error:
        raise ConfigError(_cache_refusal(error.filename or wp.config.kernel_cache_dir)) from None
    _check_cache(str(wp.config.kernel_cache_dir))
    if device.type != "cuda":
        return device, wp.get_device("cpu")
    if not torch.cuda.is_available() or wp.get_cuda_device_count() == 0:
        raise ConfigError(
            f"device {str(device)!r} needs an NVIDIA GPU with a driver for CUDA "
            f"{torch.version.cuda}, and torch sees {torch.cuda.device_count()}, Warp "
            f"{wp.get_cuda_device_count()}; install or update the driver, or say device: cpu"
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"device {str(device)!r}: there are {torch.cuda.device_count()} GPUs; give cuda:0 to "
            f"cuda:{torch.cuda.device_count() - 1}"
        )
    return torch.device("cuda", index), wp.get_device(f"cuda:{index}")


def _check_cache(folder: str) -> None:
    if not os.access(folder, os.W_OK):
        raise ConfigError(_cache_refusal(folder))
    if not any(os.scandir(folder)):
        print(
            f"mujoco_warp: compiles its kernels into {folder}, which takes minutes, once",
            file=sys.stderr,
            flush=True,
        )


def _cache_refusal(folder: object) -> str:
    return (
        f"Warp cannot write its kernel cache {folder}; make it writable, or set WARP_CACHE_PATH "
        "to a folder that is"
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch, Warp or a CUDA graph found too little memory."""
    text = str(error).lower()
    return any(part in text for part in ("out of memory", "failed to allocate"))


class Launches:
    """A fixed sequence of kernel launches in torch's current stream.

    On a GPU the first call launches the kernels one by one, which compiles and loads them, then
    captures a CUDA graph, which the later calls replay.
    """

    def __init__(
        self, device: wp.Device, launch: Callable[[], None], use_graph: bool = True
    ) -> None:
        """Args:
        device: Warp's.
        launch: Launches the kernels, with the same arrays each time.
        use_graph: False: the kernels are always launched one by one.
        """
        self._device, self._launch, self._use_graph = device, launch, use_graph
        self._graph: wp.Graph | None = None

    def __call__(self) -> None:
        """Runs the sequence; on a GPU it does not wait for the end."""
        if not self._device.is_cuda:
            with wp.ScopedDevice(self._device):
                self._launch()
            return
        stream = current_stream(self._device)
        if self._graph is not None:
            wp.capture_launch(self._graph, stream=stream)
            return
        with wp.ScopedDevice(self._device):
            with wp.ScopedStream(stream, sync_enter=False):
                self._launch()
            if not self._use_graph:
                return
            with wp.ScopedStream(wp.Stream(self._device)), wp.ScopedCapture() as capture:
                self._launch()
        self._graph = capture.graph


class Stopwatch:
    """Seconds spent in stages; on a GPU by events, so that nobody waits for them."""

    def __init__(self, device: torch.device, stages: tuple[str, ...]) -> None:
        """Args:
        device: Torch's.
        stages: Their names.
        """
        self._device, self._seconds = device, dict.fromkeys(stages, 0.0)
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def time(self, stage: str, work: Callable[[], None]) -> None:
        """Does some work and counts its time."""
        if self._device.type != "cuda":
            started = time.perf_counter()
            work()
            self._seconds[stage] += time.perf_counter() - started
            return
        stream = torch.cuda.current_stream(self._device)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream)
        work()
        end.record(stream)
        self._pending.append((stage, begin, end))
        if len(self._pending) >= _MOST_PENDING:
            self.seconds()

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, of the work that has ended."""
        while self._pending and self._pending[0][2].query():
            stage, begin, end = self._pending.pop(0)
            self._seconds[stage] += begin.elapsed_time(end) / 1e3
        return dict(self._seconds)
