"""Which bodies can be simulated and grasped; all limits of sizes, with their reasons."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dexgrasp_sim.objects.pieces import Array, Piece

THINNEST_M = 0.001
"""Contacts are soft: an object at rest sinks 0.11 mm into the table (MuJoCo, physics steps of
1/120 s and 1/60 s, any mass from 1 mg to 0.1 kg), so that thinner bodies have no solid shape."""
LONGEST_M = (0.02, 0.30)
"""Longest extent of an object: what a hand can hold."""
NEAR_M = 0.02
"""Parts of an object touch or are this close, less than a fingertip: a rigid body with wider gaps
is a mistake in the numbers. Boxes around the parts are compared."""


def check_length(length_m: float) -> float:
    """A full length of a primitive; ValueError if the primitive would be too thin."""
    if length_m < THINNEST_M:
        raise ValueError(
            f"lengths are at least {THINNEST_M:g} m, because contacts give way by about a tenth "
            "of that; make it thicker, and check that the number is in metres"
        )
    return length_m


def check_body(pieces: Sequence[Piece]) -> None:
    """Makes sure that pieces in one frame make one body that a hand can hold.

    Raises:
        ValueError: It is too long, too short or too thin, or a piece is far from all others.
    """
    lows, highs = (np.array(corner) for corner in zip(*(piece.bounds() for piece in pieces)))
    check_longest(float((highs.max(axis=0) - lows.min(axis=0)).max()))
    alone = _apart(lows, highs)
    if alone is not None:
        raise ValueError(
            f"part {alone + 1} of {len(pieces)} is more than {NEAR_M:g} m from the others; an "
            "object is one rigid body: move the part or make it an object of its own"
        )
    if len(pieces) == 1 and pieces[0].thickness_m() < THINNEST_M:
        raise ValueError(
            f"it is {pieces[0].thickness_m():.2g} m thick, at least {THINNEST_M:g} m is needed, "
            "because contacts give way by about a tenth of that; make it thicker"
        )


def check_longest(longest_m: float) -> None:
    """ValueError if this is no longest extent of an object."""
    low, high = LONGEST_M
    if not low <= longest_m <= high:
        raise ValueError(
            f"its longest extent is {longest_m:.4g} m, {low:g} to {high:g} m can be grasped; "
            "change its size"
        )


def _apart(lows: Array, highs: Array) -> int | None:
    """Index of a piece [P, 3], [P, 3] that no chain of near pieces joins to the first, if any."""
    gaps = np.maximum(lows[:, None] - highs, lows - highs[:, None])  # [P, P, 3]
    near: NDArray[np.bool_] = gaps.max(axis=2) <= NEAR_M
    joined = np.arange(len(lows)) == 0
    for _ in range(len(lows)):
        joined = near[joined].any(axis=0)
    alone = np.flatnonzero(~joined)
    return int(alone[0]) if len(alone) else None
