"""The changes of `rgb_changes` as tensor code for any device, without host synchronisation.

It computes the same as `rgb_kernels` from the same random numbers, up to rounding.
"""

import torch
from torch import Tensor
from torch.nn import functional

from dexgrasp_sim.random_streams import normal_numbers, words
from dexgrasp_sim.vision.rgb_changes import RgbChanges

_PIXELS_AT_ONCE = 1 << 21
"""Pixels processed at a time: about 300 MiB of intermediate results."""


def augment(images: Tensor, keys: Tensor, changes: RgbChanges) -> None:
    """Blurs, recolours and adds noise to n environments' images in place.

    Args:
        images: [n, V, 3, H, W] uint8; V views of the same scene.
        keys: [n] int64, random streams of the noise.
        changes: Of the n environments.
    """
    views, _, height, width = images.shape[1:]
    count = max(1, _PIXELS_AT_ONCE // (views * height * width))
    for start in range(0, len(images), count):
        rows = slice(start, start + count)
        part = images[rows]
        level = _blurred(part.to(torch.float32), changes.weights[rows])  # [n, V, 3, H, W]
        level = _recoloured(level / 255, changes.matrices[rows], changes.curves[rows])
        level = _noisy(255 * level, keys[rows], changes)
        part.copy_((level + 0.5).clamp(0, 255).to(torch.uint8))


def _blurred(images: Tensor, weights: Tensor) -> Tensor:
    """Images [n, V, 3, H, W] convolved with [n, K, K], padded with the nearest border pixels."""
    size = weights.shape[1]
    if size == 1:
        return images
    planes = images.flatten(1, 2)  # [n, 3 V, H, W]
    radius = size // 2
    padded = functional.pad(planes, (radius, radius, radius, radius), mode="replicate")
    count, channels = planes.shape[:2]
    each = weights.unsqueeze(1).expand(-1, channels, -1, -1)  # [n, 3 V, K, K]
    return functional.conv2d(
        padded.flatten(0, 1).unsqueeze(0),
        each.reshape(count * channels, 1, size, size),
        groups=count * channels,
    ).view(images.shape)


def _recoloured(images: Tensor, matrices: Tensor, curves: Tensor) -> Tensor:
    """Images [n, V, 3, H, W] of levels 0 to 1 after colour matrix and tone curve."""
    red, green, blue = images.unsqueeze(3).unbind(2)  # [n, V, 1, H, W] each
    columns = matrices[:, None, :, None, None]  # [n, 1, 3, 1, 1, 4]
    of_red, of_green, of_blue, offset = columns.unbind(-1)
    level = of_red * red + of_green * green + of_blue * blue + offset  # [n, V, 3, H, W]
    points = curves.shape[1]
    place = level.clamp(0, 1) * (points - 1)
    left = place.long().clamp_max(points - 2)
    flat = left.flatten(1)  # [n, V * 3 * H * W]
    low = curves.gather(1, flat).view(level.shape)
    high = curves.gather(1, flat + 1).view(level.shape)
    return low + (place - left) * (high - low)


def _noisy(level: Tensor, keys: Tensor, changes: RgbChanges) -> Tensor:
    """Images [n, V, 3, H, W] of levels 0 to 255 with noise added."""
    if changes.read_noise == 0 and changes.shot_noise == 0:
        return level
    count, views, channels, height, width = level.shape
    numbers = torch.arange(views * height * width * channels, device=level.device)
    normal = normal_numbers(words(keys, numbers))  # [n, V * H * W * 3], channels last
    normal = normal.view(count, views, height, width, channels).permute(0, 1, 4, 2, 3)
    variance = changes.read_noise**2 + changes.shot_noise**2 / 255 * level
    return level + variance.sqrt() * normal
