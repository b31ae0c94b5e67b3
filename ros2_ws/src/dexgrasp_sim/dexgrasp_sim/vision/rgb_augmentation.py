"""What differs between real colour cameras and the renderer's; in simulation only.

The order is that of a camera: blur by the lens and by motion, exposure and colour, the tone
curve, noise of the sensor. All views of an environment get the same, except for the noise.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.vision.image_random import Purpose, stream_keys, symmetric, uniforms
from dexgrasp_sim.vision.rgb_kernels import augment

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Blur = Annotated[float, Field(ge=0.0, le=0.2)]

_LUMA = np.array([0.299, 0.587, 0.114])
"""Rec. 601: the share of red, green and blue in brightness."""
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""NTSC: brightness and two axes of colour; hue is the angle in their plane."""
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_CURVE_POINTS = 257
_LEAST_SIGMA_PX = 0.25
"""Of the blur kernel, so that sampled at pixels it keeps its sum; leaves an image as it is."""


@dataclass(frozen=True, config=STRICT)
class RgbAugmentationConfig:
    """Strengths are 0 by default: off. All but blur by motion and noise hold for an episode.

    Attributes:
        brightness: Share of full brightness added, plus or minus.
        contrast: Relative change of the distance from mid-grey, plus or minus.
        saturation: Relative change of the distance from grey of the same brightness.
        hue: Turn of the colour circle in revolutions, plus or minus.
        exposure: Stops (powers of two) of the light's factor, plus or minus.
        gamma: The tone curve's exponent is e to the power of plus or minus this.
        white_balance: Relative change of each channel, plus or minus.
        defocus: Largest deviation of the blur, share of the image's height.
        motion_blur: Longest way within an exposure, share of the image's height.
        motion_share: Share of the steps in which there is blur by motion.
        read_noise: Deviation of the noise in black, grey levels of 255.
        shot_noise: Deviation that white has in addition, grey levels; grows with the square root
            of the brightness.
    """

    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    exposure: NonNegative = 0.0
    gamma: NonNegative = 0.0
    white_balance: Share = 0.0
    defocus: Blur = 0.0
    motion_blur: Blur = 0.0
    motion_share: Share = 0.1
    read_noise: NonNegative = 0.0
    shot_noise: NonNegative = 0.0

    @property
    def enabled(self) -> bool:
        """Whether images are changed at all."""
        return self != RgbAugmentationConfig(motion_share=self.motion_share)


class RgbAugmentation:
    """Changes the colour images of N environments; for the random numbers see `DepthNoise`."""

    def __init__(self, config: RgbAugmentationConfig, seed: int, env: np.ndarray) -> None:
        """Args:
        config: The strengths.
        seed: Of the run.
        env: [N] int, global indices of the environments.
        """
        self._config = config
        self._seed = seed
        self._env = env

    def apply(self, images: np.ndarray, episode: np.ndarray, step: np.ndarray) -> None:
        """Changes images in place.

        Args:
            images: [N, V, 3, H, W] uint8, V views of each environment.
            episode: [N] int, number of each environment's episode.
            step: [N] int, step within it.

        Raises:
            ValueError: The images' shape or type is another one.
        """
        count = len(self._env)
        if images.ndim != 5 or images.shape[0:3:2] != (count, 3) or images.dtype != np.uint8:
            raise ValueError(
                f"colour images are {images.dtype} {images.shape}; they must be uint8 "
                f"({count}, views, 3, height, width)"
            )
        if not self._config.enabled:
            return
        config = self._config
        per_episode = stream_keys(Purpose.RGB_EPISODE, self._seed, self._env, episode)
        per_step = stream_keys(Purpose.RGB_STEP, self._seed, self._env, episode, step)
        drawn = symmetric(per_episode, 10)
        contiguous = np.ascontiguousarray(images)
        augment(
            contiguous,
            # the sum sets the noise's numbers apart from those of the motion
            per_step + np.uint64(1),
            blur_kernels(config, images.shape[-2], drawn[:, 9], uniforms(per_step, 3)),
            color_matrices(config, drawn[:, :8]),
            tone_curves(config, drawn[:, 8]),
            config.read_noise,
            config.shot_noise,
        )
        if contiguous is not images:
            images[:] = contiguous


def color_matrices(config: RgbAugmentationConfig, drawn: np.ndarray) -> np.ndarray:
    """What happens to colours from 0 to 1.

    Args:
        config: The strengths.
        drawn: [N, 8], from -1 to 1: brightness, contrast, saturation, hue, exposure and the white
            balance of three channels, as parts of their strengths.

    Returns:
        [N, 3, 4] float32: matrices that take a colour with a 1 appended to the new one.
    """
    count = len(drawn)
    brightness, contrast, saturation, hue, exposure = drawn[:, :5].T
    light = 2.0 ** (config.exposure * exposure)
    gains = light[:, None] * (1 + config.white_balance * drawn[:, 5:])
    scale, angle = 1 + config.saturation * saturation, 2 * np.pi * config.hue * hue
    turn = np.zeros((count, 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = scale * np.cos(angle)
    turn[:, 2, 1] = scale * np.sin(angle)
    turn[:, 1, 2] = -turn[:, 2, 1]
    steepness = 1 + config.contrast * contrast
    linear = steepness[:, None, None] * (_FROM_YIQ @ turn @ _TO_YIQ) * gains[:, None, :]
    offset = 0.5 * (1 - steepness) + config.brightness * brightness
    offsets = np.broadcast_to(offset[:, None, None], (count, 3, 1))
    return np.concatenate((linear, offsets), axis=2).astype(np.float32)


def tone_curves(config: RgbAugmentationConfig, drawn: np.ndarray) -> np.ndarray:
    """Levels from 0 to 1 after the tone curve [N, C] float32, for draws [N] from -1 to 1."""
    levels = np.linspace(0.0, 1.0, _CURVE_POINTS)
    return (levels ** np.exp(config.gamma * drawn)[:, None]).astype(np.float32)


def blur_kernels(
    config: RgbAugmentationConfig, height: int, defocus: np.ndarray, motion: np.ndarray
) -> np.ndarray:
    """Normal distributions drawn along a line.

    Args:
        config: The strengths.
        height: Rows of the images.
        defocus: [N], from -1 to 1; the deviation's part of its strength is its magnitude.
        motion: [N, 3], from 0 to 1: whether there is motion, its length and its direction.

    Returns:
        [N, K, K] float32 of sum 1, K odd and as large as the strengths ask for.
    """
    longest, widest = config.motion_blur * height, config.defocus * height
    radius = int(np.ceil(2 * widest + longest / 2))
    if radius == 0:
        return np.ones((len(defocus), 1, 1), np.float32)
    sigma = np.maximum(widest * np.abs(defocus), _LEAST_SIGMA_PX)
    length = np.where(motion[:, 0] < config.motion_share, longest * motion[:, 1], 0.0)
    places = np.linspace(-0.5, 0.5, 4 * radius + 1) * length[:, None]
    offset = np.arange(-radius, radius + 1)
    angle = np.pi * motion[:, 2:]
    down = offset[:, None, None] - (places * np.sin(angle))[:, None, None, :]
    right = offset[None, :, None] - (places * np.cos(angle))[:, None, None, :]
    spread = (2 * sigma**2)[:, None, None, None]
    weights = np.exp(-(down**2 + right**2) / spread).sum(axis=-1)
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    weights[weights < 1e-3] = 0  # costs time and is not seen
    return (weights / weights.sum(axis=(1, 2), keepdims=True)).astype(np.float32)
