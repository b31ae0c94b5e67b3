"""How the renderer's kernels are compiled, and compiled functions of 3-vectors held as tuples."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np

Vector = tuple[float, float, float]

_FILES = ("render_arrays.py", "render_kernels.py", "shade_kernels.py", "vector_kernels.py")
_FASTMATH = {"nsz", "arcp", "contract", "reassoc"}  # not nnan, ninf: such poses are left out


def source_hash(files: Sequence[Path]) -> int:
    """A number that differs when the content of any of the files differs."""
    content = b"".join(file.read_bytes() for file in files)
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


SOURCES = source_hash([Path(__file__).parent / name for name in _FILES])
"""Default of every kernel's last parameter.

It makes the sources part of the kernel's signature, so that machine code on disk is not used
after any of these files has changed; numba itself watches a kernel's own file only.
"""

inline = numba.njit(error_model="numpy", fastmath=_FASTMATH)
"""Compiles a function that kernels call."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function at its first call; it runs without Python's global lock.

    The machine code is kept beside the source or in the user's cache folder. Where neither can
    be written, each process compiles for itself.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FASTMATH}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for the cache
        return numba.njit(**options)(function)


@inline
def times(a: Vector, b: Vector) -> Vector:
    """Product element by element."""
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@inline
def along(a: Vector, t: float, b: Vector) -> Vector:
    """The vector a + t b."""
    return a[0] + t * b[0], a[1] + t * b[1], a[2] + t * b[2]


@inline
def dot(a: Vector, b: Vector) -> float:
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inline
def cross(a: Vector, b: Vector) -> Vector:
    """Vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline
def combine(weights: Vector, a: Vector, b: Vector, c: Vector) -> Vector:
    """The sum of a, b and c, weighted."""
    return along(along(along((0.0, 0.0, 0.0), weights[0], a), weights[1], b), weights[2], c)


@inline
def vector(array: np.ndarray) -> Vector:
    """The elements of an array [3]."""
    return array[0], array[1], array[2]
