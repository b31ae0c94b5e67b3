"""Compiled functions of 3-vectors held as tuples."""

from pathlib import Path

import numpy as np

from dexgrasp_sim import kernels
from dexgrasp_sim.kernels import inline, source_hash

Vector = tuple[float, float, float]

_FOLDER = Path(__file__).parent
_FILES = ("arrays.py", "draw_kernels.py", "shade_kernels.py", "vector_kernels.py")

SOURCES = source_hash([Path(kernels.__file__), *(_FOLDER / name for name in _FILES)])
"""Default of every render kernel's last parameter; see `kernels.source_hash`."""


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
