"""Where a control step of the paper's task spends its time on a GPU.

`python -m benchmarks.gpu.profile DEVICE [--envs N] [--image WxH]` prints a JSON object: `step_ms`,
and of steps under torch's profiler `busy_ms`, in which the device computed, `kernels`, how many it
ran, and `longest`, those that took most of its time. `stages` are parts of a step, each repeated
alone: `ms` of the whole and `host_ms`, after which the host was free again.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.device import check_device, wait_for
from benchmarks.gpu_sim import GROUPS, play_named
from dexgrasp_sim.arguments import parse_resolution, whole
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.vec_env import allocate

_BEGUN = 8
"""Episodes that begin in a usual step."""
_LONGEST = 40


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures; see the module."""
    device = check_device(args.device)
    torch.set_num_threads(1)
    play = play_named("paper", args)
    width, height = parse_resolution(args.image)
    task = replace(play.task, camera=replace(play.task.camera, width=width, height=height))
    env = make_grasp_env(task, args.envs, seed=0, threads=1, groups=GROUPS, device=device)
    out = allocate(env)

    def step() -> None:
        env.step(play.actions(env), out)

    try:
        with torch.inference_mode():
            env.reset(out)
            step_ms, _ = _milliseconds(step, device, args.repeats)
            times = {
                name: dict(zip(("ms", "host_ms"), _milliseconds(work, device, args.repeats)))
                for name, work in stages(env, out).items()
            }
            env.reset(out)
            kernels = _profiled(step, device, args.repeats)
    finally:
        env.close()
    return {"step_ms": step_ms, **kernels, "stages": times}


def stages(env: GraspEnv, out: dict[str, torch.Tensor]) -> dict[str, Callable[[], object]]:
    """Parts of a step of an environment that has sensors, each to be called alone."""
    engine, sensors = env.engine, env._sensors
    assert sensors is not None
    none, every = (torch.arange(count, device=env.device) for count in (0, env.num_envs))
    return {
        "decode": lambda: env.decoder.decode(env.last_action),
        "simulate": env._simulate,
        "measure": lambda: sensors.measure(env.episode_count, env.step_count, none),
        "depth": lambda: engine.render_depth(out["depth"], env.images.cameras.poses),
        "depth_errors": lambda: env.images.errors.add_to_depth(
            out["depth"], env.images.episode, env.step_count
        ),
        "delay_images": lambda: sensors.delay_images(out, none),
        "begin_some": lambda: env.begin_episodes(every[:_BEGUN]),
        "begin_all": lambda: env.begin_episodes(every),
    }


def _milliseconds(
    work: Callable[[], object], device: torch.device, repeats: int
) -> tuple[float, float]:
    """Of a call in a row of calls: until the device has done all, and until the host is free."""
    for _ in range(3):
        work()
    wait_for(device)
    started_s = time.perf_counter()
    for _ in range(repeats):
        work()
    host_s = time.perf_counter() - started_s
    wait_for(device)
    all_s = time.perf_counter() - started_s
    return round(1e3 * all_s / repeats, 3), round(1e3 * host_s / repeats, 3)


def _profiled(work: Callable[[], object], device: torch.device, repeats: int) -> dict[str, Any]:
    """`busy_ms`, `kernels` and `longest` of a call."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as profiler:
        for _ in range(repeats):
            work()
        wait_for(device)
    of_name: defaultdict[str, list[float]] = defaultdict(list)
    for event in profiler.events() or ():
        if event.device_type == DeviceType.CUDA:
            of_name[event.name].append(event.time_range.elapsed_us())
    ordered = sorted(of_name.items(), key=lambda each: -sum(each[1]))
    return {
        "busy_ms": round(sum(map(sum, of_name.values())) / 1e3 / repeats, 3),
        "kernels": round(sum(map(len, of_name.values())) / repeats),
        "longest": [
            {
                "name": name[:120],
                "ms": round(sum(taken) / 1e3 / repeats, 4),
                "times": round(len(taken) / repeats, 1),
            }
            for name, taken in ordered[:_LONGEST]
        ],
    }


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", help="cuda, cuda:K or cpu")
    parser.add_argument("--backend", default="mujoco_warp", help="physics backend to measure")
    parser.add_argument("--paper-config", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--envs", type=whole(1), default=4096, help="environments to simulate")
    parser.add_argument("--image", default="64x64", metavar="WIDTHxHEIGHT", help="size of images")
    parser.add_argument("--repeats", type=whole(1), default=10, help="calls of each stage")
    print(json.dumps(measure(parser.parse_args())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
