"""Films a policy in simulation: the scene above, the depth image below."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import torch
from torch import Tensor

from dexgrasp_learner.evaluation.episodes import PolicyFactory
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.vec_env import allocate
from dexgrasp_sim.vision.camera import CameraConfig

_VIEW = CameraConfig(
    width=400,
    height=300,
    fovy_deg=38.0,
    position_m=(-1.05, 0.75, 0.85),
    look_at_m=(-0.48, 0.05, 0.44),
    far_m=10.0,
)
"""A view past the thumb, which shows the object also while the hand holds it."""
_HOLD_S = 0.6
_LIFTED = 0.45
"""Share of an episode after which most objects are lifted and still in the camera's view."""


@torch.inference_mode()
def film(
    make_policy: PolicyFactory, config: GraspConfig, groups: Sequence[str], seed: int, columns: int
) -> Iterator[np.ndarray]:
    """Frames of one episode in each of a few environments, side by side.

    Args:
        make_policy: The policy.
        config: The task; environment i holds object i modulo the number of objects.
        groups: Observation groups that the policy reads; `depth` is added.
        seed: Of the episodes' starts.
        columns: Number of environments.

    Yields:
        [2 * height, columns * width, 3] uint8 RGB, one per control step.
    """
    groups = tuple(dict.fromkeys((*groups, "depth")))
    env = make_grasp_env(replace(config, stagger_starts=False), columns, seed, 1, groups)
    out = allocate(env)
    try:
        env.reset(out)
        policy = make_policy(env)
        start = torch.ones(columns, dtype=torch.bool)
        for step in range(config.episode_steps):
            yield _frame(env, out["depth"], config.camera)
            if step < config.episode_steps - 1:  # the last step would begin the next episode
                env.step(policy(out, start), out)
                start = out["terminated"] | out["truncated"]
    finally:
        env.close()


def write_film(path: Path, frames: Iterator[np.ndarray], task: GraspConfig) -> None:
    """Writes a film, and beside it a PNG picture of its first frame and of one with a lift.

    Args:
        path: Of the film, with the suffix mp4.
        frames: What `film` gives.
        task: What it was filmed in.
    """
    wanted, moments = (0, int(_LIFTED * task.episode_steps)), []

    def following() -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames):
            if number in wanted:
                moments.append(frame)
            yield frame

    write_video(path, following(), task.control_hz)
    picture = cv2.cvtColor(np.concatenate(moments, axis=0), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path.with_suffix(".png")), picture)


def write_video(path: Path, frames: Iterator[np.ndarray], rate_hz: float) -> None:
    """Writes H.264 in an mp4 that browsers play; the last frame is held for a moment."""
    first = next(frames)
    size = (first.shape[1], first.shape[0])
    writer = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=rate_hz,  # type: ignore[arg-type]  # ffmpeg takes any rate
        codec="libx264",
        quality=8,
        macro_block_size=4,
    )
    writer.send(None)  # starts the encoder
    try:
        for frame in itertools.chain([first], frames):
            writer.send(np.ascontiguousarray(frame))
        for _ in range(round(_HOLD_S * rate_hz)):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def _frame(env: GraspEnv, depth: Tensor, camera: CameraConfig) -> np.ndarray:
    scene = torch.zeros(env.num_envs, 3, _VIEW.height, _VIEW.width, dtype=torch.uint8)
    env.engine.render_rgb(_VIEW, scene)
    # each [height, N * width, 3]
    above = np.concatenate(list(scene.permute(0, 2, 3, 1).numpy()), axis=1)
    below = np.concatenate([colorize_depth(image, camera) for image in depth.numpy()], axis=1)
    return np.concatenate((above, below), axis=0)


def colorize_depth(image: np.ndarray, camera: CameraConfig) -> np.ndarray:
    """Depth [H, W] int16 mm as RGB of the film's size: near is bright, invalid is black."""
    metres = image.astype(np.float32) / 1000.0
    nearness = np.clip((camera.far_m - metres) / (camera.far_m - camera.near_m), 0.0, 1.0)
    colors = cv2.applyColorMap((255 * nearness).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    colors = cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)
    colors[image == 0] = 0
    size = (_VIEW.width, _VIEW.height)
    return cv2.resize(colors, size, interpolation=cv2.INTER_NEAREST)
