"""What is wrong with the depth images of real stereo cameras; in simulation only.

A stereo camera measures disparity, the shift of a point between two images: its focal length in
sensor pixels times its baseline, divided by the depth. Its errors are errors of the disparity, so
the depth's deviation grows with the square of the depth. The policy's image is a decimated image
of the sensor: what happens in pixels of the sensor is stated in those, and converted.
"""

from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.depth_noise_kernels import Strengths, corrupt
from dexgrasp_sim.vision.image_random import Purpose, stream_keys, symmetric

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Number = Annotated[float, Field(ge=0.0, le=30.0)]


@dataclass(frozen=True, config=STRICT)
class DepthNoiseConfig:
    """Strengths are 0 by default: off. Lengths are shares of the image's height.

    Attributes:
        sensor_height_px: Rows of the real sensor's image, of which the policy's is a decimation
            with the same vertical field of view.
        baseline_m: Distance of the sensor's two lenses (0.05: Intel RealSense D435).
        disparity_step_px: Quantum of the disparity in sensor pixels; matchers interpolate to
            about 1/8.
        disparity_sigma_px: Its deviation from pixel to pixel, sensor pixels.
        disparity_bias_px: An error of the calibration, the same in a whole episode: uniform in
            plus or minus this, sensor pixels.
        depth_sigma_per_m: Deviation of the depth at 1 m; it grows with the depth's square and is
            added after the quantisation.
        shadow_share: Share of the pixels hidden from the right lens by something nearer, to the
            left of it, that are invalid. Shadows narrower than a pixel are left out.
        edge_hole_px: Width of the band, sensor pixels, in which pixels at both sides of a depth
            jump are invalid; at most one pixel of the image.
        edge_jump_m: What counts as a depth jump between neighbours, unless it is the slope of a
            slanted surface. A surface out of range counts as one at the far limit.
        dropout_share: Share of all pixels that are invalid.
        speckles: Mean number per image of discs of random depth.
        speckle_radius: Their largest radius.
        sticks: Mean number per image of bars of random depth.
        stick_length: Their largest length.
        stick_width: Their largest width; bars and discs are at least a pixel wide.
    """

    sensor_height_px: Annotated[int, Field(ge=1)] = 480
    baseline_m: Annotated[float, Field(gt=0.0)] = 0.05
    disparity_step_px: NonNegative = 0.0
    disparity_sigma_px: NonNegative = 0.0
    disparity_bias_px: NonNegative = 0.0
    depth_sigma_per_m: NonNegative = 0.0
    shadow_share: Share = 0.0
    edge_hole_px: NonNegative = 0.0
    edge_jump_m: Annotated[float, Field(gt=0.0)] = 0.03
    dropout_share: Share = 0.0
    speckles: Number = 0.0
    speckle_radius: Share = 0.03
    sticks: Number = 0.0
    stick_length: Share = 0.15
    stick_width: Share = 0.025

    @property
    def enabled(self) -> bool:
        """Whether images are changed at all."""
        strengths = (
            self.disparity_step_px,
            self.disparity_sigma_px,
            self.disparity_bias_px,
            self.depth_sigma_per_m,
            self.shadow_share,
            self.edge_hole_px,
            self.dropout_share,
            self.speckles,
            self.sticks,
        )
        return any(strength > 0 for strength in strengths)


class DepthNoise:
    """Noise for the depth images of N environments.

    What an image gets depends on the seed, the environment's global index, its episode and its
    step only: not on threads, nor on which environments share a process.
    """

    def __init__(
        self, config: DepthNoiseConfig, camera: CameraConfig, seed: int, env: np.ndarray
    ) -> None:
        """Args:
        config: The strengths.
        camera: Of the images: its size, focal length and range.
        seed: Of the run.
        env: [N] int, global indices of the environments.
        """
        self._config = config
        self._seed = seed
        self._env = env
        self._shape = (len(env), camera.height, camera.width)
        self._strengths = _strengths(config, camera)

    def apply(self, images: np.ndarray, episode: np.ndarray, step: np.ndarray) -> None:
        """Changes images in place.

        Args:
            images: [N, H, W] int16 millimetres, 0 = invalid; so they are afterwards, and within
                the camera's range.
            episode: [N] int, number of each environment's episode.
            step: [N] int, step within it.

        Raises:
            ValueError: The images' shape or type is another one.
        """
        if images.shape != self._shape or images.dtype != np.int16:
            raise ValueError(
                f"depth images are {images.dtype} {images.shape}; they must be int16 "
                f"{self._shape}, as the camera config and the number of environments give it"
            )
        if not self._config.enabled:
            return
        keys = stream_keys(Purpose.DEPTH_STEP, self._seed, self._env, episode, step)
        bias_keys = stream_keys(Purpose.DEPTH_EPISODE, self._seed, self._env, episode)
        bias = self._config.disparity_bias_px * symmetric(bias_keys, 1)[:, 0]
        contiguous = np.ascontiguousarray(images)
        corrupt(contiguous, keys, bias, self._strengths)
        if contiguous is not images:
            images[:] = contiguous


def _strengths(config: DepthNoiseConfig, camera: CameraConfig) -> Strengths:
    sensor_pixels = config.sensor_height_px / camera.height
    return Strengths(
        near_mm=1000 * camera.near_m,
        far_mm=1000 * camera.far_m,
        disparity_mm=1000 * config.baseline_m * camera.focal_px * sensor_pixels,
        sensor_pixels=sensor_pixels,
        disparity_step=config.disparity_step_px,
        disparity_sigma=config.disparity_sigma_px,
        depth_sigma_per_mm=config.depth_sigma_per_m / 1000,
        shadow_share=config.shadow_share,
        edge_share=min(1.0, config.edge_hole_px / sensor_pixels),
        jump_mm=1000 * config.edge_jump_m,
        dropout_share=config.dropout_share,
        speckles=config.speckles,
        speckle_radius=config.speckle_radius * camera.height,
        sticks=config.sticks,
        stick_length=config.stick_length * camera.height,
        stick_radius=config.stick_width * camera.height / 2,
    )
