"""The errors of `depth_strengths` as compiled loops for the CPU.

One pass over each image marks holes, one adds noise, then shapes are drawn. Change
`depth_noise_tensors` in the same way: tests compare both.
"""

import numpy as np

from dexgrasp_sim.kernels import inline, kernel
from dexgrasp_sim.vision.depth_strengths import (
    DROPOUTS,
    MAX_SHAPES,
    NUMBERS_PER_SHAPE,
    SPECKLES,
    STICKS,
    DepthStrengths,
)
from dexgrasp_sim.vision.random_kernels import SOURCES, normal, uniform, word

_SHADOW, _EDGE, _DROPOUT = 1, 2, 4
_SPECKLES, _STICKS, _DROPOUTS = np.uint64(SPECKLES), np.uint64(STICKS), np.uint64(DROPOUTS)


@kernel
def corrupt(
    images: np.ndarray,
    keys: np.ndarray,
    disparity_bias: np.ndarray,
    strengths: DepthStrengths,
    sources: int = SOURCES,
) -> None:
    """Adds noise to n images in place.

    Args:
        images: [n, H, W] int16 millimetres, 0 = invalid, C-contiguous.
        keys: [n] uint64, the images' random streams.
        disparity_bias: [n] float32, sensor pixels added to every disparity of an image.
        strengths: Strengths of the errors.
        sources: See `SOURCES`.
    """
    marks = np.zeros(images.shape[1:], np.uint8)
    row_disparity = np.empty(images.shape[2], np.float32)
    right_disparity = np.empty(images.shape[2] + 1, np.float32)
    for index in range(len(images)):
        image, key = images[index], keys[index]
        marks[:] = 0
        if strengths.edge_share > 0:
            _mark_edges(image, strengths, marks)
        if strengths.shadow_share > 0:
            _mark_shadows(image, strengths, row_disparity, right_disparity, marks)
        if strengths.dropout_share > 0:
            _mark_dropouts(key ^ _DROPOUTS, strengths.dropout_share, marks)
        _perturb(image, key, disparity_bias[index], strengths, marks)
        _draw_sticks(image, key ^ _STICKS, strengths)
        _draw_speckles(image, key ^ _SPECKLES, strengths)


@inline
def _mark_edges(image: np.ndarray, strengths: DepthStrengths, marks: np.ndarray) -> None:
    """Marks both pixels at every depth jump; invalid pixels count as at the far limit."""
    height, width = image.shape
    far_mm, jump_mm = strengths.far_mm, strengths.jump_mm
    for row in range(height):
        for column in range(width):
            depth = _or_far(image[row, column], far_mm)
            if column + 1 < width:
                beside = _or_far(image[row, column + 1], far_mm)
                if abs(depth - beside) > jump_mm and not _goes_on(image[row], column, far_mm):
                    marks[row, column] |= _EDGE
                    marks[row, column + 1] |= _EDGE
            if row + 1 < height:
                below = _or_far(image[row + 1, column], far_mm)
                if abs(depth - below) > jump_mm and not _goes_on(image[:, column], row, far_mm):
                    marks[row, column] |= _EDGE
                    marks[row + 1, column] |= _EDGE


@inline
def _goes_on(line: np.ndarray, index: int, far_mm: float) -> bool:
    """Whether the depth step from a pixel of a row or column to the next is a slanted surface.

    The inverse depth of a plane is linear in the pixel. So the step is a slant, not a jump, if the
    step before or after it is similar.
    """
    here, there = 1 / _or_far(line[index], far_mm), 1 / _or_far(line[index + 1], far_mm)
    step, before, behind = there - here, 0.0, 0.0
    if index > 0:
        before = here - 1 / _or_far(line[index - 1], far_mm)
    if index + 2 < len(line):
        behind = 1 / _or_far(line[index + 2], far_mm) - there
    return 2 * max(before * step, behind * step) >= step * step


@inline
def _or_far(depth: int, far_mm: float) -> float:
    return float(depth) if depth > 0 else far_mm


@inline
def _mark_shadows(
    image: np.ndarray,
    strengths: DepthStrengths,
    row_disparity: np.ndarray,
    right_disparity: np.ndarray,
    marks: np.ndarray,
) -> None:
    """Marks the pixels that something nearer hides from the right lens: left of near edges.

    Each row is drawn as the right lens sees it, nearest surfaces on top. A pixel covers the two
    columns next to its position, so that slanted surfaces leave no gaps.
    """
    height, width = image.shape
    scale = np.float32(strengths.disparity_mm / strengths.sensor_pixels)
    for row in range(height):
        right_disparity[:] = 0.0
        for column in range(width):
            depth = np.float32(image[row, column])
            row_disparity[column] = scale / depth if depth > 0 else np.float32(0)
        for column in range(width):
            disparity = row_disparity[column]
            seen_at = np.float32(column) - disparity
            if seen_at >= 0:
                place = int(seen_at)
                right_disparity[place] = max(right_disparity[place], disparity)
                right_disparity[place + 1] = max(right_disparity[place + 1], disparity)
        for column in range(width):
            disparity = row_disparity[column]
            seen_at = np.float32(column) - disparity + np.float32(0.5)
            # a disparity larger by less than a pixel belongs to the same, slanted surface
            if seen_at >= 0 and right_disparity[int(seen_at)] > disparity + np.float32(1):
                marks[row, column] |= _SHADOW


@inline
def _mark_dropouts(key: np.uint64, share: float, marks: np.ndarray) -> None:
    """Marks each pixel with probability `share`, by drawing geometrically distributed gaps."""
    pixels, pixel, number = marks.reshape(-1), -1, 0
    while True:
        gap = np.log(1 - uniform(key, number)) / np.log1p(-share)
        if gap >= len(pixels) - pixel - 1:
            return
        pixel += 1 + int(gap)
        pixels[pixel] |= _DROPOUT
        number += 1


@inline
def _perturb(
    image: np.ndarray,
    key: np.uint64,
    disparity_bias: float,
    strengths: DepthStrengths,
    marks: np.ndarray,
) -> None:
    height, width = image.shape
    step, sigma = strengths.disparity_step, strengths.disparity_sigma
    for row in range(height):
        for column in range(width):
            depth = float(image[row, column])
            if depth <= 0:
                continue
            number = 3 * (row * width + column)
            if strengths.changes_disparity:
                disparity = strengths.disparity_mm / depth + disparity_bias
                disparity += sigma * normal(word(key, number))
                if step > 0:
                    disparity = step * np.floor(disparity / step + 0.5)
                depth = strengths.disparity_mm / disparity if disparity > 0 else 0.0
            if strengths.depth_sigma_per_mm > 0:
                deviation = strengths.depth_sigma_per_mm * depth * depth
                depth += deviation * normal(word(key, number + 1))
            depth = np.floor(depth + 0.5)
            lost = not strengths.near_mm <= depth <= strengths.far_mm
            mark = marks[row, column]
            if mark:
                lost = lost or uniform(key, number + 2) < _loss(mark, strengths)
            image[row, column] = np.int16(0 if lost else depth)


@inline
def _loss(mark: int, strengths: DepthStrengths) -> float:
    """Probability that a marked pixel is lost."""
    if mark & _DROPOUT:
        return 1.0
    edge = strengths.edge_share if mark & _EDGE else 0.0
    shadow = strengths.shadow_share if mark & _SHADOW else 0.0
    return 1 - (1 - edge) * (1 - shadow)


@inline
def _draw_speckles(image: np.ndarray, key: np.uint64, strengths: DepthStrengths) -> None:
    """Draws discs of random depth, which stand for wrong matches."""
    height, width = image.shape
    for shape in range(_poisson(strengths.speckles, strengths.max_speckles, key)):
        number = MAX_SHAPES + NUMBERS_PER_SHAPE * shape
        row, column = uniform(key, number) * height, uniform(key, number + 1) * width
        radius = max(0.5, uniform(key, number + 2) * strengths.speckle_radius)
        _draw_disc(image, row, column, radius, _any_depth(key, number + 3, strengths))


@inline
def _draw_sticks(image: np.ndarray, key: np.uint64, strengths: DepthStrengths) -> None:
    """Draws bars of random depth, which stand for cables and other objects not simulated."""
    height, width = image.shape
    for shape in range(_poisson(strengths.sticks, strengths.max_sticks, key)):
        number = MAX_SHAPES + NUMBERS_PER_SHAPE * shape
        row, column = uniform(key, number) * height, uniform(key, number + 1) * width
        angle = 2 * np.pi * uniform(key, number + 2)
        length = uniform(key, number + 3) * strengths.stick_length
        radius = max(0.5, uniform(key, number + 4) * strengths.stick_radius)
        depth = _any_depth(key, number + 5, strengths)
        for place in range(int(2 * length) + 1):
            along = 0.5 * place
            _draw_disc(
                image, row + along * np.sin(angle), column + along * np.cos(angle), radius, depth
            )


@inline
def _draw_disc(
    image: np.ndarray, row: float, column: float, radius: float, depth: np.int16
) -> None:
    """Sets the pixels whose centre is within the radius; pixel i reaches from i to i + 1."""
    height, width = image.shape
    for y in range(max(0, int(row - radius)), min(height, int(row + radius) + 1)):
        for x in range(max(0, int(column - radius)), min(width, int(column + radius) + 1)):
            if (y + 0.5 - row) ** 2 + (x + 0.5 - column) ** 2 <= radius * radius:
                image[y, x] = depth


@inline
def _any_depth(key: np.uint64, number: int, strengths: DepthStrengths) -> np.int16:
    near_mm, far_mm = np.ceil(strengths.near_mm), np.floor(strengths.far_mm)
    return np.int16(near_mm + uniform(key, number) * (far_mm - near_mm))


@inline
def _poisson(mean: float, most: int, key: np.uint64) -> int:
    """A Poisson-distributed number, at most `most` (Knuth's product of uniform numbers)."""
    limit, product = np.exp(-mean), 1.0
    for count in range(most):
        product *= uniform(key, count)
        if product <= limit:
            return count
    return most
