"""`dexgrasp render`: a sheet of simulated camera images, without and with noise."""

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from dexgrasp_learner.config import task_of
from dexgrasp_sim.arguments import (
    add_config,
    add_json,
    add_seed,
    resolution,
    whole,
)
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.scripted import make_script
from dexgrasp_sim.vec_env import allocate
from dexgrasp_sim.view.depth_colors import colorize_depth
from dexgrasp_sim.vision.camera import CameraConfig

SHEET = "contact_sheet.png"
COLUMNS = (
    "depth, rendered",
    "depth, observed",
    "left, rendered",
    "left, observed",
    "right, observed",
)
"""`observed` is the policy's input; `rendered` is the same scene without image noise."""
MOMENTS_S = (0.0, 1.9, 3.6)
"""Start, hand at the object and object lifted, in an episode of the scripted policy."""

_LEAST_TILE_WIDTH = 160
_GAP = 6
_HEADER = 52
_MARGIN = 132
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


class Shot(NamedTuple):
    """All environments at one moment.

    Attributes:
        time_s: Since the start of the episode.
        images: For each of `COLUMNS` the images [N, H, W, 3] uint8 RGB.
    """

    time_s: float
    images: tuple[np.ndarray, ...]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `dexgrasp render`."""
    add_config(parser, "run config whose task to show (default: the default task)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheet")
    parser.add_argument(
        "--envs", type=whole(1, 64), default=3, help="environments to show (default 3)"
    )
    add_seed(parser, 0, "the episodes")
    parser.add_argument(
        "--size", type=resolution, metavar="WxH", help="image size instead of the config's"
    )
    add_json(parser)


def run(args: Namespace) -> int:
    """Writes the sheet; returns the exit code.

    Raises:
        ConfigError: The config is wrong, or the folder is not writable.
    """
    config = _task(args)
    shots = list(shoot(config, args.envs, args.seed))
    names = [config.objects[env % len(config.objects)].name for env in range(args.envs)]
    sheet = compose(shots, names, config.camera)
    path = args.out / SHEET
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(sheet))
    except OSError as error:
        raise ConfigError(f"--out {args.out}: {error.strerror}; give another folder") from None
    height, width = sheet.shape[:2]
    summary = {"sheet": str(path), "width": width, "height": height, "columns": list(COLUMNS)}
    print(json.dumps(summary) if args.json else f"{path}: {width} x {height} pixels")
    return 0


def _png(sheet: np.ndarray) -> bytes:
    smallest = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    return cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), smallest)[1].tobytes()


def _task(args: Namespace) -> GraspConfig:
    config = task_of(args.config, args.overrides)
    if args.size:
        width, height = args.size
        config = replace(config, camera=replace(config.camera, width=width, height=height))
    return replace(config, stagger_starts=False)


@torch.inference_mode()
def shoot(config: GraspConfig, num_envs: int, seed: int) -> Iterator[Shot]:
    """Images of the scripted policy's episode at those of `MOMENTS_S` that it reaches."""
    env = make_grasp_env(config, num_envs, seed, 1, ("depth", "stereo_rgb"))
    out = allocate(env)
    steps = [round(moment * config.control_hz) for moment in MOMENTS_S]
    try:
        env.reset(out)
        policy = make_script(env)
        for step in range(min(max(steps) + 1, config.episode_steps)):
            if step in steps:
                yield Shot(step * config.control_dt_s, _images(env, out))
            env.step(policy.act(), out)
    finally:
        env.close()


def _images(env: GraspEnv, out: dict[str, Tensor]) -> tuple[np.ndarray, ...]:
    """The images of `COLUMNS`: observed, and rendered again without noise and augmentation."""
    depth, colors = torch.zeros_like(out["depth"]), torch.zeros_like(out["stereo_rgb"])
    env.images.write_depth(env.step_count, depth, clean=True)
    env.images.write_stereo_rgb(env.step_count, colors, clean=True)
    camera = env.config.camera
    return (
        colorize_depth(depth.numpy(), camera),
        colorize_depth(out["depth"].numpy(), camera),
        _channels_last(colors[:, 0]),
        _channels_last(out["stereo_rgb"][:, 0]),
        _channels_last(out["stereo_rgb"][:, 1]),
    )


def _channels_last(images: Tensor) -> np.ndarray:
    return np.array(images.permute(0, 2, 3, 1).numpy())


def compose(shots: Sequence[Shot], names: Sequence[str], camera: CameraConfig) -> np.ndarray:
    """The sheet as RGB [H, W, 3] uint8: a row per environment and moment, a column per kind.

    Args:
        shots: The moments.
        names: The objects' names, one per environment.
        camera: For the range in the legend.
    """
    enlarged = math.ceil(_LEAST_TILE_WIDTH / camera.width)  # integer: equal pixels
    width, height = enlarged * camera.width, enlarged * camera.height
    rows = len(names) * len(shots)
    size = (_HEADER + rows * (height + _GAP), _MARGIN + len(COLUMNS) * (width + _GAP), 3)
    sheet = np.full(size, _PAPER, np.uint8)
    legend = (
        f"depth {camera.near_m:g} m bright to {camera.far_m:g} m dark, black: none; "
        f"images of {camera.width} x {camera.height} pixels"
    )
    _write(sheet, legend, _MARGIN, 18)
    for column, title in enumerate(COLUMNS):
        _write(sheet, title, _MARGIN + column * (width + _GAP), _HEADER - 10)
    for env, name in enumerate(names):
        for moment, shot in enumerate(shots):
            top = _HEADER + (env * len(shots) + moment) * (height + _GAP)
            if moment == 0:
                _write(sheet, name, 8, top + 20)
            _write(sheet, f"t = {shot.time_s:.1f} s", 8, top + 42)
            for column, images in enumerate(shot.images):
                left = _MARGIN + column * (width + _GAP)
                tile = cv2.resize(images[env], (width, height), interpolation=cv2.INTER_NEAREST)
                sheet[top : top + height, left : left + width] = tile
    return sheet


def _write(sheet: np.ndarray, text: str, left: int, bottom: int) -> None:
    cv2.putText(sheet, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
