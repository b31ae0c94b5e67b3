"""How far objects reach down in any attitude, to tell how high they are above a table."""

from collections.abc import Iterable, Sequence
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.objects.pieces import Array, Piece
from dexgrasp_sim.objects.solids import Solid

_AXIS = np.array([0.0, 0.0, 1.0])
_ACROSS = np.array([1.0, 1.0, 0.0])
_UNTURNED = np.eye(3)


class _Extreme(NamedTuple):
    """A convex body; in direction d of its frame it reaches sum |b_i d_i| + |(e_i d_i)| from its
    centre: a box plus an ellipsoid (Minkowski), which all primitives are. A corner has no size.

    Attributes:
        position: [3] m, its centre in the object's frame.
        rotation: [3, 3], its axes in that frame as columns.
        box: [3] m, b.
        ellipsoid: [3] m, e.
    """

    position: Array
    rotation: Array
    box: Array
    ellipsoid: Array


class LowestPoints:
    """The lowest points of N objects, exact for every shape, whatever the batch."""

    def __init__(self, solids: Sequence[Solid], object_of_env: Tensor) -> None:
        """Args:
        solids: The M objects.
        object_of_env: [N] int64, which object each environment has, on the device of the results.
        """
        bodies = [[*_extremes(solid.pieces)] for solid in solids]
        most = max(map(len, bodies))
        # repetitions of the first fill up the objects that consist of fewer
        filled = [islice(chain(own, repeat(own[0])), most) for own in bodies]
        columns = zip(*(map(np.stack, zip(*own, strict=True)) for own in filled), strict=True)
        self._position, self._rotation, self._box, self._ellipsoid = (
            torch.from_numpy(np.stack(column)).float().to(object_of_env.device)[object_of_env]
            for column in columns
        )  # [N, P, 3], [N, P, 3, 3], [N, P, 3], [N, P, 3]

    def below_center(self, rotation: Tensor) -> Tensor:
        """How far [N] m each object reaches below its centre.

        Args:
            rotation: [N, 3, 3], the objects' axes as columns, base frame.
        """
        down = -rotation[:, 2, None]  # [N, 1, 3], in the objects' frames
        turned = (self._rotation * down[..., None]).sum(2)  # [N, P, 3], in the bodies' frames
        reach = (self._box * turned.abs()).sum(2)  # [N, P]
        reach += (self._ellipsoid * turned).square().sum(2).sqrt()
        return (reach + (self._position * down).sum(2)).amax(1)


def _extremes(pieces: Iterable[Piece]) -> Iterable[_Extreme]:
    nothing = np.zeros(3)
    for piece in pieces:
        half = piece.half_size
        if piece.kind == "mesh":
            for corner in piece.vertices @ piece.rotation.T + piece.position:
                yield _Extreme(corner, _UNTURNED, nothing, nothing)
            continue
        box, ellipsoid = {
            "box": (half, nothing),
            "cylinder": (half * _AXIS, half * _ACROSS),
            "capsule": (half * _AXIS, np.full(3, half[0])),
        }.get(piece.kind, (nothing, half))
        yield _Extreme(piece.position, piece.rotation, box, ellipsoid)
