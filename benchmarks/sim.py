"""`dexgrasp bench sim`: control steps per second of the task against the physics engine alone.

Every side simulates the same grasp on one CPU core, in turn: MuJoCo's own batch on the task's
models, driven by joint targets recorded from the task; the task with each kind of observation;
and Gymnasium's vectorised loop over single environments with the same model, where it is
installed, with MuJoCo's OpenGL renderer for images.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.grasp_tape import grasp_config, grasp_tape
from benchmarks.peers.bare_batch import BareBatch
from benchmarks.peers.gymnasium_loop import gymnasium_steps_per_s
from dexgrasp_learner.config import load_run_config
from dexgrasp_sim.config import replace
from dexgrasp_sim.control.decoder import Decoder, make_decoder
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.scripted import make_script
from dexgrasp_sim.vec_env import allocate

_FABRIC_S = 2.0
"""Enough to reach, close and lift."""


@dataclass(frozen=True)
class Side:
    """The task with one kind of observation.

    Attributes:
        groups: Observation groups.
        image: Width and height of the images, None without.
    """

    groups: tuple[str, ...]
    image: tuple[int, int] | None = None


SIDES = {
    "state": Side(("proprio", "state")),
    "depth_32x24": Side(("proprio", "depth"), (32, 24)),
    "depth_64x48": Side(("proprio", "depth"), (64, 48)),
    "depth_160x120": Side(("proprio", "depth"), (160, 120)),
    "stereo_rgb_64x48": Side(("proprio", "stereo_rgb"), (64, 48)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `dexgrasp bench sim --help`."""
    parser.add_argument("--config", type=Path, default=Path("config/laptop_depth.yaml"))
    parser.add_argument("--fabric-config", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--envs", type=int, default=256)
    parser.add_argument("--control-hz", type=float, default=60.0)
    parser.add_argument("--scaling-envs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=3)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `state_ratio` and `depth_64x48_ratio` are against the raw batch, `gymnasium_ratio` is ours over
    Gymnasium's loop, both with 64x48 depth images (None where Gymnasium is not installed);
    `fabric_fraction` is the share of the geometric fabric in a control step of the task that has
    it, during scripted grasps; `scaling_ratio` is the largest cost per environment over that of
    the smallest number of them.
    """
    torch.set_num_threads(1)
    config = grasp_config(args.config, args.control_hz).task
    fabric = replace(load_run_config(args.fabric_config).task, stagger_starts=False)
    with _one_core():
        rates = _medians(_sides(config, fabric, args.envs, args.scaling_envs), args.repeats)
    cost_us = {count: 1e6 / rates[f"state_{count}_envs"] for count in args.scaling_envs}
    figures = {
        "state_ratio": _ratio(rates, "state", "raw_batch"),
        "depth_64x48_ratio": _ratio(rates, "depth_64x48", "raw_batch"),
        "gymnasium_ratio": _ratio(rates, "depth_64x48", "gymnasium_depth_64x48"),
        "fabric_fraction": _ratio(rates, "state_fabric", "fabric_alone"),
        "scaling_ratio": round(max(cost_us.values()) / cost_us[min(cost_us)], 3),
        "cost_per_env_step_us": {str(count): round(cost, 1) for count, cost in cost_us.items()},
        "steps_per_s": {name: round(rate) for name, rate in rates.items()},
    }
    settings = {
        "envs": args.envs,
        "control_hz": args.control_hz,
        "physics_hz": round(1 / config.physics.timestep_s),
        "objects": len(config.objects),
        "fabric_objects": len(fabric.objects),
        "repeats": args.repeats,
        "cores": 1,
    }
    return settings, figures


def _sides(
    config: GraspConfig, fabric: GraspConfig, envs: int, scaling_envs: Sequence[int]
) -> dict[str, Callable[[], float | None]]:
    """Name of a side to what measures its control steps per second."""
    sides: dict[str, Callable[[], float | None]] = {
        "raw_batch": lambda: _raw_steps_per_s(config, envs)
    }
    for name, side in SIDES.items():
        sides[name] = lambda side=side: _task_steps_per_s(config, side, envs)
    for count in scaling_envs:
        sides[f"state_{count}_envs"] = lambda count=count: _task_steps_per_s(
            config, SIDES["state"], count
        )
    tape = _scripted_tape(fabric, envs)
    sides["state_fabric"] = lambda: _play(fabric, tape, SIDES["state"])
    sides["fabric_alone"] = lambda: _fabric_steps_per_s(fabric, tape)
    sides["gymnasium_state"] = lambda: gymnasium_steps_per_s(config, _joint_targets(config, 1))
    sides["gymnasium_depth_64x48"] = lambda: gymnasium_steps_per_s(
        config, _joint_targets(config, 1), (64, 48)
    )
    return sides


def _medians(sides: dict[str, Callable[[], float | None]], repeats: int) -> dict[str, float]:
    """The median rate of each side that can run, all measured in turn."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    with tqdm(total=repeats * len(sides), desc="bench sim", unit="run") as bar:
        for _ in range(repeats):
            for name, run in sides.items():
                if (rate := run()) is not None:
                    found[name].append(rate)
                bar.update()
    return {name: statistics.median(rates) for name, rates in found.items() if rates}


def _ratio(rates: dict[str, float], name: str, other: str) -> float | None:
    """One side's rate over another's; None where the other could not run."""
    return round(rates[name] / rates[other], 3) if other in rates else None


def _raw_steps_per_s(config: GraspConfig, envs: int) -> float:
    """MuJoCo's batch from the task's own start, with the task's own joint targets."""
    targets = _joint_targets(config, envs)
    env = make_grasp_env(config, envs, seed=0, threads=1, groups=SIDES["state"].groups)
    env.reset(allocate(env))
    state = env.engine.state_dict()["state"]
    batch = BareBatch(env.engine.scene, state, threads=1)
    env.close()
    started_s = time.perf_counter()
    for target in targets.numpy():
        batch.step(target)
    return len(targets) * envs / (time.perf_counter() - started_s)


def _joint_targets(config: GraspConfig, envs: int) -> Tensor:
    """What the task commands while the tape plays, [T, envs, 23] rad."""
    decoder = _decoder(config, envs)
    actions = grasp_tape(config)
    return torch.stack([decoder.decode(action.expand(envs, -1)).clone() for action in actions])


def _decoder(config: GraspConfig, envs: int) -> Decoder:
    robot, table = config.load_robot(), config.table_obstacle
    return make_decoder(config.action, robot, envs, config.control_dt_s, table)


def _task_steps_per_s(config: GraspConfig, side: Side, envs: int) -> float:
    if side.image:
        width, height = side.image
        config = replace(config, camera=replace(config.camera, width=width, height=height))
    return _play(config, grasp_tape(config)[:, None].expand(-1, envs, -1), side)


def _fabric_steps_per_s(config: GraspConfig, tape: Tensor) -> float:
    """The decoder alone, without physics."""
    envs = tape.shape[1]
    decoder = _decoder(config, envs)
    decoder.decode(tape[0])
    started_s = time.perf_counter()
    for actions in tape:
        decoder.decode(actions)
    return len(tape) * envs / (time.perf_counter() - started_s)


@torch.inference_mode()
def _scripted_tape(config: GraspConfig, envs: int) -> Tensor:
    """What the scripted policy does for an episode's first seconds, [T, envs, A]."""
    env = make_grasp_env(config, envs, seed=0, threads=1, groups=SIDES["state"].groups)
    try:
        out = allocate(env)
        env.reset(out)
        script = make_script(env)
        tape = []
        for _ in range(round(_FABRIC_S * config.control_hz)):
            tape.append(script.act().clone())
            env.step(tape[-1], out)
        return torch.stack(tape)
    finally:
        env.close()


@torch.inference_mode()
def _play(config: GraspConfig, tape: Tensor, side: Side) -> float:
    """Control steps per second of all environments together; actions [T, envs, A]."""
    envs = tape.shape[1]
    env = make_grasp_env(config, envs, seed=0, threads=1, groups=side.groups)
    try:
        out = allocate(env)
        env.reset(out)  # compiles the image kernels before the clock starts
        started_s = time.perf_counter()
        for actions in tape:
            env.step(actions, out)
        return len(tape) * envs / (time.perf_counter() - started_s)
    finally:
        env.close()


@contextmanager
def _one_core() -> Iterator[None]:
    """Keeps this process on one core: renderers that start threads get no more than the others."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
