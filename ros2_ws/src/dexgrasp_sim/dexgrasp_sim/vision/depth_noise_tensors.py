"""The errors of `depth_strengths` as tensor code for any device, without host synchronisation.

It computes the same as `depth_noise_kernels` from the same random numbers, but in float32: a few
of 10^4 pixels differ by rounding.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.random_streams import normal_numbers, unit_numbers, words
from dexgrasp_sim.vision.depth_strengths import (
    DROPOUTS,
    MAX_SHAPES,
    NUMBERS_PER_SHAPE,
    SPECKLES,
    STICKS,
    DepthStrengths,
)

_PIXELS_AT_ONCE = 1 << 22
"""Pixels processed at a time: about 300 MiB of intermediate results."""


def corrupt(
    images: Tensor, keys: Tensor, disparity_bias: Tensor, strengths: DepthStrengths
) -> None:
    """Adds noise to n images in place.

    Args:
        images: [n, H, W] int16 millimetres, 0 = invalid.
        keys: [n] int64, the images' random streams.
        disparity_bias: [n] float32, sensor pixels added to every disparity of an image.
        strengths: Strengths of the errors.
    """
    count = max(1, _PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    batches = (images.split(count), keys.split(count), disparity_bias.split(count))
    for image, key, bias in zip(*batches, strict=True):
        image.copy_(_corrupted(image, key, bias, strengths))


def _corrupted(
    images: Tensor, keys: Tensor, disparity_bias: Tensor, strengths: DepthStrengths
) -> Tensor:
    depth = images.to(torch.float32)  # [n, H, W]
    noisy = _noisy(depth, keys, disparity_bias, strengths)  # [n, H, W]
    in_range = (noisy >= strengths.near_mm) & (noisy <= strengths.far_mm) & (depth > 0)
    lost = ~in_range | _lost_at_edges(depth, keys, strengths)  # [n, H, W]
    if strengths.dropout_share > 0:
        lost |= _dropouts(keys ^ DROPOUTS, images.shape, strengths.dropout_share)
    return _with_shapes(torch.where(lost, 0.0, noisy).to(torch.int16), keys, strengths)


def _noisy(
    depth: Tensor, keys: Tensor, disparity_bias: Tensor, strengths: DepthStrengths
) -> Tensor:
    """Noisy depths [n, H, W] in whole mm, not limited; meaningless at invalid pixels."""
    if strengths.changes_disparity:
        disparity = strengths.disparity_mm / depth + disparity_bias[:, None, None]  # [n, H, W]
        if strengths.disparity_sigma > 0:
            normal = normal_numbers(_pixel_words(keys, depth.shape, 0))  # [n, H, W]
            disparity += strengths.disparity_sigma * normal
        if strengths.disparity_step > 0:
            step = strengths.disparity_step
            disparity = step * torch.floor(disparity / step + 0.5)
        depth = torch.where(disparity > 0, strengths.disparity_mm / disparity, 0.0)
    if strengths.depth_sigma_per_mm > 0:
        normal = normal_numbers(_pixel_words(keys, depth.shape, 1))  # [n, H, W]
        depth = depth + strengths.depth_sigma_per_mm * depth * depth * normal
    return torch.floor(depth + 0.5)


def _pixel_words(keys: Tensor, shape: torch.Size, number: int) -> Tensor:
    """Words [n, H, W] int64: the random number 0, 1 or 2 of every pixel."""
    pixels = torch.arange(shape[1] * shape[2], device=keys.device)
    return words(keys, 3 * pixels + number).view(shape)


def _lost_at_edges(depth: Tensor, keys: Tensor, strengths: DepthStrengths) -> Tensor:
    """[n, H, W] bool: pixels that are lost at depth jumps and in shadows."""
    kept = torch.ones_like(depth)  # [n, H, W], probabilities
    if strengths.edge_share > 0:
        kept = torch.where(_edges(depth, strengths), 1 - strengths.edge_share, kept)
    if strengths.shadow_share > 0:
        kept = torch.where(_shadows(depth, strengths), (1 - strengths.shadow_share) * kept, kept)
    if strengths.edge_share == 0 and strengths.shadow_share == 0:
        return torch.zeros_like(depth, dtype=torch.bool)
    return unit_numbers(_pixel_words(keys, depth.shape, 2)) < 1 - kept


def _edges(depth: Tensor, strengths: DepthStrengths) -> Tensor:
    """[n, H, W] bool: both pixels at every depth jump; invalid ones count as at the far limit."""
    surface = torch.where(depth > 0, depth, strengths.far_mm)
    edges = torch.zeros_like(depth, dtype=torch.bool)
    for axis in (1, 2):
        jumps = _jumps(surface, axis, strengths.jump_mm)
        edges.narrow(axis, 0, jumps.shape[axis]).logical_or_(jumps)
        edges.narrow(axis, 1, jumps.shape[axis]).logical_or_(jumps)
    return edges


def _jumps(surface: Tensor, axis: int, jump_mm: float) -> Tensor:
    """Where a surface [n, H, W] mm jumps from a pixel to the next: bool, one fewer along the axis.

    The inverse depth of a plane is linear in the pixel. So a step is a slant, not a jump, if the
    step before or after it is similar.
    """
    step = (1 / surface).diff(dim=axis)
    border = torch.zeros_like(surface.narrow(axis, 0, 1))
    padded = torch.cat((border, step, border), dim=axis)
    before = padded.narrow(axis, 0, step.shape[axis])
    behind = padded.narrow(axis, 2, step.shape[axis])
    goes_on = 2 * torch.maximum(before * step, behind * step) >= step * step
    return (surface.diff(dim=axis).abs() > jump_mm) & ~goes_on


def _shadows(depth: Tensor, strengths: DepthStrengths) -> Tensor:
    """[n, H, W] bool: pixels that something nearer hides from the right lens.

    Each row is drawn as the right lens sees it, nearest surfaces on top. A pixel covers the two
    columns next to its position, so that slanted surfaces leave no gaps.
    """
    count, height, width = depth.shape
    scale = strengths.disparity_mm / strengths.sensor_pixels
    disparity = torch.where(depth > 0, scale / depth, 0.0)  # [n, H, W], pixels of the image
    columns = torch.arange(width, device=depth.device, dtype=torch.float32)
    seen_at = columns - disparity  # [n, H, W]
    place = seen_at.clamp_min(0).long()  # [n, H, W]
    drawn = torch.where(seen_at >= 0, disparity, 0.0)  # [n, H, W]
    right = torch.zeros(count, height, width + 1, device=depth.device)  # disparity on top
    right.scatter_reduce_(2, place, drawn, "amax").scatter_reduce_(2, place + 1, drawn, "amax")
    nearest = seen_at + 0.5
    in_front = right.gather(2, nearest.clamp_min(0).long())  # [n, H, W]
    # a disparity larger by less than a pixel belongs to the same, slanted surface
    return (nearest >= 0) & (in_front > disparity + 1)


def _dropouts(keys: Tensor, shape: torch.Size, share: float) -> Tensor:
    """[n, H, W] bool, each true with probability `share`, by drawing geometric gaps."""
    pixels = shape[1] * shape[2]
    # less than one of 10^9 images loses more
    most = math.ceil(min(pixels, pixels * share + 6 * math.sqrt(pixels * share) + 16))
    numbers = unit_numbers(words(keys, torch.arange(most, device=keys.device)))  # [n, M]
    whole_share = -math.inf if share == 1 else math.log1p(-share)
    gap = torch.log1p(-numbers.double()) / whole_share  # float32 would change one of 10^5 pixels
    place = (1 + gap.clamp_max(pixels).long()).cumsum(dim=1) - 1  # [n, M]
    lost = torch.zeros(shape[0], pixels + 1, device=keys.device, dtype=torch.bool)
    lost.scatter_(1, place.clamp_max(pixels), True)
    return lost[:, :pixels].view(shape)


class _Bars(NamedTuple):
    """S bars, each of one depth, in each of n images: [n, S] float64. Discs have length 0.

    Attributes:
        row: Start of the bar, pixels; pixel i reaches from i to i + 1.
        column: The same.
        angle: Direction, rad: 0 to the right, pi / 2 down.
        length: Pixels.
        radius: Pixels.
        depth: Millimetres, not rounded.
        drawn: bool, whether the bar is drawn.
        size: Largest number of rows and columns that a bar touches.
    """

    row: Tensor
    column: Tensor
    angle: Tensor
    length: Tensor
    radius: Tensor
    depth: Tensor
    drawn: Tensor
    size: int


def _with_shapes(images: Tensor, keys: Tensor, strengths: DepthStrengths) -> Tensor:
    """Images [n, H, W] int16 with bars and then discs drawn over them, later ones on top."""
    kinds = []
    if strengths.sticks > 0:
        kinds.append(_sticks(keys, images.shape, strengths))
    if strengths.speckles > 0:
        kinds.append(_speckles(keys, images.shape, strengths))
    if not kinds:
        return images
    count, height, width = images.shape
    # number of the topmost bar, from 1; the extra pixel collects what is not drawn
    topmost = torch.zeros(count, height * width + 1, device=images.device, dtype=torch.int64)
    first = 1
    for bars in kinds:
        _draw(bars, first, width, topmost)
        first += bars.row.shape[1]
    topmost = topmost[:, :-1]  # [n, H * W]
    depth = torch.cat([bars.depth for bars in kinds], dim=1).to(torch.int16)  # [n, S]
    drawn = depth.gather(1, (topmost - 1).clamp_min(0))  # [n, H * W]
    return torch.where(topmost > 0, drawn, images.reshape(count, -1)).view(images.shape)


def _speckles(keys: Tensor, shape: torch.Size, strengths: DepthStrengths) -> _Bars:
    """Discs, which stand for wrong matches."""
    most, widest = strengths.max_speckles, strengths.speckle_radius
    drawn, numbers = _shape_numbers(keys ^ SPECKLES, strengths.speckles, most)
    row, column, radius, depth = numbers[..., :4].unbind(-1)  # [n, S] each
    return _Bars(
        row * shape[1],
        column * shape[2],
        torch.zeros_like(row),
        torch.zeros_like(row),
        (radius * widest).clamp_min(0.5),
        _any_depth(depth, strengths),
        drawn,
        math.ceil(2 * max(0.5, widest)) + 1,
    )


def _sticks(keys: Tensor, shape: torch.Size, strengths: DepthStrengths) -> _Bars:
    """Bars, which stand for cables and other objects that are not simulated."""
    most, longest, widest = strengths.max_sticks, strengths.stick_length, strengths.stick_radius
    drawn, numbers = _shape_numbers(keys ^ STICKS, strengths.sticks, most)
    row, column, angle, length, radius, depth = numbers.unbind(-1)  # [n, S] each
    return _Bars(
        row * shape[1],
        column * shape[2],
        2 * math.pi * angle,
        length * longest,
        (radius * widest).clamp_min(0.5),
        _any_depth(depth, strengths),
        drawn,
        math.ceil(longest + 2 * max(0.5, widest)) + 1,
    )


def _shape_numbers(keys: Tensor, mean: float, most: int) -> tuple[Tensor, Tensor]:
    """Which of the S shapes are drawn [n, S] bool, and their random numbers [n, S, 6] float64.

    A Poisson-distributed number of them is drawn (Knuth's product of uniform numbers).
    """
    counters = torch.arange(MAX_SHAPES + NUMBERS_PER_SHAPE * most, device=keys.device)
    numbers = unit_numbers(words(keys, counters)).double()  # [n, C]
    product = numbers[:, :most].cumprod(dim=1)  # [n, S]
    drawn = product > math.exp(-mean)  # the product falls, so the first ones are drawn
    return drawn, numbers[:, MAX_SHAPES:].view(len(keys), most, NUMBERS_PER_SHAPE)


def _any_depth(number: Tensor, strengths: DepthStrengths) -> Tensor:
    near_mm, far_mm = math.ceil(strengths.near_mm), math.floor(strengths.far_mm)
    return near_mm + number * (far_mm - near_mm)


def _draw(bars: _Bars, first: int, width: int, topmost: Tensor) -> None:
    """Writes the numbers of bars into the pixels that they cover, higher numbers on top.

    Args:
        bars: S in each image.
        first: Number of the first one.
        width: Pixels per row.
        topmost: [n, H * W + 1] int64, changed; the last element takes what is not in the image.
    """
    pixels = topmost.shape[1] - 1
    last = torch.floor(2 * bars.length)  # [n, S]; a bar is made of discs, half a pixel apart
    step_down, step_right = 0.5 * torch.sin(bars.angle), 0.5 * torch.cos(bars.angle)
    top = torch.floor(bars.row + (last * step_down).clamp_max(0) - bars.radius)
    left = torch.floor(bars.column + (last * step_right).clamp_max(0) - bars.radius)
    offset = torch.arange(bars.size, device=topmost.device)  # [L]
    rows = (top.unsqueeze(-1) + offset).unsqueeze(-1)  # [n, S, L, 1]
    columns = (left.unsqueeze(-1) + offset).unsqueeze(-2)  # [n, S, 1, L]
    row, column, step_down, step_right, last, radius = (
        each.float()[..., None, None]
        for each in (bars.row, bars.column, step_down, step_right, last, bars.radius)
    )  # [n, S, 1, 1] each
    down, right = rows.float() + 0.5 - row, columns.float() + 0.5 - column
    place = torch.round(4 * (down * step_down + right * step_right))  # of the nearest disc
    place = torch.minimum(place.clamp_min(0), last)  # [n, S, L, L]
    distance = (down - place * step_down).square() + (right - place * step_right).square()
    inside = (distance <= radius * radius) & bars.drawn[..., None, None]
    inside &= (rows >= 0) & (rows < pixels // width) & (columns >= 0) & (columns < width)
    pixel = torch.where(inside, rows * width + columns, pixels).long()  # [n, S, L, L]
    number = first + torch.arange(pixel.shape[1], device=pixel.device)[:, None, None]  # [S, 1, 1]
    topmost.scatter_reduce_(1, pixel.flatten(1), number.expand_as(pixel).flatten(1), "amax")
