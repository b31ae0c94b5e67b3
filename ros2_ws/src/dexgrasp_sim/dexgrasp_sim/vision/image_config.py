"""Settings of all errors of simulated images; all off by default.

`camera_jitter`, `image_errors` and the engines implement them.
"""

import math
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Number = Annotated[float, Field(ge=0.0, le=30.0)]
Blur = Annotated[float, Field(ge=0.0, le=0.2)]

LEAST_LEVEL = 0.05
"""Smallest value of a random colour's channels; darker colours hide the shape."""


@dataclass(frozen=True, config=STRICT)
class DepthNoiseConfig:
    """Errors of depth images; off by default. Lengths are fractions of the image's height.

    Attributes:
        sensor_height_px: Rows of the real sensor's image; the policy's image is a decimation of it
            with the same vertical field of view.
        baseline_m: Distance of the sensor's two lenses (0.05: Intel RealSense D435).
        disparity_step_px: Quantum of the disparity in sensor pixels; matchers interpolate to
            about 1/8.
        disparity_sigma_px: Standard deviation of the disparity's pixel noise, sensor pixels.
        disparity_bias_px: Calibration error, constant during an episode: uniform in plus or minus
            this, sensor pixels.
        depth_sigma_per_m: Standard deviation of the depth at 1 m; it grows with the square of the
            depth and is added after the quantisation.
        shadow_share: Fraction of the pixels hidden from the right lens by something nearer, to the
            left of it, that are invalid. Shadows narrower than a pixel are ignored.
        edge_hole_px: Width of the band, sensor pixels, in which pixels at both sides of a depth
            jump are invalid; at most one pixel of the image.
        edge_jump_m: Smallest depth jump between neighbouring pixels; the slope of a slanted
            surface is no jump. A surface out of range counts as one at the far limit.
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


@dataclass(frozen=True, config=STRICT)
class RgbAugmentationConfig:
    """Augmentation of colour images; off by default. All but motion blur and noise are drawn once
    per episode.

    Attributes:
        brightness: Share of full brightness added, plus or minus.
        contrast: Relative change of the distance from mid-grey, plus or minus.
        saturation: Relative change of the distance from grey of the same brightness.
        hue: Turn of the colour circle in revolutions, plus or minus.
        exposure: Change of the exposure in stops (powers of two), plus or minus.
        gamma: The tone curve's exponent is e to the power of plus or minus this.
        white_balance: Relative change of each channel, plus or minus.
        defocus: Largest standard deviation of the blur, fraction of the image's height.
        motion_blur: Longest motion within an exposure, fraction of the image's height.
        motion_share: Fraction of the steps with motion blur.
        read_noise: Standard deviation of the noise in black, grey levels of 255.
        shot_noise: Standard deviation of the additional noise in white, grey levels; it grows with
            the square root of the brightness.
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


@dataclass(frozen=True, config=STRICT)
class LookConfig:
    """Colours, textures and light of the scene, drawn for each episode.

    Geoms of equal colour get equal colours.

    Attributes:
        color: Fraction of a random colour in every colour; 1 replaces the old one.
        pattern: Probability that a surface gets a random pattern (plain, checkered, cloudy).
        cell_factor: The size of a pattern's cells is multiplied or divided by up to this.
        light_rad: The lamp's direction is turned about each axis by up to plus or minus this.
        ambient: Change of the fraction of ambient light, plus or minus.
        background: Fraction of a random colour in the background.
    """

    color: Share = 0.0
    pattern: Share = 0.0
    cell_factor: Annotated[float, Field(ge=1.0, le=20.0)] = 1.0
    light_rad: Annotated[float, Field(ge=0.0, le=math.pi)] = 0.0
    ambient: Share = 0.0
    background: Share = 0.0

    @property
    def enabled(self) -> bool:
        """Whether anything looks different at all."""
        return self != LookConfig()


@dataclass(frozen=True, config=STRICT)
class CameraJitterConfig:
    """Errors of the cameras' poses: drawn for each episode, uniform in plus or minus these.

    Attributes:
        position_m: Along each axis of the base frame, the same for both cameras.
        rotation_rad: About each axis of the left camera, the same for both cameras.
        stereo_position_m: Along each axis of the right camera, relative to the left one.
        stereo_rotation_rad: About each axis of the right camera, relative to the left one.
        moves_depth: Whether the depth image is taken from the moved left camera too. If not, it is
            what a depth teacher sees that labels from where the config has the camera.
    """

    position_m: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0
    rotation_rad: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    stereo_position_m: Annotated[float, Field(ge=0.0, le=0.05)] = 0.0
    stereo_rotation_rad: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0
    moves_depth: bool = True

    @property
    def enabled(self) -> bool:
        """Whether cameras are moved at all."""
        return self != CameraJitterConfig(moves_depth=self.moves_depth)


@dataclass(frozen=True, config=STRICT)
class ImageConfig:
    """How simulated images differ from ideal ones; images of a real robot are not changed.

    Attributes:
        depth_noise: Errors of depth images.
        rgb: Errors and settings of colour cameras.
        look: The scene's appearance in colour images.
        camera_jitter: Errors of the cameras' poses.
    """

    depth_noise: DepthNoiseConfig = DepthNoiseConfig()
    rgb: RgbAugmentationConfig = RgbAugmentationConfig()
    look: LookConfig = LookConfig()
    camera_jitter: CameraJitterConfig = CameraJitterConfig()
