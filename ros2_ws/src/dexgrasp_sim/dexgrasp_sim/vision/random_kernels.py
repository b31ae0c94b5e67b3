"""The streams of `random_streams` for kernels, which compute numbers where they use them."""

from pathlib import Path

import numpy as np

from dexgrasp_sim.kernels import inline, source_hash
from dexgrasp_sim.random_streams import (
    FACTORS,
    GOLDEN,
    NORMAL_MEAN,
    NORMAL_SIGMA,
    NUMBER_BITS,
    SHIFTS,
)

_FOLDER = Path(__file__).parent
_FILES = (
    "../random_streams.py",
    "depth_noise_kernels.py",
    "depth_strengths.py",
    "random_kernels.py",
    "rgb_kernels.py",
)
SOURCES = source_hash([_FOLDER / name for name in _FILES])
"""Default of the image kernels' last parameter; see `kernels.source_hash`."""

_GOLDEN, _ONE = np.uint64(GOLDEN), np.uint64(1)
_FACTOR_1, _FACTOR_2 = np.uint64(FACTORS[0]), np.uint64(FACTORS[1])
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(SHIFTS[0]), np.uint64(SHIFTS[1]), np.uint64(SHIFTS[2])
_UNUSED_BITS = np.uint64(64 - NUMBER_BITS)
_UNIT = 2.0**-NUMBER_BITS
_LOW, _16, _32, _48 = np.uint64(0xFFFF), np.uint64(16), np.uint64(32), np.uint64(48)


@inline
def word(key: np.uint64, counter: int) -> np.uint64:
    """Number `counter` of a stream: 64 random bits; see `random_streams.words`."""
    bits = key + (np.uint64(counter) + _ONE) * _GOLDEN
    bits = (bits ^ (bits >> _SHIFT_1)) * _FACTOR_1
    bits = (bits ^ (bits >> _SHIFT_2)) * _FACTOR_2
    return bits ^ (bits >> _SHIFT_3)


@inline
def uniform(key: np.uint64, counter: int) -> float:
    """Number in [0, 1) from word `counter`; see `random_streams.unit_numbers`."""
    return np.int64(word(key, counter) >> _UNUSED_BITS) * _UNIT


@inline
def normal(bits: np.uint64) -> float:
    """Approximately normal number from a word; see `random_streams.normal_numbers`."""
    total = (bits & _LOW) + (bits >> _16 & _LOW) + (bits >> _32 & _LOW) + (bits >> _48)
    return (np.int64(total) - NORMAL_MEAN) / NORMAL_SIGMA
