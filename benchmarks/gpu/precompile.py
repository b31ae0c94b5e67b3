"""Compiles Warp's kernels for a GPU on a machine without one, because that takes minutes.

`WARP_CACHE_PATH=FOLDER python -m benchmarks.gpu.precompile --arch 90 [--tests FILE ...]` runs the
tasks of the benchmarks for a moment on the CPU, and the tests, notes which kernels are launched,
and compiles them into FOLDER. On the GPU host the same WARP_CACHE_PATH then finds them; what it
does not find is compiled there.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import warp as wp

from benchmarks.gpu.device import check_device
from benchmarks.gpu_sim import GROUPS, add_arguments, play_named
from dexgrasp_learner.config import load_run_config
from dexgrasp_sim import random_streams
from dexgrasp_sim.arguments import parse_resolution, whole
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.vec_env import allocate
from dexgrasp_sim.vision import image_errors

_WORLDS = 2
_DEFAULT_THREADS = 256
_FUSED = "_solve_LD_sparse_fused"
"""A kernel that is launched with one thread on a CPU only; on a GPU with `_FUSED_THREADS`."""
_FUSED_THREADS = (64, 128, 256)

Variant = tuple[Any, int]
"""A module of Warp and the threads of a block."""


class Recorder:
    """Notes which modules are launched with how many threads in a block, as a GPU would."""

    def __init__(self) -> None:
        self.variants: dict[tuple[int, int], Variant] = {}
        self._launch, self._launch_tiled = wp.launch, wp.launch_tiled

    def __enter__(self) -> "Recorder":
        """Begins to note."""
        wp.launch, wp.launch_tiled = self._noting(wp.launch), self._noting(wp.launch_tiled)
        return self

    def __exit__(self, *error: object) -> None:
        """Ends."""
        wp.launch, wp.launch_tiled = self._launch, self._launch_tiled

    def _noting(self, launch: Any) -> Any:
        def noting(kernel: Any, *args: Any, **kwargs: Any) -> Any:
            threads = kwargs.get("block_dim") or _DEFAULT_THREADS
            every = _FUSED_THREADS if _FUSED in kernel.key else (threads,)
            for each in every:
                self.variants[id(kernel.module), each] = kernel.module, each
            return launch(kernel, *args, **kwargs)

        return noting


def compile_variants(variants: Sequence[Variant], arch: int) -> int:
    """Compiles all for a GPU architecture; returns how many could not be compiled."""
    failed = 0
    for index, (module, threads) in enumerate(variants):
        started_s = time.monotonic()
        try:
            options = module.resolve_options(wp.config, block_dim=threads)
            module.get_module_hash(threads)
            new = module._compile(output_arch=arch, use_ptx=False, options=options)
        except Exception as error:
            failed += 1
            print(f"{module.name} with {threads} threads: {error}"[:500], file=sys.stderr)
            continue
        if new:
            taken_s = time.monotonic() - started_s
            print(
                f"{index + 1}/{len(variants)} {module.name} {threads} {taken_s:.1f} s", flush=True
            )
    return failed


@contextmanager
def code_of_gpus() -> Iterator[None]:
    """Inside, the CPU runs the kernels of Warp that GPUs run instead of tensor code."""
    with ExitStack() as stack:
        for module in (random_streams, image_errors):
            stack.enter_context(mock.patch.object(module, "has_warp_kernels", lambda _: True))
        yield


def play(arguments: argparse.Namespace) -> None:
    """Runs the tasks of `gpu_sim` and those of runs for a moment, with a reset, as on a GPU."""
    tasks = [play_named(name, arguments).task for name in arguments.tasks]
    for path in arguments.runs:
        task = load_run_config(path).task
        tasks.append(replace(task, physics=replace(task.physics, backend=arguments.backend)))
    for task in tasks:
        for text in arguments.images:
            width, height = parse_resolution(text)
            camera = replace(task.camera, width=width, height=height)
            env = make_grasp_env(
                replace(task, camera=camera), _WORLDS, seed=0, groups=GROUPS, device="cpu"
            )
            out = allocate(env)
            with code_of_gpus():
                env.reset(out)
                for _ in range(2):
                    env.step(torch.zeros(_WORLDS, env.action_dim), out)
                env.reset_envs(torch.arange(_WORLDS), out)
            env.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Records and compiles; 0 if all could be compiled."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--arch", type=whole(0), default=90, help="90: Hopper (H100, H200)")
    parser.add_argument(
        "--runs",
        nargs="*",
        type=Path,
        default=[Path("config/laptop_depth.yaml")],
        metavar="CONFIG",
    )
    parser.add_argument("--tests", nargs="*", type=Path, default=[], help="test files to run, too")
    options = parser.parse_args(arguments)
    options.device = str(check_device("cpu"))
    with Recorder() as recorder:
        play(options)
        if options.tests:
            files = [str(path) for path in options.tests]
            pytest.main(["-q", "-p", "no:cacheprovider", "-k", options.backend, *files])
    variants = sorted(recorder.variants.values(), key=lambda each: (each[0].name, each[1]))
    return int(compile_variants(variants, options.arch) > 0)


if __name__ == "__main__":
    sys.exit(main())
