"""`dexgrasp render`: a sheet of simulated camera images, without and with noise."""

import json
import math
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError, parse_config, read_values, replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.scripted import make_script
from dexgrasp_sim.vec_env import allocate
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
_INK, _PAPER, _INVALID = (30, 30, 30), (255, 255, 255), (0, 0, 0)


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
    parser.add_argument("--config", type=Path, help="run config whose task to show")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheet")
    parser.add_argument("--envs", type=int, default=3, help="environments to show (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default 0)")
    parser.add_argument(
        "--size", type=_size, metavar="WxH", help="image size instead of the config's"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(args: Namespace) -> int:
    """Writes the sheet; returns the exit code.

    Raises:
        ConfigError: The config or the number of environments is wrong, or the folder is not
            writable.
    """
    if args.envs < 1:
        raise ConfigError(f"--envs {args.envs}: at least one environment is needed")
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


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not of the form WIDTHxHEIGHT, such as 160x120")
    return int(match[1]), int(match[2])


def _task(args: Namespace) -> GraspConfig:
    values = read_values(args.config).get("task", {}) if args.config else {}
    if args.size and isinstance(values, dict):
        camera = dict(zip(("width", "height"), args.size, strict=True))
        values = {**values, "camera": {**values.get("camera", {}), **camera}}
    config = parse_config(GraspConfig, values, source=str(args.config or "the defaults"))
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


def colorize_depth(depth_mm: np.ndarray, camera: CameraConfig) -> np.ndarray:
    """Depth [N, H, W] int16 mm as RGB [N, H, W, 3]: near is bright, invalid is black."""
    metres = depth_mm.astype(np.float32) / 1000
    nearness = np.clip((camera.far_m - metres) / (camera.far_m - camera.near_m), 0.0, 1.0)
    levels = (255 * nearness).astype(np.uint8).reshape(len(depth_mm), -1)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    colors = colors.reshape(*depth_mm.shape, 3)
    colors[depth_mm == 0] = _INVALID
    return colors


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
