"""`dexgrasp bench visibility`: how often cameras see the object, before contact and while lifted.

A policy plays the task of a config, and each candidate camera looks at the same steps, with its
view just wide enough for the area where objects are. So places for a camera can be compared
before anything is trained on its images.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.evaluation.episodes import PolicyFactory, actor_policy, scripted_policy
from dexgrasp_learner.storage.checkpoint import load_actor
from dexgrasp_sim.arguments import add_overrides, add_seed, number, whole
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.physics.engine import PhysicsEngine
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.vec_env import allocate
from dexgrasp_sim.vision.camera import CameraConfig

PLACES: dict[str, tuple[float, float, float]] = {
    "far": (-1.35, 0.10, 0.85),
    "far_low": (-1.45, 0.10, 0.60),
    "far_high": (-1.20, 0.10, 1.15),
    "far_left": (-1.20, 0.75, 0.85),
    "far_right": (-1.20, -0.60, 0.85),
    "left": (-0.55, 1.10, 0.75),
    "right": (-0.55, -0.90, 0.75),
}
"""Candidate places, m, base frame; the robot stands at the origin, the table is in -x."""

LIFTED_M = 0.05
"""An object whose lowest point is higher than this above the table is lifted."""
_FEWEST_PIXELS = 4
_SMALLEST_SHARE = 0.2
"""An object is visible if it covers this many pixels, and this share of those that it would cover
if nothing were in front."""
_GOAL_REACH_M = (0.2, 0.3, 0.1)
"""Half the size of the box about the goal where lifted objects are."""
_TURNS = 5
_LONG_RANGE_M = 30.0
_MARGIN = 1.04
"""The view is this much wider than the points that it must hold."""


class Counts(NamedTuple):
    """What happened to N objects in a step.

    Attributes:
        phase: [N] 0 before contact, 1 touched or near it, 2 lifted.
        seen: [N] pixels of the object.
        alone: [N] pixels of the object if nothing were in front.
    """

    phase: Tensor
    seen: Tensor
    alone: Tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench visibility`."""
    parser.add_argument(
        "--config", type=Path, default=Path("config/laptop_wide.yaml"), help="YAML of the task"
    )
    add_overrides(parser)
    parser.add_argument(
        "--policy",
        default="scripted",
        help="`scripted`, or a run folder",
    )
    parser.add_argument(
        "--difficulty", type=number(0.0, 1.0), default=1.0, help="of the task, 0 to 1 (default 1)"
    )
    parser.add_argument(
        "--episodes", type=whole(1, 4096), default=152, help="environments, an episode each"
    )
    add_seed(parser, 2_000_003, "the episodes")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: shares of frames for each camera."""
    torch.set_num_threads(1)
    task = load_run_config(args.config, args.overrides).task
    task = replace(task, difficulty=args.difficulty, stagger_starts=False)
    cameras = candidates(task)
    factory, groups = _policy(args.policy)
    env = make_grasp_env(task, args.episodes, args.seed, 1, groups)
    try:
        steps = _watch(env, factory, cameras)
    finally:
        env.close()
    figures: dict[str, Any] = {
        name: {"camera": _pose(cameras[name]), **shares(counts)} for name, counts in steps.items()
    }
    settings = {
        "config": str(args.config),
        "policy": args.policy,
        "difficulty": args.difficulty,
        "episodes": args.episodes,
        "seed": args.seed,
        "fewest_pixels": _FEWEST_PIXELS,
        "smallest_share": _SMALLEST_SHARE,
    }
    return settings, {"cameras": figures}


def candidates(task: GraspConfig) -> dict[str, CameraConfig]:
    """The task's own camera (`config`) and one at each of `PLACES`, of the same image size."""
    points = places_of_objects(task)
    own = task.camera
    upright = replace(own, up=(0.0, 0.0, 1.0))
    fitted = {n: fit(replace(upright, position_m=place), points) for n, place in PLACES.items()}
    return {"config": own, **fitted}


def places_of_objects(task: GraspConfig) -> np.ndarray:
    """[16, 3] m: corners of the boxes in which objects lie and in which they are lifted."""
    (x, y), (half_x, half_y) = task.spawn.center_m, task.spawn.half_width_m
    top = task.table.top_m
    goal = np.array(task.goal_at(top + 0.03))
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T  # [8, 3]
    spawn = np.array([x, y, top + 0.03]) + signs * [half_x, half_y, 0.03]
    return np.concatenate((spawn, goal + signs * _GOAL_REACH_M))


def fit(camera: CameraConfig, points: np.ndarray) -> CameraConfig:
    """The camera at its place, turned, its view and range just wide enough for points [P, 3]."""
    half = np.array([camera.width, camera.height]) / 2
    target = points.mean(axis=0)
    for _ in range(_TURNS):
        turned = _looking_at(camera, target)
        pixel, depth = turned.project(points)
        middle = (pixel.min(axis=0) + pixel.max(axis=0)) / 2  # [2]
        ray = np.linalg.inv(turned.intrinsics) @ [*middle, 1.0]
        target = turned.position + depth.mean() * turned.rotation_ros @ ray
    away = np.abs(pixel + 0.5 - half) / half  # [P, 2], 1 at the edge of the image
    tangent = np.tan(np.deg2rad(camera.fovy_deg) / 2) * away.max() * _MARGIN
    return replace(
        turned,
        fovy_deg=round(float(np.rad2deg(2 * np.arctan(tangent))), 2),
        near_m=round(float(depth.min()) - 0.15, 2),
        far_m=round(float(depth.max()) + 0.1, 2),
    )


def _looking_at(camera: CameraConfig, target_m: np.ndarray) -> CameraConfig:
    x, y, z = target_m.round(3).tolist()
    return replace(
        camera, look_at_m=(x, y, z), quaternion_wxyz=None, near_m=0.01, far_m=_LONG_RANGE_M
    )


def phases(
    nearest_m: Tensor, half_diagonal_m: Tensor, height_m: Tensor, touched: Tensor
) -> Tensor:
    """Phase of each episode, as in `Counts`.

    Args:
        nearest_m: [N] from the object's centre to the nearest fingertip or the grasp centre.
        half_diagonal_m: [N] of the object's bounding box: farther, it cannot be touched.
        height_m: [N] of the object's lowest point above the table.
        touched: [N] bool, whether the hand was that near before; updated.
    """
    touched |= nearest_m < half_diagonal_m
    lifted = touched & (height_m > LIFTED_M)
    return torch.where(lifted, 2, touched.long())


def shares(steps: list[Counts]) -> dict[str, dict[str, float]]:
    """By phase: frames, share of them with a visible object, mean visible share of its pixels."""
    phase, seen, alone = (torch.cat(column) for column in zip(*steps))
    share = seen / alone.clamp(min=1)
    visible = (seen >= _FEWEST_PIXELS) & (share >= _SMALLEST_SHARE)
    figures = {}
    for number_of, name in enumerate(("before_contact", "near", "lifted")):
        chosen = phase == number_of
        frames = int(chosen.sum())
        if not frames:
            continue
        figures[name] = {
            "frames": frames,
            "visible": round(float(visible[chosen].float().mean()), 4),
            "visible_part": round(float(share[chosen].mean()), 4),
            "out_of_view": round(float((alone[chosen] < _FEWEST_PIXELS).float().mean()), 4),
            "mean_pixels": round(float(seen[chosen].float().mean()), 1),
        }
    return figures


def _policy(name: str) -> tuple[PolicyFactory, tuple[str, ...]]:
    if name == "scripted":
        return scripted_policy, ()
    actor, _, _ = load_actor(Path(name))
    return actor_policy(actor), actor.groups


@torch.inference_mode()
def _watch(
    env: GraspEnv, factory: PolicyFactory, cameras: Mapping[str, CameraConfig]
) -> dict[str, list[Counts]]:
    """Counts of each camera in each step of the environments' first episodes."""
    engine: Any = env.engine  # the count of pixels is in MuJoCo's alone
    if env.config.physics.backend != "mujoco":
        raise ConfigError("bench visibility counts pixels in MuJoCo; set task.physics.backend")
    out = allocate(env)
    env.reset(out)
    act = factory(env)
    extents = torch.tensor([item.extents_m for item in env.config.objects])[env.object_index]
    half_diagonal = torch.linalg.norm(extents, dim=1) / 2  # [N]
    start = torch.ones(env.num_envs, dtype=torch.bool)
    running, touched = start.clone(), torch.zeros_like(start)
    steps: dict[str, list[Counts]] = {name: [] for name in cameras}
    for _ in range(env.config.episode_steps):
        phase = phases(nearest(engine), half_diagonal, env.object_height(), touched)
        for name, camera in cameras.items():
            seen, alone = engine.object_pixels(camera), engine.object_pixels(camera, alone=True)
            steps[name].append(Counts(phase[running], seen[running], alone[running]))
        env.step(act(out, start), out)
        start = out["terminated"] | out["truncated"]
        running &= ~start
    return steps


def nearest(engine: PhysicsEngine) -> Tensor:
    """[N] m: distance of the nearest fingertip or the grasp centre from the object's centre."""
    points = torch.cat((engine.fingertip_position, engine.grasp_center_position[:, None]), dim=1)
    return torch.linalg.norm(points - engine.object_position[:, None], dim=2).amin(dim=1)


def _pose(camera: CameraConfig) -> dict[str, Any]:
    return {
        "position_m": list(camera.position_m),
        "look_at_m": [round(value, 3) for value in camera.look_at_m or ()],
        "fovy_deg": camera.fovy_deg,
        "near_m": camera.near_m,
        "far_m": camera.far_m,
    }
