"""Random numbers for images: counter-based, so that a number depends on what it is for only.

A key names a stream; number i of a stream is SplitMix64's output function of key + i times the
golden ratio (Steele, Lea, Flood 2014). Nothing is stored, so there is nothing to save or to
share between threads: the same environment, episode and step always get the same numbers.
"""

from enum import IntEnum
from pathlib import Path

import numpy as np

from dexgrasp_sim.kernels import inline, source_hash

_FILES = ("depth_noise_kernels.py", "image_random.py", "rgb_kernels.py")
SOURCES = source_hash([Path(__file__).parent / name for name in _FILES])
"""Default of the image kernels' last parameter; see `kernels.source_hash`."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ONE, _27, _30, _31 = np.uint64(1), np.uint64(27), np.uint64(30), np.uint64(31)
_LOW = np.uint64(0xFFFF)
_16, _32, _48 = np.uint64(16), np.uint64(32), np.uint64(48)
_MEAN_OF_4 = 2.0 * 65535.0
_SIGMA_OF_4 = 65536.0 / np.sqrt(3.0)
_SEED_BITS = (1 << 64) - 1


class Purpose(IntEnum):
    """What random numbers are for; each purpose has streams of its own."""

    DEPTH_STEP = 1
    DEPTH_EPISODE = 2
    RGB_STEP = 3
    RGB_EPISODE = 4
    CAMERA = 5
    LOOK = 6


def stream_keys(
    purpose: Purpose,
    seed: int,
    env: np.ndarray,
    episode: np.ndarray,
    step: np.ndarray | int = 0,
) -> np.ndarray:
    """Keys of the streams of N environments.

    Args:
        purpose: What the numbers are for.
        seed: Of the run.
        env: [N] int, global indices of the environments.
        episode: [N] int, number of each environment's episode.
        step: [N] int, step within the episode; 0 for what holds for a whole episode.

    Returns:
        [N] uint64.
    """
    keys = np.full(len(env), seed & _SEED_BITS, np.uint64)
    for part in (int(purpose), env, episode, step):
        # arrays wrap around without a warning, scalars do not
        numbers = np.broadcast_to(part, len(env)).astype(np.uint64)
        keys = _mixed(keys ^ _mixed(numbers + _GOLDEN))
    return keys


def uniforms(keys: np.ndarray, count: int) -> np.ndarray:
    """The first `count` numbers of each stream: [N, count] float64 in [0, 1) for keys [N]."""
    counters = (np.arange(count, dtype=np.uint64) + _ONE) * _GOLDEN
    return (_mixed(keys[:, None] + counters) >> np.uint64(11)) * 2.0**-53


def symmetric(keys: np.ndarray, count: int) -> np.ndarray:
    """As `uniforms`, in [-1, 1)."""
    return 2 * uniforms(keys, count) - 1


def _mixed(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> _30)) * _FIRST
    words = (words ^ (words >> _27)) * _SECOND
    return words ^ (words >> _31)


@inline
def word(key: np.uint64, counter: int) -> np.uint64:
    """Number `counter` of a stream: 64 random bits; the bits of what `uniforms` gives."""
    z = key + (np.uint64(counter) + _ONE) * _GOLDEN
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@inline
def uniform(key: np.uint64, counter: int) -> float:
    """Number `counter` of a stream in [0, 1)."""
    return np.int64(word(key, counter) >> np.uint64(11)) * 2.0**-53


@inline
def normal(bits: np.uint64) -> float:
    """A nearly normal number of mean 0 and deviation 1 out of 64 random bits.

    The sum of four 16-bit numbers (Irwin-Hall): within 3.5 deviations, kurtosis 2.7 instead of 3,
    and several times faster than logarithms and cosines.
    """
    total = (bits & _LOW) + (bits >> _16 & _LOW) + (bits >> _32 & _LOW) + (bits >> _48)
    return (np.int64(total) - _MEAN_OF_4) / _SIGMA_OF_4
