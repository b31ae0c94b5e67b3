"""Image encoders: raw images in their stored type to flat features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.vision.preprocess import policy_depth, policy_rgb

_MAX_FEATURES = 4096
"""More flat features than this make the fusing layer larger than all the convolutions."""
_MAX_CELLS = 96
"""The map of a `conv` encoder has at most this many cells."""


def build_encoder(
    spec: TensorSpec, config: NetworkConfig, depth_range_m: tuple[float, float] | None
) -> "DepthEncoder | StereoEncoder":
    """Chooses the encoder of an image group from its spec.

    Args:
        spec: Of the group.
        config: Of the net.
        depth_range_m: Nearer and farther depth counts as invalid; only depth images need it.

    Raises:
        ConfigError: The group is neither int16 depth [H, W] nor uint8 stereo colour [2, 3, H, W],
            or its size does not suit `config.encoder`.
    """
    if spec.dtype == "int16" and len(spec.shape) == 2:
        if depth_range_m is None:
            raise ValueError(f"{spec.name!r} is depth: give the range of its camera")
        encoder = DepthEncoder(spec, config, depth_range_m)
    elif spec.dtype == "uint8" and len(spec.shape) == 4 and spec.shape[:2] == (2, 3):
        encoder = StereoEncoder(spec, config)
    else:
        raise ConfigError(
            f"observation group {spec.name!r} is {spec.dtype} {list(spec.shape)}; the nets take "
            "int16 depth [H, W], uint8 stereo colour [2, 3, H, W] and float32 vectors [P]"
        )
    if encoder.features > _MAX_FEATURES:
        raise ConfigError(
            f"{_size_text(spec)} gives the {config.encoder!r} encoder {encoder.features} "
            f"features, more than {_MAX_FEATURES}; set encoder: conv or make the image smaller"
        )
    return encoder


class DepthEncoder(nn.Module):
    """Depth in millimetres to features."""

    def __init__(
        self, spec: TensorSpec, config: NetworkConfig, depth_range_m: tuple[float, float]
    ) -> None:
        super().__init__()
        self.near_m, self.far_m = depth_range_m
        self.gain = config.image_gain
        layers, channels = _image_layers(spec, config, 1)
        self.layers = nn.Sequential(
            layers, nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.ELU(), nn.Flatten()
        )
        self.features = _output_shape(self.layers, (1, *spec.shape))[0]

    def forward(self, depth_mm: Tensor) -> Tensor:
        """int16 [B, H, W] in mm (0 = invalid) to float32 [B, features]."""
        depth = self.gain * policy_depth(depth_mm, self.near_m, self.far_m)
        return self.layers(depth.unsqueeze(1))


class StereoEncoder(nn.Module):
    """Two colour images to features: shared layers for each image, then one that joins both."""

    def __init__(self, spec: TensorSpec, config: NetworkConfig) -> None:
        super().__init__()
        self.gain = config.image_gain
        self.shared, channels = _image_layers(spec, config, 3)
        self.joint = nn.Sequential(
            nn.Conv2d(2 * channels, 32, 3, stride=2, padding=1), nn.ELU(), nn.Flatten()
        )
        _, height, width = _output_shape(self.shared, spec.shape[1:])
        self.features = _output_shape(self.joint, (2 * channels, height, width))[0]

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 2, 3, H, W] (left, right) to float32 [B, features]."""
        pixels = self.gain * policy_rgb(images)  # [B, 2, 3, H, W]
        maps = self.shared(pixels.flatten(0, 1))  # [2 B, C, h, w]
        return self.joint(maps.unflatten(0, (-1, 2)).flatten(1, 2))


def _image_layers(
    spec: TensorSpec, config: NetworkConfig, channels: int
) -> tuple[nn.Sequential, int]:
    """All but the last layer of an encoder, and their number of output channels."""
    height, width = spec.shape[-2:]
    if config.encoder == "patch":
        return _patch_layers(spec, channels)
    if min(height, width) < 16 or max(height, width) > 640:
        raise ConfigError(
            f"{_size_text(spec)} does not suit the `conv` encoder: height and width must be 16 "
            "to 640; change the image size"
        )
    return _halving_layers(height, width, channels)


def _patch_layers(spec: TensorSpec, channels: int) -> tuple[nn.Sequential, int]:
    """One feature per 4x4 patch, as in the laptop runs (32x24)."""
    height, width = spec.shape[-2:]
    if height % 4 or width % 4 or min(height, width) < 8:
        raise ConfigError(
            f"{_size_text(spec)} does not suit the `patch` encoder: height and width must be "
            "multiples of 4 and at least 8; change the image size or set encoder: conv"
        )
    layers = (nn.Conv2d(channels, 32, 4, stride=4), nn.ELU(), nn.Conv2d(32, 48, 3, padding=1))
    return nn.Sequential(*layers, nn.ELU()), 48


def _halving_layers(height: int, width: int, channels: int) -> tuple[nn.Sequential, int]:
    """Halves the image until the encoder's last layer can leave at most `_MAX_CELLS` cells."""
    layers: list[nn.Module] = []
    width_of_layer = 16
    while height * width > 4 * _MAX_CELLS or not layers:
        kernel = 3 if layers else 5
        convolution = nn.Conv2d(channels, width_of_layer, kernel, stride=2, padding=kernel // 2)
        layers += [convolution, nn.ELU()]
        channels, width_of_layer = width_of_layer, 32
        height, width = (height + 1) // 2, (width + 1) // 2
    return nn.Sequential(*layers), channels


def _output_shape(layers: nn.Module, shape: Sequence[int]) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(layers(torch.zeros(1, *shape)).shape[1:])


def _size_text(spec: TensorSpec) -> str:
    height, width = spec.shape[-2:]
    return f"image {spec.name!r} of height {height} and width {width}"
