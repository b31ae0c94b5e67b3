"""ResNet-18 without its last layers, whose weights may come from torchvision's file."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dexgrasp_sim.config import ConfigError

_UNUSED = ("fc.", "num_batches_tracked")
"""Parts of torchvision's file that have no counterpart here."""


class ResNet18(nn.Module):
    """He et al., "Deep residual learning for image recognition" (2016), up to its last map.

    Names and shapes of the weights are those of torchvision's `resnet18`. With random weights each
    block begins as the identity, so that no normalisation is needed.

    Attributes:
        features: Channels of the map.
    """

    features = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = FixedNorm(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(64, 64), _Block(64, 64))
        self.layer2 = nn.Sequential(_Block(64, 128, stride=2), _Block(128, 128))
        self.layer3 = nn.Sequential(_Block(128, 256, stride=2), _Block(256, 256))
        self.layer4 = nn.Sequential(_Block(256, 512, stride=2), _Block(512, 512))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Normalised colours [B, 3, H, W] to maps [B, 512, H / 32, W / 32], rounded up."""
        values = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(values))))

    def load(self, path: Path) -> None:
        """Reads weights from a `.safetensors` file or one that torch has saved.

        Args:
            path: A state dict of torchvision's `resnet18`; its classifier is ignored.

        Raises:
            ConfigError: The file cannot be read, or holds other weights.
        """
        try:
            is_safe = path.suffix == ".safetensors"
            weights = load_file(path) if is_safe else torch.load(path, weights_only=True)
            weights = {k: v for k, v in weights.items() if not any(part in k for part in _UNUSED)}
            self.load_state_dict(weights)
        except Exception as error:  # of zip, pickle, safetensors and torch: no common base class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"network.resnet_weights {path}: not the weights of torchvision's resnet18 "
                f"({reason}); give its `.pth` or `.safetensors` file, or null for random ones"
            ) from None


class FixedNorm(nn.Module):
    """Batch normalisation whose statistics never change: a learned scale and offset per channel.

    A robot's batch is one image, a rollout's is many: statistics of the batch would make the
    policy that acts another one than the policy that learns.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, values: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        scale = self.weight * torch.rsqrt(self.running_var + 1e-5)  # [C]
        offset = self.bias - self.running_mean * scale  # [C]
        return values * scale[:, None, None] + offset[:, None, None]


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = FixedNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = FixedNorm(outputs, scale=0.0)  # the identity at first
        self.downsample = None
        if stride > 1:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, FixedNorm(outputs))

    def forward(self, values: Tensor) -> Tensor:
        shortcut = values if self.downsample is None else self.downsample(values)
        values = torch.relu(self.bn1(self.conv1(values)))
        return torch.relu(self.bn2(self.conv2(values)) + shortcut)
