"""Everything that makes simulated images less perfect; all off by default.

Settings only: what they do stands in `camera_jitter`, `image_errors` and the engines.
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


@dataclass(frozen=True, config=STRICT)
class LookConfig:
    """Colours, textures and light of the scene, drawn for each episode.

    Geoms that share a colour keep doing so.

    Attributes:
        color: Share of a random colour in every colour; 1 leaves nothing of the old one.
        pattern: Probability that a surface gets a pattern (plain, checkered, cloudy) by chance.
        cell_factor: The size of a pattern's cells is multiplied or divided by up to this.
        light_rad: The lamp's direction is turned about each axis by up to plus or minus this.
        ambient: Change of the share of light that needs no lamp, plus or minus.
        background: Share of a random colour in the background.
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
    """Errors of the cameras' poses, drawn for each episode, uniform in plus or minus these.

    Attributes:
        position_m: Along each axis of the base frame, of both cameras together.
        rotation_rad: About each axis of the left camera, of both cameras together.
        stereo_position_m: Along each axis of the right camera, relative to the left one.
        stereo_rotation_rad: About each axis of the right camera, relative to the left one.
    """

    position_m: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0
    rotation_rad: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    stereo_position_m: Annotated[float, Field(ge=0.0, le=0.05)] = 0.0
    stereo_rotation_rad: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0

    @property
    def enabled(self) -> bool:
        """Whether cameras are moved at all."""
        return self != CameraJitterConfig()


@dataclass(frozen=True, config=STRICT)
class ImageConfig:
    """How simulated images differ from ideal ones; images of a robot are left alone.

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
