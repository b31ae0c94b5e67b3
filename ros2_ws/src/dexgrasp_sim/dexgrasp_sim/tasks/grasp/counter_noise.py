"""Random numbers that are a function of a key and a step: nothing to save, nothing to order."""

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_COLUMN_BITS = np.uint64(16)
_MANTISSA_BITS = 24


def counter_uniform(key: Tensor, step: Tensor, columns: range) -> Tensor:
    """Independent numbers in [-1, 1): splitmix64 (Steele, Lea and Flood 2014) of key and counter.

    Args:
        key: [N] int64, one random number per environment and episode.
        step: [N] int64, not negative.
        columns: Which of the numbers 0 to 65535 of that step; its length is C.

    Returns:
        [N, C] float32. The same arguments give the same numbers, in any batch.
    """
    counter = step.numpy().astype(np.uint64)[:, None] << _COLUMN_BITS
    counter = counter + np.asarray(columns, dtype=np.uint64) + np.uint64(1)
    bits = key.numpy().astype(np.uint64)[:, None] + counter * _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(64 - _MANTISSA_BITS)
    return torch.from_numpy(bits.astype(np.float32)) * 2.0 ** (1 - _MANTISSA_BITS) - 1.0


def draw_key(generator: np.random.Generator) -> int:
    """A key for `counter_uniform`."""
    return int(generator.integers(2**62))
