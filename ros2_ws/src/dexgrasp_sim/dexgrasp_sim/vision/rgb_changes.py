"""Augmentation of colour images towards those of real cameras; in simulation only.

The order is that of a camera: blur by the lens and by motion, exposure and colour, tone curve,
sensor noise. All views of an environment get the same changes except for the noise.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.vision.image_config import RgbAugmentationConfig

_LUMA = (0.299, 0.587, 0.114)
"""Rec. 601: the weights of red, green and blue in brightness."""
_TO_YIQ = np.array([_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
"""NTSC: brightness and two axes of colour; hue is the angle in their plane."""
_PLANE = ((0, 0, 0), (0, 1, 0), (0, 0, 1))
_QUARTER_TURN = ((0, 0, 0), (0, 0, -1), (0, 1, 0))
_CURVE_POINTS = 257
_LEAST_SIGMA_PX = 0.25
"""Smallest standard deviation of the blur kernel; sampled at pixels, it does not blur."""
_LEAST_WEIGHT = 1e-3
"""Smaller weights are set to 0: they cost time and are invisible."""


class RgbChanges(NamedTuple):
    """Changes of the images of N environments.

    Attributes:
        weights: [N, K, K] float32, blur kernels of sum 1, K odd; K = 1 for none.
        matrices: [N, 3, 4] float32, map colours 0 to 1 with a 1 appended to new colours.
        curves: [N, C] float32, tone curves: values at C equal steps of the input from 0 to 1.
        read_noise: Standard deviation of the noise in black, grey levels.
        shot_noise: Standard deviation of the additional noise in white, grey levels.
    """

    weights: Tensor
    matrices: Tensor
    curves: Tensor
    read_noise: float
    shot_noise: float


class RgbAugmentation(nn.Module):
    """Draws the changes of N environments' colour images."""

    _grey: Tensor
    _cosine: Tensor
    _sine: Tensor

    def __init__(self, config: RgbAugmentationConfig, height: int, streams: RandomStreams) -> None:
        """Args:
        config: The strengths.
        height: Rows of the images.
        streams: Of the environments; its device is used.
        """
        super().__init__()
        self._config, self._height = config, height
        self.streams = streams
        from_yiq = np.linalg.inv(_TO_YIQ)
        for name, part in (
            ("_grey", np.diag((1, 0, 0))),
            ("_cosine", np.array(_PLANE)),
            ("_sine", np.array(_QUARTER_TURN)),
        ):
            matrix = torch.from_numpy(from_yiq @ part @ _TO_YIQ)  # [3, 3]
            self.register_buffer(name, matrix.to(streams.env.device), persistent=False)

    def draw(self, episode: Tensor, step: Tensor) -> RgbChanges:
        """The changes in each environment's episode and step, both [N] int64."""
        config = self._config
        drawn = self.streams.symmetric(Purpose.RGB_EPISODE, episode, 0, 10)  # [N, 10]
        motion = self.streams.uniform(Purpose.RGB_STEP, episode, step, 3)  # [N, 3]
        return RgbChanges(
            self.blur_kernels(drawn[:, 9], motion),
            self.color_matrices(drawn[:, :8]),
            self.tone_curves(drawn[:, 8]),
            config.read_noise,
            config.shot_noise,
        )

    def color_matrices(self, drawn: Tensor) -> Tensor:
        """Matrices that change colours from 0 to 1.

        Args:
            drawn: [N, 8], from -1 to 1: brightness, contrast, saturation, hue, exposure and the
                white balance of three channels, as fractions of their strengths.

        Returns:
            [N, 3, 4] float32: matrices that map a colour with a 1 appended to the new one.
        """
        config = self._config
        brightness, contrast, saturation, hue, exposure = (
            drawn[:, :5].double()[..., None, None].unbind(1)  # [N, 1, 1] each
        )
        light = torch.exp(math.log(2) * config.exposure * exposure)
        gains = light * (1 + config.white_balance * drawn[:, None, 5:].double())  # [N, 1, 3]
        scale, angle = 1 + config.saturation * saturation, 2 * math.pi * config.hue * hue
        in_plane = torch.cos(angle) * self._cosine + torch.sin(angle) * self._sine
        steepness = 1 + config.contrast * contrast
        linear = steepness * (self._grey + scale * in_plane) * gains  # [N, 3, 3]
        offset = 0.5 * (1 - steepness) + config.brightness * brightness
        return torch.cat((linear, offset.expand(-1, 3, 1)), dim=2).float()

    def tone_curves(self, drawn: Tensor) -> Tensor:
        """Tone curves [N, C] float32 from draws [N] in [-1, 1]; see `RgbChanges.curves`."""
        levels = torch.linspace(0.0, 1.0, _CURVE_POINTS, device=drawn.device)  # [C]
        exponent = torch.exp(self._config.gamma * drawn).unsqueeze(1)  # [N, 1]
        # rounding of a power would depend on the row's place in the batch
        return torch.exp(exponent * torch.log(levels))

    def blur_kernels(self, defocus: Tensor, motion: Tensor) -> Tensor:
        """Blur kernels: normal distributions moved along a line.

        Args:
            defocus: [N], from -1 to 1; its magnitude scales the standard deviation.
            motion: [N, 3], from 0 to 1: whether there is motion, its length and its direction.

        Returns:
            [N, K, K] float32 of sum 1, K odd and as large as the strengths need.
        """
        config, device = self._config, defocus.device
        longest, widest = config.motion_blur * self._height, config.defocus * self._height
        radius = math.ceil(2 * widest + longest / 2)
        if radius == 0:
            return torch.ones(len(defocus), 1, 1, device=device)
        sigma = (widest * defocus.abs()).clamp_min(_LEAST_SIGMA_PX)[:, None, None]  # [N, 1, 1]
        length = torch.where(motion[:, 0] < config.motion_share, longest * motion[:, 1], 0.0)
        line = torch.linspace(-0.5, 0.5, 4 * radius + 1, device=device)  # [P]
        place = (length.unsqueeze(1) * line).unsqueeze(1)  # [N, 1, P]
        angle = math.pi * motion[:, 2, None, None]  # [N, 1, 1]
        offset = torch.arange(-radius, radius + 1, device=device).unsqueeze(1)  # [K, 1]
        down = torch.exp(-(((offset - place * torch.sin(angle)) / sigma) ** 2) / 2)  # [N, K, P]
        right = torch.exp(-(((offset - place * torch.cos(angle)) / sigma) ** 2) / 2)
        weights = down @ right.transpose(1, 2)  # [N, K, K]
        weights = weights / weights.sum(dim=(1, 2), keepdim=True)
        weights = torch.where(weights < _LEAST_WEIGHT, 0.0, weights)
        return weights / weights.sum(dim=(1, 2), keepdim=True)
