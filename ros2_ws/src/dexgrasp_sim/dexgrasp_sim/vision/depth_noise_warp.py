# type: ignore -- kernels are written in the language of Warp, which has other rules
# ruff: noqa: SIM102 -- it evaluates both sides of an `and`
"""The errors of `depth_strengths` as Warp kernels, for GPUs.

They compute the same as `depth_noise_kernels` from the same random numbers, but mostly in float32:
a few of 10^4 pixels differ by rounding. Tensor code needs some 170 passes over the images and
over the pixels around all shapes; here every pixel is read and written once.
"""

import math
from functools import lru_cache

import torch
import warp as wp
from torch import Tensor

from dexgrasp_sim.random_streams import NORMAL_MEAN, NORMAL_SIGMA, NUMBER_BITS
from dexgrasp_sim.random_streams_warp import word
from dexgrasp_sim.vision.depth_strengths import (
    DROPOUTS,
    MAX_SHAPES,
    NUMBERS_PER_SHAPE,
    SPECKLES,
    STICKS,
    DepthStrengths,
)
from dexgrasp_sim.warp_streams import current_stream

wp.set_module_options({"enable_backward": False})

_UNUSED_BITS = wp.constant(wp.uint64(64 - NUMBER_BITS))
_LOW, _16 = wp.constant(wp.uint64(0xFFFF)), wp.constant(wp.uint64(16))
_UNIT = wp.constant(wp.float64(2.0**-NUMBER_BITS))
_MEAN, _PER_SIGMA = wp.constant(NORMAL_MEAN), wp.constant(1.0 / NORMAL_SIGMA)
_OF_DROPOUTS, _OF_STICKS, _OF_SPECKLES = (
    wp.constant(wp.uint64(key)) for key in (DROPOUTS, STICKS, SPECKLES)
)
_FIRST, _EACH = wp.constant(MAX_SHAPES), wp.constant(NUMBERS_PER_SHAPE)
_TURN = wp.constant(2.0 * math.pi)
_DROPOUT, _SHADOW = wp.constant(wp.uint8(1)), wp.constant(wp.uint8(2))


@wp.struct
class Strengths:
    """`DepthStrengths`, and the logarithm of the share that is no dropout."""

    near_mm: float
    far_mm: float
    disparity_mm: float
    disparity_per_pixel_mm: float
    changes_disparity: bool
    disparity_step: float
    disparity_sigma: float
    depth_sigma_per_mm: float
    shadow_share: float
    edge_share: float
    jump_mm: float
    log_kept_share: wp.float64
    least_depth_mm: wp.float64
    depths_mm: wp.float64
    no_stick: wp.float64
    max_sticks: int
    stick_length: float
    stick_radius: float
    no_speckle: wp.float64
    max_speckles: int
    speckle_radius: float


def corrupt(
    images: Tensor, keys: Tensor, disparity_bias: Tensor, strengths: DepthStrengths
) -> None:
    """Adds noise to n images in place, without waiting for the device.

    Args:
        images: [n, H, W] int16 millimetres, 0 = invalid.
        keys: [n] int64, the images' random streams.
        disparity_bias: [n] float32, sensor pixels added to every disparity of an image.
        strengths: Strengths of the errors.
    """
    wp.init()  # does nothing after the first time
    count, height, width = images.shape
    device = wp.device_from_torch(images.device)
    source, given = images.clone(), _struct(strengths)
    marks = torch.zeros(images.shape, dtype=torch.uint8, device=images.device)
    array = {"images": images, "source": source, "marks": marks, "bias": disparity_bias}
    array = {name: wp.from_torch(each, return_ctype=True) for name, each in array.items()}
    of_image = wp.from_torch(keys, dtype=wp.uint64, return_ctype=True)
    on = {"device": device, "stream": current_stream(device)}
    if strengths.dropout_share > 0:
        wp.launch(mark_dropouts, count, [of_image, given, array["marks"]], **on)
    if strengths.shadow_share > 0:
        right = torch.zeros(count, height, width + 1, device=images.device)
        seen = [array["source"], given, wp.from_torch(right, return_ctype=True)]
        wp.launch(draw_right, images.shape, seen, **on)
        wp.launch(mark_shadows, images.shape, [*seen, array["marks"]], **on)
    inputs = [array["source"], of_image, array["bias"], given, array["marks"]]
    wp.launch(perturb, (count, height, width), [*inputs, array["images"]], **on)
    if strengths.max_sticks or strengths.max_speckles:
        wp.launch(draw_shapes, count, [of_image, given, array["images"]], **on)


@lru_cache
def _struct(strengths: DepthStrengths) -> Strengths:
    """The strengths as kernels take them."""
    given, share = Strengths(), strengths.dropout_share
    for name in set(DepthStrengths._fields) & set(Strengths.vars):
        setattr(given, name, getattr(strengths, name))
    given.disparity_per_pixel_mm = strengths.disparity_mm / strengths.sensor_pixels
    given.log_kept_share = -math.inf if share == 1.0 else math.log1p(-share)
    given.least_depth_mm = math.ceil(strengths.near_mm)
    given.depths_mm = math.floor(strengths.far_mm) - math.ceil(strengths.near_mm)
    given.no_stick, given.no_speckle = math.exp(-strengths.sticks), math.exp(-strengths.speckles)
    return given


@wp.func
def uniform64(key: wp.uint64, counter: int) -> wp.float64:
    """Number in [0, 1) from word `counter`; see `random_streams.unit_numbers`."""
    return wp.float64(word(key, counter) >> _UNUSED_BITS) * _UNIT


@wp.func
def uniform(key: wp.uint64, counter: int) -> float:
    """The same as float32, which holds it exactly."""
    return float(uniform64(key, counter))


@wp.func
def normal(bits: wp.uint64) -> float:
    """Approximately normal number from a word; see `random_streams.normal_numbers`."""
    total = (bits & _LOW) + ((bits >> _16) & _LOW)
    bits = bits >> (_16 + _16)
    total += (bits & _LOW) + (bits >> _16)
    return float(int(total) - _MEAN) * _PER_SIGMA


@wp.kernel
def mark_dropouts(
    keys: wp.array[wp.uint64], given: Strengths, marks: wp.array3d[wp.uint8]
) -> None:
    """Marks pixels of an image by drawing geometrically distributed gaps."""
    image = wp.tid()
    key = keys[image] ^ _OF_DROPOUTS
    width = marks.shape[2]
    pixels = marks.shape[1] * width
    pixel = wp.int32(-1)
    number = wp.int32(0)
    while pixel < pixels:
        gap = wp.log(wp.float64(1.0) - uniform64(key, number)) / given.log_kept_share
        if gap >= wp.float64(pixels - pixel - 1):
            pixel = pixels
        else:
            pixel += 1 + int(gap)
            row = pixel // width
            marks[image, row, pixel - row * width] = _DROPOUT
            number += 1


@wp.func
def disparity_of(depth: wp.int16, scale: float) -> float:
    """Pixels of the image; 0 where nothing is seen."""
    if depth > wp.int16(0):
        return scale / float(depth)
    return 0.0


@wp.kernel
def draw_right(source: wp.array3d[wp.int16], given: Strengths, right: wp.array3d[float]) -> None:
    """Draws a pixel's disparity as the right lens sees it, see `depth_noise_tensors`."""
    image, row, column = wp.tid()
    disparity = disparity_of(source[image, row, column], given.disparity_per_pixel_mm)
    seen_at = float(column) - disparity
    if seen_at >= 0.0:
        place = int(seen_at)
        wp.atomic_max(right, image, row, place, disparity)
        wp.atomic_max(right, image, row, place + 1, disparity)


@wp.kernel
def mark_shadows(
    source: wp.array3d[wp.int16],
    given: Strengths,
    right: wp.array3d[float],
    marks: wp.array3d[wp.uint8],
) -> None:
    """Marks a pixel that something nearer hides from the right lens."""
    image, row, column = wp.tid()
    disparity = disparity_of(source[image, row, column], given.disparity_per_pixel_mm)
    nearest = float(column) - disparity + 0.5
    # a disparity larger by less than a pixel belongs to the same, slanted surface
    if nearest >= 0.0:
        if right[image, row, int(nearest)] > disparity + 1.0:
            marks[image, row, column] = marks[image, row, column] | _SHADOW


@wp.func
def surface(
    source: wp.array3d[wp.int16], image: int, row: int, column: int, far_mm: float
) -> float:
    """Depth of a pixel; where nothing is seen, that of the far limit."""
    depth = source[image, row, column]
    if depth > wp.int16(0):
        return float(depth)
    return far_mm


@wp.func
def jumps(
    source: wp.array3d[wp.int16],
    given: Strengths,
    image: int,
    row: int,
    column: int,
    down: int,
    right: int,
) -> bool:
    """Whether the surface jumps between a pixel and the next, which may be outside the image.

    The inverse depth of a plane is linear in the pixel. So a step is a slant, not a jump, if the
    step before or after it is similar.
    """
    far_mm, height, width = given.far_mm, source.shape[1], source.shape[2]
    if row < 0 or column < 0 or row + down >= height or column + right >= width:
        return False
    here = surface(source, image, row, column, far_mm)
    there = surface(source, image, row + down, column + right, far_mm)
    if wp.abs(there - here) <= given.jump_mm:
        return False
    step = 1.0 / there - 1.0 / here
    before = wp.float32(0.0)
    behind = wp.float32(0.0)
    if row - down >= 0 and column - right >= 0:
        before = 1.0 / here - 1.0 / surface(source, image, row - down, column - right, far_mm)
    if row + 2 * down < height and column + 2 * right < width:
        further = surface(source, image, row + 2 * down, column + 2 * right, far_mm)
        behind = 1.0 / further - 1.0 / there
    return 2.0 * wp.max(before * step, behind * step) < step * step


@wp.func
def noisy(depth: float, bias: float, key: wp.uint64, number: int, given: Strengths) -> float:
    """The depth in whole millimetres as it is measured, not limited."""
    if given.changes_disparity:
        disparity = given.disparity_mm / depth + bias
        if given.disparity_sigma > 0.0:
            disparity += given.disparity_sigma * normal(word(key, number))
        if given.disparity_step > 0.0:
            step = given.disparity_step
            disparity = step * wp.floor(disparity / step + 0.5)
        depth = 0.0
        if disparity > 0.0:
            depth = given.disparity_mm / disparity
    if given.depth_sigma_per_mm > 0.0:
        deviation = given.depth_sigma_per_mm * depth * depth
        depth += deviation * normal(word(key, number + 1))
    return wp.floor(depth + 0.5)


@wp.kernel
def perturb(
    source: wp.array3d[wp.int16],
    keys: wp.array[wp.uint64],
    bias: wp.array[float],
    given: Strengths,
    marks: wp.array3d[wp.uint8],
    images: wp.array3d[wp.int16],
) -> None:
    """Adds noise to a pixel, or loses it."""
    image, row, column = wp.tid()
    depth = source[image, row, column]
    images[image, row, column] = wp.int16(0)
    mark = marks[image, row, column]
    if depth <= wp.int16(0) or (mark & _DROPOUT) != wp.uint8(0):
        return
    key = keys[image]
    number = 3 * (row * source.shape[2] + column)
    measured = noisy(float(depth), bias[image], key, number, given)
    if not (measured >= given.near_mm and measured <= given.far_mm):
        return
    kept = wp.float32(1.0)
    if given.edge_share > 0.0:
        if (
            jumps(source, given, image, row, column, 0, 1)
            or jumps(source, given, image, row, column - 1, 0, 1)
            or jumps(source, given, image, row, column, 1, 0)
            or jumps(source, given, image, row - 1, column, 1, 0)
        ):
            kept = 1.0 - given.edge_share
    if (mark & _SHADOW) != wp.uint8(0):
        kept = (1.0 - given.shadow_share) * kept
    if kept < 1.0:
        if uniform(key, number + 2) < 1.0 - kept:
            return
    images[image, row, column] = wp.int16(measured)


@wp.func
def drawn_shapes(no_shape: wp.float64, most: int, key: wp.uint64) -> int:
    """A Poisson-distributed number, at most `most` (Knuth's product of uniform numbers)."""
    product = wp.float64(1.0)
    count = wp.int32(0)
    while count < most:
        product *= uniform64(key, count)
        if product <= no_shape:
            return count
        count += 1
    return count


@wp.func
def any_depth(key: wp.uint64, number: int, given: Strengths) -> wp.int16:
    """A depth within the camera's range."""
    return wp.int16(given.least_depth_mm + uniform64(key, number) * given.depths_mm)


@wp.func
def draw_disc(
    images: wp.array3d[wp.int16],
    image: int,
    row: float,
    column: float,
    radius: float,
    depth: wp.int16,
) -> None:
    """Sets the pixels whose centre is within the radius; pixel i reaches from i to i + 1."""
    top = wp.max(0, int(row - radius))
    left = wp.max(0, int(column - radius))
    for y in range(top, wp.min(images.shape[1], int(row + radius) + 1)):
        for x in range(left, wp.min(images.shape[2], int(column + radius) + 1)):
            down = float(y) + 0.5 - row
            right = float(x) + 0.5 - column
            if down * down + right * right <= radius * radius:
                images[image, y, x] = depth


@wp.kernel
def draw_shapes(keys: wp.array[wp.uint64], given: Strengths, images: wp.array3d[wp.int16]) -> None:
    """Draws the bars and then the discs of an image, later ones on top."""
    image = wp.tid()
    height, width = float(images.shape[1]), float(images.shape[2])
    key = keys[image] ^ _OF_STICKS
    for stick in range(drawn_shapes(given.no_stick, given.max_sticks, key)):
        number = _FIRST + _EACH * stick
        row = uniform(key, number) * height
        column = uniform(key, number + 1) * width
        angle = _TURN * uniform(key, number + 2)
        length = uniform(key, number + 3) * given.stick_length
        radius = wp.max(0.5, uniform(key, number + 4) * given.stick_radius)
        depth = any_depth(key, number + 5, given)
        step_down, step_right = 0.5 * wp.sin(angle), 0.5 * wp.cos(angle)
        for place in range(int(2.0 * length) + 1):  # discs half a pixel apart
            along = float(place)
            down, right = row + along * step_down, column + along * step_right
            draw_disc(images, image, down, right, radius, depth)
    key = keys[image] ^ _OF_SPECKLES
    for speckle in range(drawn_shapes(given.no_speckle, given.max_speckles, key)):
        number = _FIRST + _EACH * speckle
        row = uniform(key, number) * height
        column = uniform(key, number + 1) * width
        radius = wp.max(0.5, uniform(key, number + 2) * given.speckle_radius)
        draw_disc(images, image, row, column, radius, any_depth(key, number + 3, given))
