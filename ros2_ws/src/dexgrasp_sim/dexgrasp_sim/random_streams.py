"""The random numbers of the simulation: one counter-based generator for every purpose.

A number is a function of the seed, the purpose, the environment's global index, the episode, the
step and its column only. So there is no state to save, and neither the order of draws nor the
split of the environments over processes nor the device changes the numbers.

Word i of a stream is the i-th output of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators") started at the stream's key. Words are
unsigned 64-bit numbers stored as int64: sums and products wrap around, and a logical shift is an
arithmetic shift with the copies of the sign bit masked off.
"""

import math
from collections.abc import Callable
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor, nn

from dexgrasp_sim.device_graphs import Captured
from dexgrasp_sim.devices import has_warp_kernels

GOLDEN = 0x9E3779B97F4A7C15
"""SplitMix64's distance between the states of neighbouring words."""
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
"""SplitMix64's output function, as in Vigna's reference implementation (2015): shift, product,
shift, product, shift."""
NUMBER_BITS = 24
"""Random bits of a number, as many as float32 holds exactly."""

NORMAL_MEAN = 2 * 65535
NORMAL_SIGMA = 65536 / math.sqrt(3)
"""Mean and standard deviation of the sum of four uniform 16-bit numbers."""

_WORD_BITS = 64
_NUMBER_MASK = (1 << NUMBER_BITS) - 1
_EVERY_OTHER_16 = 0x0000FFFF0000FFFF
_WORDS_AT_ONCE = 32768
"""Words computed at a time on the CPU: 256 KiB, which fit into the second-level cache."""


class Purpose(IntEnum):
    """What random numbers are used for; each purpose has its own streams.

    Purposes that end in EPISODE are drawn once per episode, those that end in STEP in every step.
    Never change the value of a purpose: that would change all its numbers.
    """

    DEPTH_STEP = 1
    DEPTH_EPISODE = 2
    RGB_STEP = 3
    RGB_EPISODE = 4
    CAMERA = 5
    LOOK = 6
    SPAWN = 7
    STAGGER = 8
    START = 9
    PHYSICS = 10
    NOISE_EPISODE = 11
    NOISE_STEP = 12
    LATENCY = 13
    ACTION_DELAY = 14
    PUSH_EPISODE = 15
    PUSH_STEP = 16


class RandomStreams(nn.Module):
    """The streams of N environments.

    The methods take `ids`, [K] int64 from 0 to N - 1, to select environments; None selects all N.
    No method makes the host wait for the device.

    Attributes:
        env: [N] int64, the environments' global indices.
    """

    env: Tensor
    _env_keys: Tensor

    def __init__(self, seed: int, env: Tensor) -> None:
        """Args:
        seed: Of the run; its lowest 64 bits are used.
        env: [N] int64, global indices of the environments.
        """
        super().__init__()
        self._draws: dict[tuple[object, ...], Captured] = {}
        purposes = torch.arange(max(Purpose) + 1, device=env.device)  # [P], 0 is unused
        keys = _joined(torch.full_like(purposes, _signed(seed)), purposes)  # [P]
        env_keys = _joined(keys.unsqueeze(1), env)  # [P, N]
        # not saved: a run may continue with another split of the environments
        self.register_buffer("env", env, persistent=False)
        self.register_buffer("_env_keys", env_keys, persistent=False)

    def keys(
        self, purpose: Purpose, episode: Tensor, step: Tensor | int = 0, ids: Tensor | None = None
    ) -> Tensor:
        """Keys of streams, for `words` and for kernels that compute the words themselves.

        Args:
            purpose: What the numbers are for.
            episode: [K] int64, number of each environment's episode.
            step: [K] int64, step within the episode; 0 for draws of a whole episode.
            ids: [K] int64 environments; None: all.

        Returns:
            [K] int64.
        """
        keys = self._env_keys[purpose]  # [N]
        if ids is not None:
            keys = keys[ids]  # [K]
        return self._draw(_derived, keys, episode, step)

    def uniform(
        self,
        purpose: Purpose,
        episode: Tensor,
        step: Tensor | int = 0,
        count: int = 1,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Independent numbers [K, count] float32 in [0, 1); arguments as those of `keys`."""
        keys = self._env_keys[purpose]  # [N]
        if ids is not None:
            keys = keys[ids]  # [K]
        return self._draw(_derived_uniforms, keys, episode, step, count=count)

    def _draw(
        self,
        function: Callable[..., tuple[Tensor]],
        keys: Tensor,
        episode: Tensor,
        step: Tensor | int,
        **constants: int,
    ) -> Tensor:
        """What a function of keys, episodes and steps gives, on a GPU by a replay."""
        inputs = (keys, episode)
        if isinstance(step, int):
            constants["step"] = step
        else:
            inputs = (keys, episode, step)
        key = (function, *sorted(constants.items()))
        if key not in self._draws:
            self._draws[key] = Captured(partial(function, **constants), any_rows=True)
        return self._draws[key](*inputs)[0]

    def symmetric(
        self,
        purpose: Purpose,
        episode: Tensor,
        step: Tensor | int = 0,
        count: int = 1,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Independent numbers [K, count] float32 in [-1, 1): `uniform` times 2 minus 1."""
        return self.uniform(purpose, episode, step, count, ids).mul_(2).sub_(1)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """The first `count` numbers of each stream.

    Numbers 2i and 2i + 1 are the 24 leading bits of the lower and the upper half of word i,
    divided by 2^24. Their product with an integer n up to 2^24 is below n also after rounding.

    Args:
        keys: [K] int64.
        count: May be 0.

    Returns:
        [K, count] float32 in [0, 1).
    """
    numbers = torch.empty(len(keys), count, device=keys.device)  # [K, count]
    if numbers.numel() == 0:
        return numbers
    pairs = (count + 1) // 2
    counters = torch.arange(pairs, device=keys.device)
    rows = len(keys)
    if keys.device.type == "cpu":
        rows = min(rows, max(_WORDS_AT_ONCE // pairs, 1))
    for part, key in zip(numbers.split(rows), keys.split(rows), strict=True):
        halves = words(key, counters).view(torch.int32)  # [rows, 2 pairs], the lower half first
        halves >>= 32 - NUMBER_BITS
        halves &= _NUMBER_MASK
        part.copy_(halves[:, :count])
        part *= 2.0**-NUMBER_BITS
    return numbers


def words(keys: Tensor, counters: Tensor) -> Tensor:
    """Words [K, C] int64, 64 random bits each, of keys [K] int64 at counters [C] int64."""
    return _mix_((counters + 1) * _GOLDEN + keys.unsqueeze(1))


def unit_numbers(bits: Tensor) -> Tensor:
    """The 24 leading bits of words [...] as float32 in [0, 1)."""
    leading = (bits >> (_WORD_BITS - NUMBER_BITS)) & _NUMBER_MASK
    return leading.to(torch.float32) * 2.0**-NUMBER_BITS


def normal_numbers(bits: Tensor) -> Tensor:
    """Approximately normal numbers [...] float32 of mean 0 and deviation 1 from words [...] int64.

    The sum of four uniform 16-bit numbers (Irwin-Hall): limited to 3.5 deviations, kurtosis 2.7
    instead of 3, and several times faster than the Box-Muller transform.
    """
    pairs = (bits & _EVERY_OTHER_16) + ((bits >> 16) & _EVERY_OTHER_16)
    total = pairs.unsqueeze(-1).view(torch.int32).sum(-1, dtype=torch.int32)
    return (total - NORMAL_MEAN).to(torch.float32) * (1 / NORMAL_SIGMA)


def _signed(word: int) -> int:
    """The lowest 64 bits of an integer as a signed 64-bit number."""
    word &= (1 << _WORD_BITS) - 1
    return word - (1 << _WORD_BITS) if word >> (_WORD_BITS - 1) else word


_GOLDEN = _signed(GOLDEN)
_FACTORS = (*map(_signed, FACTORS), 1)


def _derived(keys: Tensor, episode: Tensor, step: Tensor | int) -> tuple[Tensor]:
    """Keys [K] of steps, from those [K] of environments."""
    if has_warp_kernels(keys.device):
        from dexgrasp_sim import random_streams_warp  # slow to import

        return (random_streams_warp.derived_keys(keys, episode, step),)
    return (_joined(_joined(keys, episode), step),)


def _derived_uniforms(
    keys: Tensor, episode: Tensor, step: Tensor | int, count: int
) -> tuple[Tensor]:
    """The numbers of `_derived` keys, see `uniforms`."""
    if has_warp_kernels(keys.device):
        from dexgrasp_sim import random_streams_warp  # slow to import

        return (random_streams_warp.derived_uniforms(keys, episode, step, count),)
    return (uniforms(_derived(keys, episode, step)[0], count),)


def _joined(keys: Tensor, parts: Tensor | int) -> Tensor:
    """Keys [...] int64 derived from keys and integers, which are broadcast."""
    if isinstance(parts, int):
        mixed = _signed(_mixed_int(parts + GOLDEN))
        return _mix_(keys ^ mixed)
    return _mix_(_mix_(parts + _GOLDEN) ^ keys)


def _mix_(bits: Tensor) -> Tensor:
    """SplitMix64's output function of words [...] int64, in place."""
    shifted = torch.empty_like(bits)
    for shift, factor in zip(SHIFTS, _FACTORS, strict=True):
        torch.bitwise_right_shift(bits, shift, out=shifted)
        shifted &= (1 << (_WORD_BITS - shift)) - 1
        bits ^= shifted
        if factor != 1:
            bits *= factor
    return bits


def _mixed_int(word: int) -> int:
    """`_mix_` of one Python integer."""
    word &= (1 << _WORD_BITS) - 1
    for shift, factor in zip(SHIFTS, (*FACTORS, 1), strict=True):
        word = ((word ^ (word >> shift)) * factor) & ((1 << _WORD_BITS) - 1)
    return word
