"""Rigid bodies of convex pieces: centroid, extents, volume and inertia."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dexgrasp_sim.objects.pieces import Array, Moments, Piece

_GRID = 48
"""Cells along each edge of the grid on which overlaps of pieces are integrated. In the worst case
in use, thin walls that cross everywhere in the box, the error of the volume is 0.6 %."""


@dataclass(frozen=True, eq=False)
class Solid:
    """A union of convex pieces of equal density, its frame at the centroid.

    Attributes:
        pieces: Placed in that frame; its axes are parallel to those in which they were given.
        volume_m3: Of the union; overlaps count once.
        unit_inertia_m2: [3, 3], inertia about the centroid for 1 kg, along the frame's axes.
        low_m: [3] lowest coordinates.
        high_m: [3] highest coordinates.
    """

    pieces: tuple[Piece, ...]
    volume_m3: float
    unit_inertia_m2: Array
    low_m: Array
    high_m: Array

    @property
    def extents_m(self) -> tuple[float, float, float]:
        """Full lengths along the frame's x, y and z."""
        x, y, z = (self.high_m - self.low_m).tolist()
        return x, y, z

    @property
    def rest_height_m(self) -> float:
        """Height of the frame above the table when the lowest point touches it."""
        return -float(self.low_m[2])

    def triangles(self) -> Array:
        """[F, 3, 3] m: the surfaces of all pieces, see `Piece.triangles`."""
        return np.concatenate([piece.triangles() for piece in self.pieces])


def unite(pieces: Sequence[Piece]) -> Solid:
    """The union of pieces given in one frame.

    Volume and inertia are exact where pieces do not overlap; overlaps are integrated on a grid.
    """
    moments = Moments.total([piece.moments() for piece in pieces])
    if len(pieces) > 1:
        moments = moments.minus(_counted_too_often(pieces))
    centroid = moments.first / moments.volume
    second = moments.moved(-centroid).second / moments.volume
    placed = tuple(replace(piece, position=piece.position - centroid) for piece in pieces)
    lows, highs = zip(*(piece.bounds() for piece in placed), strict=True)
    return Solid(
        placed,
        moments.volume,
        np.trace(second) * np.eye(3) - second,
        np.min(lows, axis=0),
        np.max(highs, axis=0),
    )


def _counted_too_often(pieces: Sequence[Piece]) -> Moments:
    """Moments of the overlaps; points in two pieces count once, in three pieces twice, ..."""
    lows, highs = (np.array(corner) for corner in zip(*(piece.bounds() for piece in pieces)))
    low, high = _shared_box(lows, highs)
    if (low >= high).any():
        return Moments(0.0, np.zeros(3), np.zeros((3, 3)))
    cell = (high - low) / _GRID
    axes = [low[axis] + cell[axis] * (np.arange(_GRID) + 0.5) for axis in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)  # [P, 3]
    count = np.zeros(len(points), dtype=np.int64)
    for piece, piece_low, piece_high in zip(pieces, lows, highs):
        near = np.flatnonzero(((points > piece_low) & (points < piece_high)).all(axis=1))
        count[near] += piece.contains(points[near])
    inside = count > 1
    weights = (count[inside] - 1) * cell.prod()
    shared = points[inside]
    return Moments(
        float(weights.sum()), weights @ shared, np.einsum("p,pi,pj->ij", weights, shared, shared)
    )


def _shared_box(lows: Array, highs: Array) -> tuple[Array, Array]:
    """Corners [3] and [3] m of a box around all overlaps of boxes with corners [P, 3], [P, 3]."""
    one, other = np.triu_indices(len(lows), k=1)
    low, high = np.maximum(lows[one], lows[other]), np.minimum(highs[one], highs[other])
    meet = (low < high).all(axis=1)
    if not meet.any():
        return lows[0], lows[0]
    return low[meet].min(axis=0), high[meet].max(axis=0)
