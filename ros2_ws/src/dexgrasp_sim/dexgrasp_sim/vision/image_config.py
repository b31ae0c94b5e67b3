"""Everything that makes simulated images less perfect; all off by default."""

import math
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.vision.camera_jitter import CameraJitterConfig
from dexgrasp_sim.vision.depth_noise import DepthNoiseConfig
from dexgrasp_sim.vision.rgb_augmentation import RgbAugmentationConfig

Share = Annotated[float, Field(ge=0.0, le=1.0)]


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
