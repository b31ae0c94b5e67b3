"""`dexgrasp bench sim`: control steps per second of the task and of the physics engine alone.

Every side plays whole grasps on one CPU core, in turn, with the resets between them:

- the task with each kind of observation, without and with all randomisation of the paper's task;
- MuJoCo's own batch on the task's models with their random parameters, with the joint targets and
  start states that were recorded from the task;
- Gymnasium's vectorised loop over single environments with the same model, if it is installed,
  with MuJoCo's OpenGL renderer for images.

Environments are at different steps of their episodes, so that some end in nearly every step.
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

from benchmarks.fabric_share import fabric_sides
from benchmarks.grasp_tape import grasp_config, grasp_tape
from benchmarks.peers.bare_batch import BareBatch, Restart
from benchmarks.peers.gymnasium_loop import gymnasium_steps_per_s
from dexgrasp_learner.config import load_run_config
from dexgrasp_sim.arguments import number, whole
from dexgrasp_sim.config import replace
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.physics.still_engine import StillEngine
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.vec_env import allocate

_EPISODES = 1.5
"""Number of episodes that each environment plays."""
_RESET_ENVS, _RESETS = 4096, 10


@dataclass(frozen=True)
class Side:
    """The task with one kind of observation.

    Attributes:
        groups: Observation groups.
        image: Width and height of the images, None without.
        is_random: Whether everything is randomised as in the paper's task, at difficulty 1.
    """

    groups: tuple[str, ...]
    image: tuple[int, int] | None = None
    is_random: bool = False


SIDES = {
    "state": Side(("proprio", "state")),
    "depth_32x24": Side(("proprio", "depth"), (32, 24)),
    "depth_64x48": Side(("proprio", "depth"), (64, 48)),
    "depth_160x120": Side(("proprio", "depth"), (160, 120)),
    "stereo_rgb_64x48": Side(("proprio", "stereo_rgb"), (64, 48)),
    "state_random": Side(("proprio", "state"), is_random=True),
    "depth_64x48_random": Side(("proprio", "depth"), (64, 48), is_random=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench sim`."""
    parser.add_argument(
        "--config", type=Path, default=Path("config/laptop_depth.yaml"), help="YAML of the run"
    )
    parser.add_argument(
        "--fabric-config", type=Path, default=Path("config/paper.yaml"), help="one with a fabric"
    )
    parser.add_argument("--envs", type=whole(1), default=256, help="environments to simulate")
    parser.add_argument(
        "--control-hz", type=number(above=0.0, most=1000.0), default=60.0, help="control rate, Hz"
    )
    parser.add_argument(
        "--scaling-envs",
        type=whole(1),
        nargs="+",
        default=[64, 256, 1024],
        metavar="N",
        help="numbers of environments of which the cost is compared",
    )
    parser.add_argument("--repeats", type=whole(1), default=3, help="runs of each kind")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `..._ratio` are relative to the raw batch, except: `gymnasium_ratio` is ours over Gymnasium's
    loop, both with 64x48 depth images (None if Gymnasium is not installed); `scaling_ratio` is
    the largest cost per environment over that with the fewest environments. `fabric_fraction` is
    the share of the geometric fabric in a control step of the task that uses it, during scripted
    grasps. `reset_4096_ms` is the time to begin an episode in 4096 environments of the paper's
    task at difficulty 1: random draws and tensor work without physics.
    """
    torch.set_num_threads(1)
    config = grasp_config(args.config, args.control_hz).task
    paper = load_run_config(args.fabric_config).task
    with _one_core():
        rates = _medians(_sides(config, paper, args.envs, args.scaling_envs), args.repeats)
        reset_ms = _reset_ms(replace(paper, difficulty=1.0))
    cost_us = {count: 1e6 / rates[f"state_{count}_envs"] for count in args.scaling_envs}
    figures = {
        "state_ratio": _ratio(rates, "state", "raw_batch"),
        "depth_64x48_ratio": _ratio(rates, "depth_64x48", "raw_batch"),
        "state_random_ratio": _ratio(rates, "state_random", "raw_batch_random"),
        "depth_64x48_random_ratio": _ratio(rates, "depth_64x48_random", "raw_batch_random"),
        "reset_4096_ms": round(reset_ms, 2),
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
        "episodes": "whole, resets included",
        "episode_s": config.episode_s,
        "objects": len(config.objects),
        "fabric_objects": len(paper.objects),
        "repeats": args.repeats,
        "cores": 1,
    }
    return settings, figures


def _sides(
    config: GraspConfig, paper: GraspConfig, envs: int, scaling_envs: Sequence[int]
) -> dict[str, Callable[[], float | None]]:
    """Name of a side to the function that measures its control steps per second."""
    random = replace(
        config,
        observation_noise=paper.observation_noise,
        latency=paper.latency,
        randomization=paper.randomization,
        difficulty=1.0,
    )
    sides: dict[str, Callable[[], float | None]] = {
        "raw_batch": lambda: _raw_steps_per_s(config, envs),
        "raw_batch_random": lambda: _raw_steps_per_s(random, envs),
    }
    for name, side in SIDES.items():
        task = random if side.is_random else config
        sides[name] = lambda side=side, task=task: _task_steps_per_s(task, side, envs)
    for count in scaling_envs:
        sides[f"state_{count}_envs"] = lambda count=count: _task_steps_per_s(
            config, SIDES["state"], count
        )
    sides |= fabric_sides(replace(paper, stagger_starts=False), envs)
    sides["gymnasium_state"] = lambda: gymnasium_steps_per_s(config, _joint_targets(config, 1))
    sides["gymnasium_depth_64x48"] = lambda: gymnasium_steps_per_s(
        config, _joint_targets(config, 1), (64, 48)
    )
    return sides


def _medians(sides: dict[str, Callable[[], float | None]], repeats: int) -> dict[str, float]:
    """The median rate of each side that can run; the sides are measured in turn."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    with tqdm(total=repeats * len(sides), desc="bench sim", unit="run", disable=None) as bar:
        for _ in range(repeats):
            for name, run in sides.items():
                if (rate := run()) is not None:
                    found[name].append(rate)
                bar.update()
    return {name: statistics.median(rates) for name, rates in found.items() if rates}


def _ratio(rates: dict[str, float], name: str, other: str) -> float | None:
    """One side's rate over another's; None where the other could not run."""
    return round(rates[name] / rates[other], 3) if other in rates else None


@torch.inference_mode()
def _raw_steps_per_s(config: GraspConfig, envs: int) -> float:
    """MuJoCo's batch with joint targets and start states recorded from the task."""
    env = make_grasp_env(config, envs, seed=0, threads=1, groups=SIDES["state"].groups)
    out = allocate(env)
    env.reset(out)
    start = env.engine.state_dict()
    targets, restarts = [], []
    for actions in _actions(env, config):
        env.step(actions, out)
        targets.append(env.decoder.target.clone())
        begun = (env.step_count == 0).nonzero().squeeze(1)
        restarts.append(Restart.of(begun, env.engine.state_dict()["state"]))
    batch = BareBatch(env.engine.scene, start, threads=1)
    env.close()
    started_s = time.perf_counter()
    for target, restart in zip(torch.stack(targets).numpy(), restarts, strict=True):
        batch.step(target)
        batch.restart(restart)
    return len(targets) * envs / (time.perf_counter() - started_s)


def _actions(env: GraspEnv, config: GraspConfig) -> Iterator[Tensor]:
    """Actions [N, A] of all steps; each environment's follow from its step in its episode."""
    tape = grasp_tape(config)
    for _ in range(round(_EPISODES * config.episode_steps)):
        yield tape[env.step_count.clamp(max=len(tape) - 1)]


@torch.inference_mode()
def _task_steps_per_s(config: GraspConfig, side: Side, envs: int) -> float:
    """Control steps per second of all environments together."""
    if side.image:
        width, height = side.image
        config = replace(config, camera=replace(config.camera, width=width, height=height))
    env = make_grasp_env(config, envs, seed=0, threads=1, groups=side.groups)
    try:
        out = allocate(env)
        env.reset(out)  # compiles the image kernels before the clock starts
        steps, started_s = 0, time.perf_counter()
        for actions in _actions(env, config):
            env.step(actions, out)
            steps += envs
        return steps / (time.perf_counter() - started_s)
    finally:
        env.close()


def _joint_targets(config: GraspConfig, envs: int) -> Tensor:
    """The task's joint targets [T, envs, J] rad while the tape plays."""
    robot, table = config.load_robot(), config.table_obstacle
    decoder = make_decoder(config.action, robot, envs, config.control_dt_s, table)
    actions = grasp_tape(config)
    return torch.stack([decoder.decode(action.expand(envs, -1)).clone() for action in actions])


@torch.inference_mode()
def _reset_ms(config: GraspConfig) -> float:
    """Median milliseconds to begin an episode in all environments, without physics and images."""
    engine = StillEngine(config.scene(_RESET_ENVS))
    env = GraspEnv(config, engine, seed=0, groups=SIDES["state"].groups)
    everywhere = torch.arange(_RESET_ENVS)
    durations_s = []
    for _ in range(_RESETS):
        started_s = time.perf_counter()
        env.begin_episodes(everywhere)
        durations_s.append(time.perf_counter() - started_s)
    return 1e3 * statistics.median(durations_s)


@contextmanager
def _one_core() -> Iterator[None]:
    """Keeps this process on one core, so that renderers with threads use no more than others."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
