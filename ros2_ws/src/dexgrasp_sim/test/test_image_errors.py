"""The tensor code of all devices against the loops of the CPU, and without a look at the host."""

import numpy as np
import pytest
import torch

from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.vision import depth_noise_kernels
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraJitter
from dexgrasp_sim.vision.depth_strengths import depth_strengths
from dexgrasp_sim.vision.image_config import (
    CameraJitterConfig,
    DepthNoiseConfig,
    ImageConfig,
    RgbAugmentationConfig,
)
from dexgrasp_sim.vision.image_errors import ImageErrors
from engine_lab import COMPILES, DEVICE

DEPTH = {
    "disparity_step_px": 0.125,
    "disparity_sigma_px": 0.15,
    "disparity_bias_px": 0.2,
    "depth_sigma_per_m": 0.01,
    "shadow_share": 0.9,
    "edge_hole_px": 3.0,
    "dropout_share": 0.01,
    "speckles": 8.0,
    "sticks": 4.0,
}
RGB = {
    "brightness": 0.1,
    "contrast": 0.2,
    "saturation": 0.3,
    "hue": 0.05,
    "exposure": 0.3,
    "gamma": 0.2,
    "white_balance": 0.1,
    "defocus": 0.02,
    "motion_blur": 0.05,
    "read_noise": 2.0,
    "shot_noise": 4.0,
}
SIZES = [(64, 48), (33, 21), (5, 2), (1, 1)]
COUNT = 20


def camera(width=64, height=48):
    return CameraConfig(
        width=width,
        height=height,
        fovy_deg=60.0,
        position_m=(0, 0, 0),
        look_at_m=(1, 0, 0),
        near_m=0.3,
        far_m=1.5,
    )


def scenes(width, height):
    """Tables seen at a low angle with boxes before them, without depth here and there."""
    generator = np.random.default_rng(0)
    rows = np.linspace(0, 1, height)[:, None]
    inverse = 1 / 1450 + rows * (1 / 350 - 1 / 1450)
    images = np.tile((1 / inverse).astype(np.int16), (COUNT, 1, width))
    for image in images:
        for _ in range(4):
            top, left = generator.integers(height), generator.integers(width)
            image[top : top + height // 4, left : left + width // 4] = generator.integers(
                300, 1500
            )
        image[generator.random((height, width)) < 0.02] = 0
    return torch.from_numpy(images)


def both(config, images, kind, size):
    """The images after the loops and after the tensor code."""
    streams = RandomStreams(5, torch.arange(COUNT))
    results = []
    for tensors_on_cpu in (False, True):
        errors = ImageErrors(ImageConfig(**config), camera(*size), streams, tensors_on_cpu)
        result = images.clone()
        add = errors.add_to_depth if kind == "depth" else errors.add_to_rgb
        add(result, torch.arange(COUNT), torch.arange(COUNT) * 3)
        results.append(result.int())
    return results


def few(different, share):
    """Whether no more than a share of all pixels, or two, are different."""
    return int(different.sum()) <= 2 + share * different.numel()


def assert_same_depth(loops, tensors):
    """Rounding decides otherwise in a few pixels, and then by 1 mm nearly always."""
    difference = (loops - tensors).abs()
    assert few((loops == 0) != (tensors == 0), 1e-4)
    assert few(difference > 0, 5e-4) and few(difference > 1, 1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("strength", [*DEPTH, "all"])
def test_depth_errors_of_tensors_are_those_of_the_loops(strength, size):
    config = DEPTH if strength == "all" else {strength: DEPTH[strength]}
    images = scenes(*size)
    noise = DepthNoiseConfig(**config, stick_length=0.5, stick_width=0.1, speckle_radius=0.1)
    loops, tensors = both({"depth_noise": noise}, images, "depth", size)
    assert_same_depth(loops, tensors)
    if size == SIZES[0]:
        assert (loops != images).any(), "something to compare"


@pytest.mark.slow
@COMPILES
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("strength", [*DEPTH, "all"])
def test_depth_errors_of_warp_are_those_of_the_loops(strength, size):
    """The kernels for GPUs, here on the CPU, for which nothing else uses them."""
    corrupt = pytest.importorskip("dexgrasp_sim.vision.depth_noise_warp").corrupt
    config = DEPTH if strength == "all" else {strength: DEPTH[strength]}
    noise = DepthNoiseConfig(**config, stick_length=0.5, stick_width=0.1, speckle_radius=0.1)
    streams, images = RandomStreams(5, torch.arange(COUNT)), scenes(*size)
    loops, kernels = images.clone(), images.clone().to(DEVICE)
    keys = streams.keys(Purpose.DEPTH_STEP, torch.arange(COUNT))
    bias = torch.linspace(-0.2, 0.2, COUNT) if config.get("disparity_bias_px") else torch.zeros(20)
    strengths = depth_strengths(noise, camera(*size))
    depth_noise_kernels.corrupt(
        loops.numpy(), keys.numpy().view(np.uint64), bias.numpy(), strengths
    )
    corrupt(kernels, keys.to(DEVICE), bias.to(DEVICE), strengths)
    assert_same_depth(loops.int(), kernels.cpu().int())


@pytest.mark.slow
@COMPILES
@pytest.mark.parametrize(
    "config",
    [
        {"dropout_share": 1.0},
        {"dropout_share": 1e-9},
        {"dropout_share": 0.999},
        {"speckles": 30, "sticks": 30, "speckle_radius": 1.0, "stick_length": 1.0},
        {"speckles": 30, "sticks": 30, "speckle_radius": 1e-3, "stick_length": 1e-3},
    ],
)
def test_extreme_depth_errors_of_warp_are_those_of_the_loops(config):
    corrupt = pytest.importorskip("dexgrasp_sim.vision.depth_noise_warp").corrupt
    images, keys, bias = scenes(64, 48), 7919 * torch.arange(COUNT), torch.zeros(COUNT)
    strengths = depth_strengths(DepthNoiseConfig(**config), camera())
    loops, kernels = images.clone(), images.clone().to(DEVICE)
    depth_noise_kernels.corrupt(
        loops.numpy(), keys.numpy().view(np.uint64), bias.numpy(), strengths
    )
    corrupt(kernels, keys.to(DEVICE), bias.to(DEVICE), strengths)
    assert_same_depth(loops.int(), kernels.cpu().int())


@pytest.mark.parametrize("share", [1e-9, 0.5, 0.999, 1.0])
def test_dropouts_of_any_share_are_those_of_the_loops(share):
    noise = DepthNoiseConfig(dropout_share=share)
    loops, tensors = both({"depth_noise": noise}, scenes(64, 48), "depth", (64, 48))
    assert torch.equal(loops, tensors)


def test_as_many_shapes_as_can_be_are_those_of_the_loops():
    """The largest number, with shapes as large as the image and as small as a pixel."""
    for scale in (0.001, 1.0):
        noise = DepthNoiseConfig(
            speckles=30, sticks=30, speckle_radius=scale, stick_length=scale, stick_width=scale
        )
        loops, tensors = both({"depth_noise": noise}, scenes(64, 48), "depth", (64, 48))
        assert_same_depth(loops, tensors)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("strength", [*RGB, "all"])
def test_color_errors_of_tensors_are_those_of_the_loops(strength, size):
    config = RGB if strength == "all" else {strength: RGB[strength]}
    width, height = size
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 256, (COUNT, 2, 3, height // 4 + 1, width // 4 + 1), np.uint8)
    smooth = coarse.repeat(4, axis=3).repeat(4, axis=4)[..., :height, :width]
    images = torch.from_numpy(np.ascontiguousarray(smooth))
    augmentation = RgbAugmentationConfig(**config, motion_share=0.7)
    loops, tensors = both({"rgb": augmentation}, images, "rgb", size)
    difference = (loops - tensors).abs()
    assert difference.max() <= 1 and few(difference > 0, 1e-3)
    if size == SIZES[0]:
        assert (loops != images).any(), "something to compare"


def test_nothing_is_read_from_the_device(no_host_reads):
    config = ImageConfig(
        depth_noise=DepthNoiseConfig(**DEPTH),
        rgb=RgbAugmentationConfig(**RGB),
        camera_jitter=CameraJitterConfig(position_m=0.01, stereo_rotation_rad=0.02),
    )
    streams = RandomStreams(0, torch.arange(COUNT))
    errors = ImageErrors(config, camera(), streams).to("meta")
    jitter = CameraJitter(config.camera_jitter, camera(), 0.05, streams).to("meta")
    episode = torch.zeros(COUNT, dtype=torch.int64, device="meta")
    depth = torch.zeros(COUNT, 48, 64, dtype=torch.int16, device="meta")
    colors = torch.zeros(COUNT, 2, 3, 48, 64, dtype=torch.uint8, device="meta")
    with no_host_reads:
        errors.add_to_depth(depth, episode, episode)
        errors.add_to_rgb(colors, episode, episode)
        jitter.begin(episode[:3], episode[:3])
