"""Errors of the depth images of real stereo cameras; in simulation only.

A stereo camera measures disparity, the shift of a point between two images: its focal length in
sensor pixels times its baseline, divided by the depth. Its errors are errors of the disparity, so
the depth's deviation grows with the square of the depth. The policy's image is a decimated image
of the sensor: the config gives sizes in pixels of the sensor, which are converted here.
"""

import math
from typing import NamedTuple

from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import DepthNoiseConfig

SPECKLES = 0x5851F42D4C957F2D
"""XORed with the keys of the pixels' streams to get separate streams; so are the next two."""
STICKS = 0x14057B7EF767814F
DROPOUTS = 0x2545F4914F6CDD1D
MAX_SHAPES = 64
"""Limit of the shapes of a kind in an image. As many numbers of their stream are reserved to draw
their count."""
NUMBERS_PER_SHAPE = 6


class DepthStrengths(NamedTuple):
    """Strengths of the errors, in pixels of the image and in millimetres.

    Attributes:
        near_mm: Depths below are invalid.
        far_mm: Depths above are invalid.
        disparity_mm: Focal length in sensor pixels times the baseline: depth times disparity.
        sensor_pixels: Rows of the sensor per row of the image.
        changes_disparity: Whether one of the next three is not 0.
        disparity_step: Quantum of the disparity in sensor pixels, 0 for none.
        disparity_sigma: Standard deviation of the disparity in sensor pixels.
        disparity_bias: Largest constant error during an episode in sensor pixels.
        depth_sigma_per_mm: Deviation of the depth divided by the depth's square.
        shadow_share: Probability that a pixel hidden from the other lens is lost.
        edge_share: Probability that a pixel beside a depth jump is lost.
        jump_mm: The least depth jump.
        dropout_share: Probability that any pixel is lost.
        speckles: Mean number of discs.
        max_speckles: Most that are drawn.
        speckle_radius: Their largest radius.
        sticks: Mean number of sticks.
        max_sticks: Most that are drawn.
        stick_length: Their largest length.
        stick_radius: Half their largest width.
    """

    near_mm: float
    far_mm: float
    disparity_mm: float
    sensor_pixels: float
    changes_disparity: bool
    disparity_step: float
    disparity_sigma: float
    disparity_bias: float
    depth_sigma_per_mm: float
    shadow_share: float
    edge_share: float
    jump_mm: float
    dropout_share: float
    speckles: float
    max_speckles: int
    speckle_radius: float
    sticks: float
    max_sticks: int
    stick_length: float
    stick_radius: float


def depth_strengths(config: DepthNoiseConfig, camera: CameraConfig) -> DepthStrengths:
    """The strengths for images of a camera."""
    sensor_pixels = config.sensor_height_px / camera.height
    return DepthStrengths(
        near_mm=1000 * camera.near_m,
        far_mm=1000 * camera.far_m,
        disparity_mm=1000 * config.baseline_m * camera.focal_px * sensor_pixels,
        sensor_pixels=sensor_pixels,
        changes_disparity=config.disparity_step_px > 0
        or config.disparity_sigma_px > 0
        or config.disparity_bias_px > 0,
        disparity_step=config.disparity_step_px,
        disparity_sigma=config.disparity_sigma_px,
        disparity_bias=config.disparity_bias_px,
        depth_sigma_per_mm=config.depth_sigma_per_m / 1000,
        shadow_share=config.shadow_share,
        edge_share=min(1.0, config.edge_hole_px / sensor_pixels),
        jump_mm=1000 * config.edge_jump_m,
        dropout_share=config.dropout_share,
        speckles=config.speckles,
        max_speckles=_most_shapes(config.speckles),
        speckle_radius=config.speckle_radius * camera.height,
        sticks=config.sticks,
        max_sticks=_most_shapes(config.sticks),
        stick_length=config.stick_length * camera.height,
        stick_radius=config.stick_width * camera.height / 2,
    )


def _most_shapes(mean: float) -> int:
    """A bound that a Poisson-distributed number exceeds in less than one of 10^7 images."""
    return min(MAX_SHAPES - 1, math.ceil(mean + 6 * math.sqrt(mean) + 6)) if mean > 0 else 0
