# type: ignore -- kernels are written in the language of Warp, which has other rules
"""The numbers of `random_streams` on GPUs: one kernel does what takes fifty with tensors."""

import torch
import warp as wp
from torch import Tensor

from dexgrasp_sim.random_streams import FACTORS, GOLDEN, NUMBER_BITS, SHIFTS
from dexgrasp_sim.warp_streams import current_stream

wp.set_module_options({"enable_backward": False})

_GOLDEN, _ONE = wp.constant(wp.uint64(GOLDEN)), wp.constant(wp.uint64(1))
_FACTOR_1, _FACTOR_2 = (wp.constant(wp.uint64(factor)) for factor in FACTORS)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = (wp.constant(wp.uint64(shift)) for shift in SHIFTS)
_HALF, _UNUSED_BITS = wp.constant(wp.uint64(32)), wp.constant(wp.uint64(64 - NUMBER_BITS))
_UNIT = wp.constant(wp.float32(2.0**-NUMBER_BITS))


def derived_uniforms(keys: Tensor, episode: Tensor, step: Tensor | int, count: int) -> Tensor:
    """Numbers [K, count] float32 of the streams of steps, as `RandomStreams.uniform` has them.

    Args:
        keys: [K] int64, of the environments.
        episode: [K] int64.
        step: [K] int64, or one for all.
        count: May be 0.
    """
    numbers = torch.empty(len(keys), count, device=keys.device)
    if numbers.numel():
        inputs = [*_parts(keys, episode, step), wp.from_torch(numbers, return_ctype=True)]
        _launch(draw_uniforms, (len(keys), (count + 1) // 2), inputs, keys.device)
    return numbers


def derived_keys(keys: Tensor, episode: Tensor, step: Tensor | int) -> Tensor:
    """Keys [K] int64 of steps; arguments as those of `derived_uniforms`."""
    derived = torch.empty_like(keys)
    if len(keys):
        result = wp.from_torch(derived, dtype=wp.uint64, return_ctype=True)
        _launch(derive_keys, len(keys), [*_parts(keys, episode, step), result], keys.device)
    return derived


def _parts(keys: Tensor, episode: Tensor, step: Tensor | int) -> list[object]:
    """Keys, episodes, steps, or none, and the step that is added to them, for kernels."""
    steps, added = (step, 0) if isinstance(step, Tensor) else (episode[:0], step)
    arrays = (each.contiguous() for each in (keys, episode, steps))
    return [*(wp.from_torch(each, dtype=wp.uint64, return_ctype=True) for each in arrays),
            wp.uint64(added)]  # fmt: skip


def _launch(kernel: wp.Kernel, dim: object, inputs: list[object], where: torch.device) -> None:
    wp.init()  # does nothing after the first time
    device = wp.device_from_torch(where)
    wp.launch(kernel, dim, inputs, device=device, stream=current_stream(device))


@wp.func
def mixed(word: wp.uint64) -> wp.uint64:
    """SplitMix64's output function."""
    bits = (word ^ (word >> _SHIFT_1)) * _FACTOR_1
    bits = (bits ^ (bits >> _SHIFT_2)) * _FACTOR_2
    return bits ^ (bits >> _SHIFT_3)


@wp.func
def word(key: wp.uint64, counter: int) -> wp.uint64:
    """Number `counter` of a stream: 64 random bits; see `random_streams.words`."""
    return mixed(key + (wp.uint64(counter) + _ONE) * _GOLDEN)


@wp.func
def joined(key: wp.uint64, part: wp.uint64) -> wp.uint64:
    """A key derived from another and a whole number."""
    return mixed(mixed(part + _GOLDEN) ^ key)


@wp.func
def key_of(
    row: int,
    keys: wp.array[wp.uint64],
    episodes: wp.array[wp.uint64],
    steps: wp.array[wp.uint64],
    step: wp.uint64,
) -> wp.uint64:
    """The key of a row's step."""
    number = step
    if steps.shape[0] > 0:
        number = steps[row]
    return joined(joined(keys[row], episodes[row]), number)


@wp.kernel
def derive_keys(
    keys: wp.array[wp.uint64],
    episodes: wp.array[wp.uint64],
    steps: wp.array[wp.uint64],
    step: wp.uint64,
    derived: wp.array[wp.uint64],
) -> None:
    """Writes the key of each row."""
    row = wp.tid()
    derived[row] = key_of(row, keys, episodes, steps, step)


@wp.kernel
def draw_uniforms(
    keys: wp.array[wp.uint64],
    episodes: wp.array[wp.uint64],
    steps: wp.array[wp.uint64],
    step: wp.uint64,
    numbers: wp.array2d[float],
) -> None:
    """Writes two numbers of a row, of the lower and the upper half of a word."""
    row, pair = wp.tid()
    key = key_of(row, keys, episodes, steps, step)
    bits = word(key, pair)
    column = 2 * pair
    numbers[row, column] = wp.float32((bits << _HALF) >> _UNUSED_BITS) * _UNIT
    if column + 1 < numbers.shape[1]:
        numbers[row, column + 1] = wp.float32(bits >> _UNUSED_BITS) * _UNIT
