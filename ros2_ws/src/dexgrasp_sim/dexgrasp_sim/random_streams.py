"""The random numbers of the simulation: one counter-based generator for every purpose.

A number depends on what it is for and on nothing else: the seed, the purpose, the environment's
global index, the episode, the step and the number's place (its column). So there is nothing to
save, the order of draws does not matter, a split of the environments over processes changes
nothing, and every device gives the same numbers.

Word i of a stream is the i-th output of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
pseudorandom number generators") started at the stream's key. A word is an int64 tensor that holds
the bits of an unsigned one: sums and products wrap around, and a logical shift is an arithmetic
one with the sign's copies masked off.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor, nn

GOLDEN = 0x9E3779B97F4A7C15
"""SplitMix64's distance between the states of neighbouring words."""
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
"""SplitMix64's output function, as in Vigna's reference implementation (2015): a shift and a
product, again, and a last shift."""
NUMBER_BITS = 24
"""Random bits of a number: as many as float32 holds exactly on every device."""

NORMAL_MEAN = 2 * 65535
NORMAL_SIGMA = 65536 / math.sqrt(3)
"""Of the sum of four 16-bit numbers."""

_WORD_BITS = 64
_NUMBER_MASK = (1 << NUMBER_BITS) - 1
_EVERY_OTHER_16 = 0x0000FFFF0000FFFF
_WORDS_AT_ONCE = 32768
"""How many are mixed at a time on the CPU: 256 KiB, which stay in the second-level cache."""


class Purpose(IntEnum):
    """What random numbers are for; each purpose has streams of its own.

    Purposes that end in EPISODE are drawn once per episode, those that end in STEP in every step.
    A purpose that has been given out keeps its value: another one would change all its numbers.
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

    `ids` of the methods are the K environments that are asked for, [K] int64 from 0 to N - 1;
    without them K is N. Nothing reads from the device.

    Attributes:
        env: [N] int64, the environments' global indices.
    """

    env: Tensor
    _env_keys: Tensor

    def __init__(self, seed: int, env: Tensor) -> None:
        """Args:
        seed: Of the run; of negative or larger numbers the lowest 64 bits count.
        env: [N] int64, global indices of the environments.
        """
        super().__init__()
        purposes = torch.arange(max(Purpose) + 1, device=env.device)  # [P], 0 is unused
        keys = _joined(torch.full_like(purposes, _signed(seed)), purposes)  # [P]
        env_keys = _joined(keys.unsqueeze(1), env)  # [P, N]
        # settings, not state: a saved run may go on with another split of the environments
        self.register_buffer("env", env, persistent=False)
        self.register_buffer("_env_keys", env_keys, persistent=False)

    def keys(
        self, purpose: Purpose, episode: Tensor, step: Tensor | int = 0, ids: Tensor | None = None
    ) -> Tensor:
        """Keys of streams, for `words` and for kernels that make the words themselves.

        Args:
            purpose: What the numbers are for.
            episode: [K] int64, number of each environment's episode.
            step: [K] int64, step within it; 0 for what holds for a whole episode.
            ids: See the class.

        Returns:
            [K] int64.
        """
        keys = self._env_keys[purpose]  # [N]
        if ids is not None:
            keys = keys[ids]  # [K]
        return _joined(_joined(keys, episode), step)

    def uniform(
        self,
        purpose: Purpose,
        episode: Tensor,
        step: Tensor | int = 0,
        count: int = 1,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Independent numbers [K, count] float32 in [0, 1); arguments as those of `keys`."""
        return uniforms(self.keys(purpose, episode, step, ids), count)

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
    divided by 2^24. The product with a whole number n up to 2^24 stays below n when rounded.

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
    """64 random bits of K streams [K] at C places [C], both int64: [K, C] int64."""
    return _mix_((counters + 1) * _GOLDEN + keys.unsqueeze(1))


def unit_numbers(bits: Tensor) -> Tensor:
    """The 24 leading bits of words [...] as float32 in [0, 1)."""
    leading = (bits >> (_WORD_BITS - NUMBER_BITS)) & _NUMBER_MASK
    return leading.to(torch.float32) * 2.0**-NUMBER_BITS


def normal_numbers(bits: Tensor) -> Tensor:
    """Nearly normal float32 numbers of mean 0 and deviation 1 out of words [...] int64.

    The sum of four 16-bit numbers (Irwin-Hall): within 3.5 deviations, kurtosis 2.7 instead of 3,
    and several times faster than logarithms and cosines.
    """
    pairs = (bits & _EVERY_OTHER_16) + ((bits >> 16) & _EVERY_OTHER_16)
    total = pairs.unsqueeze(-1).view(torch.int32).sum(-1, dtype=torch.int32)
    return (total - NORMAL_MEAN).to(torch.float32) * (1 / NORMAL_SIGMA)


def _signed(word: int) -> int:
    """The int64 with the lowest 64 bits of a number."""
    word &= (1 << _WORD_BITS) - 1
    return word - (1 << _WORD_BITS) if word >> (_WORD_BITS - 1) else word


_GOLDEN = _signed(GOLDEN)
_FACTORS = (*map(_signed, FACTORS), 1)


def _joined(keys: Tensor, parts: Tensor | int) -> Tensor:
    """Keys int64 [...] that depend on those before and on whole numbers [...], broadcast."""
    if isinstance(parts, int):
        mixed = _signed(_mixed_int(parts + GOLDEN))
        return _mix_(keys ^ mixed)
    return _mix_(_mix_(parts + _GOLDEN) ^ keys)


def _mix_(bits: Tensor) -> Tensor:
    """SplitMix64's output function, in place."""
    shifted = torch.empty_like(bits)
    for shift, factor in zip(SHIFTS, _FACTORS, strict=True):
        torch.bitwise_right_shift(bits, shift, out=shifted)
        shifted &= (1 << (_WORD_BITS - shift)) - 1
        bits ^= shifted
        if factor != 1:
            bits *= factor
    return bits


def _mixed_int(word: int) -> int:
    """`_mix_` of one Python number."""
    word &= (1 << _WORD_BITS) - 1
    for shift, factor in zip(SHIFTS, (*FACTORS, 1), strict=True):
        word = ((word ^ (word >> shift)) * factor) & ((1 << _WORD_BITS) - 1)
    return word
