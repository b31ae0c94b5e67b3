"""`dexgrasp bench parity`: the same scene in several physics backends, compared with the first.

One environment per object: the first objects of each shape class of a set. All backends get the
same states and the same joint targets; the scripted teacher then does whole episodes in each.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.evaluation.episodes import evaluate, scripted_policy
from dexgrasp_sim.arguments import add_seed, whole
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.objects.sets import object_set
from dexgrasp_sim.physics.backends import BACKENDS, make_engine
from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_HELD_STEPS = 30
_DROP_M = 0.002
_SPAWN_HALF_WIDTH_M = 0.12
_BESIDE_M = (-0.73, 0.28)
"""Clear of the hand."""
_POSTURE_SIGMA_RAD = 0.2
_TARGET_STEPS = 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench parity`."""
    parser.add_argument("--backends", default="mujoco,mujoco_warp", help="with commas between")
    parser.add_argument("--device", default="cpu", help="of the backends that compute on it")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/laptop_depth.yaml"),
        help="YAML file of the run",
    )
    parser.add_argument("--objects", default="train", help="set of which some are taken")
    parser.add_argument(
        "--per-class", type=whole(0), default=3, help="objects of each shape class"
    )
    parser.add_argument("--episodes", type=whole(0), default=16, help="of the scripted teacher")
    add_seed(parser, 0, "the episodes")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings, and for each backend its own figures and its differences from the first."""
    torch.set_num_threads(1)
    names = args.backends.split(",")
    for name in names:
        if name not in BACKENDS:
            raise ConfigError(f"--backends {name}: give some of {', '.join(BACKENDS)}")
    task = load_run_config(args.config, []).task
    objects = _some_of_each_class(object_set(args.objects), args.per_class)
    figures, first = {}, None
    for name in names:
        own = replace(task, physics=replace(task.physics, backend=name))
        device = args.device if args.device.split(":")[0] in BACKENDS[name].devices else "cpu"
        seen, figures[name] = _observe(replace(own, objects=objects), device, args.seed)
        first = first or seen
        figures[name] |= {key: _difference(key, seen[key], first[key]) for key in seen}
        result = evaluate(name, scripted_policy, own, (), args.episodes, args.seed, device=device)
        figures[name] |= {"device": device, "scripted_success": result.success_rate}
    chosen = [item.name for item in objects]
    settings = {"config": str(args.config), "objects": chosen, "episodes": args.episodes}
    return settings, figures


def _some_of_each_class(
    objects: tuple[ObjectConfig, ...], per_class: int
) -> tuple[ObjectConfig, ...]:
    classes: dict[str, list[ObjectConfig]] = {}
    for item in objects:
        classes.setdefault(item.shape_class, []).append(item)
    return tuple(item for members in classes.values() for item in members[:per_class])


def _observe(
    task: GraspConfig, device: str, seed: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What is compared, on the CPU, and figures of this engine alone."""
    count, robot = len(task.objects), load_robot(task.robot)
    engine = make_engine(task.scene(count), device)
    try:
        posture = torch.tensor(robot.postures["pregrasp"]).repeat(count, 1)
        noise = torch.Generator().manual_seed(seed)
        other = posture + _POSTURE_SIGMA_RAD * torch.randn(posture.shape, generator=noise)
        _put(engine, other, _anywhere(task, count, seed))
        seen = {"depth_m": engine.depth_m().cpu().clone()}
        heights = torch.tensor([item.solid.rest_height_m for item in task.objects])
        beside = torch.tensor([*_BESIDE_M, 0.0, 1.0, 0.0, 0.0, 0.0]).repeat(count, 1)
        beside[:, 2] = task.table.top_m + heights + _DROP_M
        _put(engine, posture, beside)
        started = time.perf_counter()
        for _ in range(_HELD_STEPS):
            engine.step(posture.to(engine.device))
        above = engine.object_position[:, 2].cpu() - task.table.top_m - heights  # waits
        seconds = time.perf_counter() - started
        seen["rest_height_m"] = above
        _put(engine, posture, beside)
        for _ in range(_TARGET_STEPS):
            engine.step(other.to(engine.device))
        seen["joint_position_rad"] = engine.joint_position.cpu().clone()
    finally:
        engine.close()
    speed = count * _HELD_STEPS / seconds
    return seen, {
        "environments": count,
        "control_steps_per_s": round(speed, 1),
        "rest_height_above_shape_mm": round(1e3 * above.abs().max().item(), 3),
    }


def _put(engine: PhysicsEngine, posture: Tensor, pose: Tensor) -> None:
    device = engine.device
    everywhere = torch.arange(engine.num_envs, device=device)
    engine.reset(everywhere, posture.to(device), pose.to(device))


def _anywhere(task: GraspConfig, count: int, seed: int) -> Tensor:
    """[N, 7]: poses above the table in any orientation."""
    generator = np.random.default_rng(seed)
    pose = torch.zeros(count, 7)
    pose[:, :2] = torch.tensor(task.spawn.center_m)
    offset = generator.uniform(-_SPAWN_HALF_WIDTH_M, _SPAWN_HALF_WIDTH_M, (count, 2))
    pose[:, :2] += torch.from_numpy(offset)
    pose[:, 2] = task.table.top_m + _SPAWN_HALF_WIDTH_M
    turns = Rotation.random(count, rng=generator).as_quat(scalar_first=True)
    pose[:, 3:] = torch.from_numpy(turns)
    return pose


def _difference(name: str, one: Tensor, first: Tensor) -> dict[str, float]:
    difference = (one - first).abs().double().flatten().numpy()
    quantiles = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    figures = {key: float(np.quantile(difference, value)) for key, value in quantiles.items()}
    if name == "depth_m":
        figures["seen_by_one_only"] = int(((one > 0) != (first > 0)).sum())
        figures["pixels"] = one.numel()
    return figures
