"""Image encoders: raw images in their stored type to flat features."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.stereo import (
    StereoResnetEncoder,
    StereoSmallEncoder,
    build_stereo_encoder,
)
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.vision.preprocess import policy_depth, policy_rgb
from dexgrasp_sim.vision.table_plane import level_table
from dexgrasp_sim.vision.table_view import TableView

_MAX_FEATURES = 4096
"""More flat features than this make the fusing layer larger than the encoder."""
_MAX_CELLS = 96
"""The map of a `conv` encoder has at most this many cells."""


def build_encoder(
    spec: TensorSpec, config: NetworkConfig, view: TableView | None
) -> "PatchEncoder | ConvEncoder | StereoSmallEncoder | StereoResnetEncoder":
    """The encoder of an image group.

    Args:
        spec: Of the group.
        config: Of the net.
        view: Of the depth camera; only depth images need it.

    Raises:
        ConfigError: The group is neither int16 depth [H, W] nor uint8 stereo colour [2, 3, H, W],
            or its size does not suit `config.encoder`.
    """
    if config.encoder in ("stereo_small", "stereo_resnet"):
        return build_stereo_encoder(spec, config)
    if spec.dtype == "int16" and len(spec.shape) == 2:
        if view is None:
            raise ValueError(f"{spec.name!r} is depth: give the view of its camera")
        pixels = DepthPixels(spec, view, config.level_table)
    elif spec.dtype == "uint8" and len(spec.shape) == 4 and spec.shape[:2] == (2, 3):
        pixels = RgbPixels(config.rgb_gain)
    else:
        raise ConfigError(
            f"observation group {spec.name!r} is {spec.dtype} {list(spec.shape)}; the nets take "
            "int16 depth [H, W], uint8 stereo colour [2, 3, H, W] and float32 vectors [P]"
        )
    kind = PatchEncoder if config.encoder == "patch" else ConvEncoder
    encoder = kind(spec, config, pixels)
    if encoder.features > _MAX_FEATURES:
        raise ConfigError(
            f"{_size_text(spec)} gives the {config.encoder!r} encoder {encoder.features} "
            f"features, more than {_MAX_FEATURES}; set encoder: conv, larger patch_layers, or "
            "make the image smaller"
        )
    return encoder


class DepthPixels(nn.Module):
    """Depth images as the encoders read them, see `policy_depth` and `level_table`."""

    views, channels = 1, 1
    table_m: Tensor

    def __init__(self, spec: TensorSpec, view: TableView, levels: bool) -> None:
        super().__init__()
        self.levels = levels
        self.near_m, self.far_m = view.camera.near_m, view.camera.far_m
        height, width = spec.shape
        # given by the config, so no part of the weights
        self.register_buffer("table_m", view.depth_m(height, width), persistent=False)

    def forward(self, depth_mm: Tensor) -> Tensor:
        """int16 [B, H, W] in mm (0 = invalid) to float32 [B, 1, 1, H, W]."""
        depth = policy_depth(depth_mm, self.table_m, self.near_m, self.far_m)
        return (level_table(depth, self.table_m) if self.levels else depth)[:, None, None]


class RgbPixels(nn.Module):
    """Stereo colour images as the encoders read them."""

    views, channels = 2, 3

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 2, 3, H, W] (left, right) to float32 of the same shape."""
        return self.gain * policy_rgb(images)


class PatchEncoder(nn.Module):
    """Layers that each map patches to features, without overlap: the cheapest encoder on a CPU.

    The first layer reads patches of pixels, the same weights for each camera; the next one patches
    of the first one's output from all cameras, and so on. Pixels are laid out once so that every
    layer is a matrix product over consecutive elements.
    """

    def __init__(
        self, spec: TensorSpec, config: NetworkConfig, pixels: DepthPixels | RgbPixels
    ) -> None:
        super().__init__()
        self.pixels = pixels
        self.sides = tuple(side for side, _ in config.patch_layers)
        height, width = spec.shape[-2:]
        step = prod(self.sides)
        if height % step or width % step:
            raise ConfigError(
                f"{_size_text(spec)} does not suit the `patch` encoder: height and width must be "
                f"multiples of {step}, the product of the sides in `patch_layers`; change the "
                "image size or set encoder: conv"
            )
        inputs, views = pixels.channels, pixels.views
        self.layers = nn.ModuleList()
        self.patch_sizes: list[int] = []
        for number, (side, width_of_layer) in enumerate(config.patch_layers):
            joined = views if number == 1 else 1
            self.patch_sizes.append(side**2 * joined * inputs)
            self.layers.append(nn.Linear(self.patch_sizes[-1], width_of_layer))
            inputs = width_of_layer
        separate = views if len(self.sides) == 1 else 1
        self.features = (height // step) * (width // step) * separate * inputs

    def lay_out(self, images: Tensor) -> Tensor:
        """Images [B, ...] as in the group's spec to float32 [B, 1, V H W C], as the layers read
        them; `forward` takes either. For those who read the same images several times.
        """
        return self._in_patches(self.pixels(images)).unsqueeze(1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, ...] as in the group's spec, or laid out, to float32 [B, features]."""
        values = images if images.is_floating_point() else self.lay_out(images)
        for layer, size in zip(self.layers, self.patch_sizes):
            patches = values.reshape(len(values), -1, size)  # [B, cells, size]
            values = nn.functional.elu(layer(patches))
        return values.flatten(1)

    def _in_patches(self, pixels: Tensor) -> Tensor:
        """Lays pixels [B, V, C, H, W] out as [B, V H W C], those of each patch together."""
        count, _, channels, height, width = pixels.shape
        step, outwards = prod(self.sides), self.sides[::-1]
        split = pixels.reshape(
            count, -1, channels, height // step, *outwards, width // step, *outwards
        )
        layers = len(self.sides)
        rows, columns = 3, 4 + layers  # axes of the coarsest cells
        patches = [axis + depth for depth in range(1, layers + 1) for axis in (rows, columns)]
        # cells, then the patches from the last layer's to the second's, cameras, the first's
        order = (0, rows, columns, *patches[:-2], 1, *patches[-2:], 2)
        return split.permute(order).flatten(1)


class ConvEncoder(nn.Module):
    """Convolutions that halve the image: the same for each camera, then one that joins them."""

    def __init__(
        self, spec: TensorSpec, config: NetworkConfig, pixels: DepthPixels | RgbPixels
    ) -> None:
        super().__init__()
        del config
        height, width = spec.shape[-2:]
        if min(height, width) < 16 or max(height, width) > 640:
            raise ConfigError(
                f"{_size_text(spec)} does not suit the `conv` encoder: height and width must be "
                "16 to 640; change the image size"
            )
        self.pixels = pixels
        self.shared, channels = _halving_layers(height, width, pixels.channels)
        self.joint = nn.Sequential(
            nn.Conv2d(pixels.views * channels, 32, 3, stride=2, padding=1), nn.ELU(), nn.Flatten()
        )
        shape = _output_shape(self.shared, (pixels.channels, height, width))
        joined = (pixels.views * channels, *shape[1:])
        self.features = _output_shape(self.joint, joined)[0]

    def lay_out(self, images: Tensor) -> Tensor:
        """The same images: convolutions read them as they are."""
        return images

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, ...] as in the group's spec to float32 [B, features]."""
        pixels = self.pixels(images)  # [B, V, C, H, W]
        maps = self.shared(pixels.flatten(0, 1))  # [B V, C', h, w]
        return self.joint(maps.unflatten(0, (-1, pixels.shape[1])).flatten(1, 2))


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
