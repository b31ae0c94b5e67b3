"""`dexgrasp bench gpu_sim`: control steps and images per second of many environments on a GPU.

Two tasks are played, each with depth images: scripted grasps of the laptop's objects without
randomisation (`grasp`), and the paper's task with everything randomised at difficulty 1 (`paper`)
under random actions. Beside them stands MuJoCo Warp alone: physics steps and images of the same
model from the same states with the joint targets that the task had, without resets
(`benchmarks.peers.raw_warp`; only with the backend mujoco_warp).

Every size is a part of the result file, which is written after each; a second call with the same
settings does what is missing.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import (
    check_device,
    held_bytes,
    median_seconds,
    release,
    seconds_per_call,
    wait_for,
)
from benchmarks.gpu.parts import Parts
from benchmarks.grasp_tape import grasp_config, grasp_tape
from dexgrasp_learner.config import load_run_config
from dexgrasp_sim.arguments import number, parse_resolution, whole
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.vec_env import allocate

GROUPS = ("proprio", "depth")
_CONTROL_HZ = 60.0
_ACTION_SHARE = 0.3
"""Of their range, that random actions use."""
_RECORDED_STEPS = 32
_RESETS = 5
_SMALLEST = 16


@dataclass(frozen=True)
class Play:
    """A task and what acts in it: a function of the environments that gives actions [N, A]."""

    task: GraspConfig
    actions: Callable[[GraspEnv], Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench gpu_sim`."""
    parser.add_argument("--device", default="cuda", help="cuda, cuda:K or cpu")
    parser.add_argument("--backend", default="mujoco_warp", help="physics backend to measure")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/laptop_depth.yaml"),
        help="YAML file of the run",
    )
    parser.add_argument(
        "--paper-config",
        type=Path,
        default=Path("config/paper.yaml"),
        help="YAML of the paper task",
    )
    parser.add_argument("--tasks", nargs="+", default=["grasp", "paper"], help="tasks to measure")
    parser.add_argument(
        "--envs",
        type=whole(0),
        nargs="+",
        default=[4096, 1024, 16384, 256],
        help="environments to simulate",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=["64x64", "160x120", "32x24", "64x48", "320x240"],
        metavar="WIDTHxHEIGHT",
        help="sizes of images to measure",
    )
    parser.add_argument("--seconds", type=number(0.0), default=2.0, help="of each measured rate")
    parser.add_argument("--minutes", type=number(0.0), help="after which no further size begins")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `parts` by `task/environments/size`: `steps_per_s` control steps of all environments together,
    with one image each; `images_per_s` of rendering alone; `kib_per_env` memory of an environment
    on the device, images included; `reset_ms` of all environments together, random draws included,
    images not; `raw_steps_per_s` of MuJoCo Warp alone and `raw_ratio`, ours over it, None with
    another backend. `best_steps_per_s` is the fastest of each task.

    Raises:
        ConfigError: There is no such device, or a config is wrong.
    """
    device = check_device(args.device)
    torch.set_num_threads(1)
    sizes = {text: parse_resolution(text) for text in args.images}
    plays = {name: play_named(name, args) for name in args.tasks}
    settings = {
        "device": args.device,
        "backend": args.backend,
        "control_hz": _CONTROL_HZ,
        "seconds": args.seconds,
        "physics_hz": {n: round(1 / p.task.physics.timestep_s) for n, p in plays.items()},
        "objects": {name: len(play.task.objects) for name, play in plays.items()},
    }
    until_s = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    parts = Parts(args.out, "gpu_sim", settings, until_s)
    for count in args.envs:
        for text, size in sizes.items():
            for name, play in plays.items():
                parts.run(
                    f"{name}/{count}/{text}",
                    lambda play=play, count=count, size=size: measure_size(
                        play, count, size, device, args.seconds
                    ),
                )
    best = {name: _best(parts.figures, name) for name in args.tasks}
    return settings, {"best_steps_per_s": best, "parts": parts.figures}


def play_named(name: str, args: argparse.Namespace) -> Play:
    """One of the tasks, `grasp` or `paper`, on the chosen backend; ConfigError for another."""
    if name == "grasp":
        task = grasp_config(args.config, _CONTROL_HZ).task
        actions = _tape_player(task, args.device)
    elif name == "paper":
        task = replace(load_run_config(args.paper_config).task, difficulty=1.0)
        actions = _random_actions
    else:
        raise ConfigError(f"--tasks {name}: there are grasp and paper")
    task = replace(task, physics=replace(task.physics, backend=args.backend))
    return Play(task, actions)


def _tape_player(task: GraspConfig, device: str) -> Callable[[GraspEnv], Tensor]:
    tape = grasp_tape(task).to(device)
    return lambda env: tape[env.step_count.clamp(max=len(tape) - 1)]


def _random_actions(env: GraspEnv) -> Tensor:
    return _ACTION_SHARE * (2 * torch.rand_like(env.last_action) - 1)


@torch.inference_mode()
def measure_size(
    play: Play, count: int, size: tuple[int, int], device: torch.device, seconds: float
) -> dict[str, Any]:
    """The figures of one size; see `measure`."""
    width, height = size
    task = replace(play.task, camera=replace(play.task.camera, width=width, height=height))
    _warm_up(task, play, device)
    release(device)
    before = held_bytes(device)
    started_s = time.perf_counter()
    env = make_grasp_env(task, count, seed=0, threads=1, groups=GROUPS, device=device)
    try:
        out = allocate(env)
        env.reset(out)
        env.step(play.actions(env), out)
        wait_for(device)
        figures: dict[str, Any] = {"start_s": round(time.perf_counter() - started_s, 2)}
        step_s = seconds_per_call(lambda: env.step(play.actions(env), out), device, seconds)
        figures["steps_per_s"] = round(count / step_s)
        figures["kib_per_env"] = round((held_bytes(device) - before) / count / 1024, 1)
        draw_s = seconds_per_call(
            lambda: env.engine.render_depth(out["depth"]), device, seconds / 2
        )
        figures["images_per_s"] = round(count / draw_s)
        figures |= _raw(env, play, out, device, seconds, figures["steps_per_s"])
        everywhere = torch.arange(count, device=device)
        begin_s = median_seconds(lambda: env.begin_episodes(everywhere), device, _RESETS)
        return figures | {"reset_ms": round(1e3 * begin_s, 3)}
    finally:
        env.close()


def _warm_up(task: GraspConfig, play: Play, device: torch.device) -> None:
    """Loads the code, which is not memory of environments; one step records nothing yet."""
    env = make_grasp_env(task, _SMALLEST, seed=0, threads=1, groups=GROUPS, device=device)
    out = allocate(env)
    env.reset(out)
    env.step(play.actions(env), out)
    env.close()


def _raw(
    env: GraspEnv,
    play: Play,
    out: dict[str, Tensor],
    device: torch.device,
    seconds: float,
    steps_per_s: float,
) -> dict[str, Any]:
    """MuJoCo Warp alone from the present states, with the targets of the task's next steps."""
    if env.config.physics.backend != "mujoco_warp":
        return {"raw_steps_per_s": None, "raw_ratio": None}
    from benchmarks.peers.raw_warp import RawWarp
    from dexgrasp_sim.physics.mujoco_warp.engine import MujocoWarpEngine

    assert isinstance(env.engine, MujocoWarpEngine)
    state = env.engine.state_dict()
    targets = []
    for _ in range(_RECORDED_STEPS):
        env.step(play.actions(env), out)
        targets.append(env.decoder.target.clone())
    raw = RawWarp(env.engine, env.config.physics_steps)

    def turn() -> None:
        env.engine.load_state_dict(state)
        for target in targets:
            raw.step(target)

    restore_s = median_seconds(lambda: env.engine.load_state_dict(state), device, _RESETS)
    turn_s = seconds_per_call(turn, device, seconds, warm_up=1) - restore_s
    rate = env.num_envs * len(targets) / turn_s
    return {"raw_steps_per_s": round(rate), "raw_ratio": round(steps_per_s / rate, 3)}


def _best(figures: dict[str, Any], task: str) -> dict[str, Any] | None:
    """The fastest size of a task, None without any."""
    measured = {
        name: part["steps_per_s"]
        for name, part in figures.items()
        if name.startswith(f"{task}/") and "steps_per_s" in part
    }
    if not measured:
        return None
    best = max(measured, key=measured.__getitem__)
    return {"size": best, "steps_per_s": measured[best]}
