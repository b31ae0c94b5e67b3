"""Encoders of stereo colour images that are computed for both cameras with the same weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.resnet import ResNet18
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.vision.preprocess import policy_rgb

_PATCH_PX, _PATCH_FEATURES = 4, 32
_JOINT_FEATURES, _KEYPOINTS, _SHARPNESS = 64, 24, 3.0
_MOST_PIXELS = 64 * 64
"""Of `StereoSmallEncoder`; with more pixels the layer behind it would outgrow it."""
_WIDTH = 128
"""Of a token, as in DEXTRAH; so are the number of blocks, of heads, and of features."""
_BLOCKS, _HEADS, _FEATURES = 2, 4, 64
_SIDES_PX = (64, 640)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the colours that torchvision's weights were trained on."""


def build_stereo_encoder(
    spec: TensorSpec, config: NetworkConfig
) -> "StereoSmallEncoder | StereoResnetEncoder":
    """The encoder that `config.encoder` names.

    Raises:
        ConfigError: The group is no stereo colour image, or of a size that does not suit it.
    """
    if spec.dtype != "uint8" or len(spec.shape) != 4:
        raise ConfigError(
            f"encoder {config.encoder!r} takes stereo colour images only, {spec.name!r} is "
            f"{spec.dtype} {list(spec.shape)}; set encoder: patch or conv"
        )
    kind = StereoSmallEncoder if config.encoder == "stereo_small" else StereoResnetEncoder
    return kind(spec, config)


class StereoSmallEncoder(nn.Module):
    """Patches of both images and, of each image, where in it some learned features are.

    Attributes:
        features: Length of the result.
    """

    places: Tensor

    def __init__(self, spec: TensorSpec, config: NetworkConfig) -> None:
        """ConfigError if the image does not consist of whole patches."""
        super().__init__()
        height, width = spec.shape[-2:]
        cell_px = 2 * _PATCH_PX
        if height % cell_px or width % cell_px or height * width > _MOST_PIXELS:
            raise ConfigError(
                f"image {spec.name!r} of height {height} and width {width} does not suit the "
                f"`stereo_small` encoder: both must be multiples of {cell_px}, their product at "
                f"most {_MOST_PIXELS}; change the image size or set encoder: stereo_resnet"
            )
        self.gain = config.rgb_gain
        self.rows, self.columns = height // _PATCH_PX, width // _PATCH_PX
        self.patch = nn.Linear(3 * _PATCH_PX**2, _PATCH_FEATURES)
        self.keys = nn.Linear(_PATCH_FEATURES, _KEYPOINTS)
        self.joint = nn.Linear(2 * 4 * _PATCH_FEATURES, _JOINT_FEATURES)
        self.features = 4 * _KEYPOINTS + _JOINT_FEATURES * self.rows * self.columns // 4
        u = torch.linspace(-1, 1, self.columns).repeat(self.rows)
        v = torch.linspace(-1, 1, self.rows).repeat_interleave(self.columns)
        self.register_buffer("places", torch.stack((u, v), 1), persistent=False)  # [cells, 2]

    def lay_out(self, images: Tensor) -> Tensor:
        """The same images; see `PatchEncoder.lay_out`."""
        return images

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 2, 3, H, W] (left, right) to float32 [B, features]."""
        cells = (self.rows, _PATCH_PX, self.columns, _PATCH_PX)
        split = (self.gain * policy_rgb(images)).reshape(-1, 2, 3, *cells)
        patches = split.permute(0, 1, 3, 5, 4, 6, 2).flatten(4)  # [B, 2, rows, columns, 48]
        local = functional.elu(self.patch(patches))  # [B, 2, rows, columns, F]
        return torch.cat((self._keypoints(local), self._joined(local)), 1)

    def _keypoints(self, local: Tensor) -> Tensor:
        """Mean places, weighted by how much each cell is like a key: [B, 2 K 2] in [-1, 1].

        Levine et al., "End-to-end training of deep visuomotor policies" (2016).
        """
        likeness = _SHARPNESS * self.keys(local).flatten(2, 3)  # [B, 2, cells, K]
        weights = likeness.softmax(2).transpose(2, 3)  # [B, 2, K, cells]
        return (weights @ self.places).flatten(1)

    def _joined(self, local: Tensor) -> Tensor:
        """Features of 2x2 cells of both images, [B, rows columns F' / 4]."""
        halves = (self.rows // 2, 2, self.columns // 2, 2)
        split = local.reshape(-1, 2, *halves, _PATCH_FEATURES)
        cells = split.permute(0, 2, 4, 1, 3, 5, 6).flatten(3)  # [B, rows / 2, columns / 2, 8 F]
        return functional.elu(self.joint(cells)).flatten(1)


class StereoResnetEncoder(nn.Module):
    """A ResNet-18 for both images, whose cells attend to those of the other image.

    Attributes:
        features: Length of the result.
    """

    mean: Tensor
    std: Tensor

    features = _FEATURES

    def __init__(self, spec: TensorSpec, config: NetworkConfig) -> None:
        """ConfigError if the image is too small or too large for the ResNet."""
        super().__init__()
        height, width = spec.shape[-2:]
        least, most = _SIDES_PX
        if min(height, width) < least or max(height, width) > most:
            raise ConfigError(
                f"image {spec.name!r} of height {height} and width {width} does not suit the "
                f"`stereo_resnet` encoder: both must be {least} to {most}; change the image size "
                "or set encoder: stereo_small"
            )
        self.resnet = ResNet18()
        self.reduce = nn.Conv2d(ResNet18.features, _WIDTH, 1)
        cells = -(-height // 32) * -(-width // 32)
        self.attention = StereoAttention(cells, config.attention_dropout)
        self.readout = nn.Linear(_WIDTH, _FEATURES)
        for name, values in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def lay_out(self, images: Tensor) -> Tensor:
        """The same images; see `PatchEncoder.lay_out`."""
        return images

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 2, 3, H, W] (left, right) to float32 [B, features]."""
        colours = (images.to(torch.float32) / 255 - self.mean) / self.std
        maps = torch.relu(self.reduce(self.resnet(colours.flatten(0, 1))))  # [B 2, width, h, w]
        cells = maps.flatten(2).transpose(1, 2)  # [B 2, h w, width]
        summary = self.attention(cells.unflatten(0, (-1, 2)).flatten(1, 2))  # [B, width]
        return self.readout(summary)


class StereoAttention(nn.Module):
    """Transformer blocks over the cells of two images and a token that reads all of them.

    A cell attends to itself and to the cells of the other image only, in which it looks for its
    counterpart; the reading token attends to everything.
    """

    mask: Tensor

    def __init__(self, cells: int, dropout: float) -> None:
        """Args:
        cells: Of one image.
        dropout: Share of attention weights and of hidden values that are 0 in training.
        """
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, _WIDTH))
        self.position = nn.Parameter(0.02 * torch.randn(1 + 2 * cells, _WIDTH))
        self.blocks = nn.ModuleList([_AttentionBlock(dropout) for _ in range(_BLOCKS)])
        self.norm = nn.LayerNorm(_WIDTH)
        self.register_buffer("mask", _cross_mask(cells), persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """Left, then right cells [B, 2 C, width] to what the token has read, [B, width]."""
        tokens = torch.cat((self.token.expand(len(cells), -1, -1), cells), 1) + self.position
        for block in self.blocks:
            tokens = block(tokens, self.mask)  # [B, 1 + 2 C, width]
        return self.norm(tokens[:, 0])


class _AttentionBlock(nn.Module):
    """Multi-head attention and an MLP, each behind a normalisation and beside a shortcut."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm, self.mlp_norm = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.inputs, self.output = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(_WIDTH, 4 * _WIDTH),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * _WIDTH, _WIDTH),
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens [B, S, width]; `mask` bool [S, S], True where row may attend to column."""
        parts = self.inputs(self.norm(tokens)).unflatten(-1, (3, _HEADS, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [B, heads, S, d] each
        # a float mask would be added to the weights instead, and this dropout ignores `eval`
        attended = functional.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=self.dropout if self.training else 0.0
        )
        tokens = tokens + self.output(attended.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.mlp_norm(tokens))


def _cross_mask(cells: int) -> Tensor:
    """True where a row's token may attend to a column's, bool [1 + 2 C, 1 + 2 C]."""
    view = torch.tensor([0] + [1] * cells + [2] * cells)
    mask = (view[:, None] != view) & (view != 0)  # the other image's cells
    mask |= torch.eye(len(view), dtype=torch.bool)
    mask[0] = True
    return mask
