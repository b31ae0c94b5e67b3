"""What the fabric keeps off: boxes, and closed-form distances to them."""

from typing import Annotated, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT

Vector3 = tuple[float, float, float]
Length = Annotated[float, Field(gt=0)]

_TINY_M = 1e-9


@dataclass(frozen=True, config=STRICT)
class Obstacle:
    """A box with edges along the base axes.

    Attributes:
        name: What errors call it.
        center_m: Its centre, base frame.
        size_m: Its full edge lengths.
    """

    name: str
    center_m: Vector3
    size_m: tuple[Length, Length, Length]


SURROUNDINGS = (
    Obstacle("left_wall", (-0.45, -0.45, 0.75), (1.7, 0.03, 1.1)),
    Obstacle("right_wall", (-0.45, 0.60, 0.75), (1.7, 0.03, 1.1)),
    Obstacle("back_wall", (0.4, 0.075, 0.75), (0.03, 1.1, 1.1)),
    Obstacle("ceiling", (-0.45, 0.08, 1.30), (1.7, 1.1, 0.03)),
    Obstacle("floor", (-0.45, 0.075, 0.20), (1.7, 1.1, 0.03)),
)
"""What is around the table in the DEXTRAH fabric, without the box around its camera: the arm's
reset posture is inside that one. A camera that the robot can reach belongs here as one more
obstacle."""


class Nearest(NamedTuple):
    """The nearest point of each of B boxes, seen from each of P points; batch last.

    Attributes:
        distance: [B, P, N], m, from the point to the box; zero inside.
        normal: [3, B, P, N], unit vector from the box to the point, the distance's gradient; zero
            inside.
    """

    distance: Tensor
    normal: Tensor


def nearest(points: Tensor, centers: Tensor, half_sizes: Tensor) -> Nearest:
    """Distances to boxes along the base axes; a box of size zero is a point.

    Args:
        points: [3, P, N] m.
        centers: [3, B, N] m.
        half_sizes: [3, B] m, half the edge lengths.
    """
    distance, outside = _outside(points, centers, half_sizes)
    return Nearest(distance, outside.div_(distance.clamp_min(_TINY_M)))


def distances(points: Tensor, centers: Tensor, half_sizes: Tensor) -> Tensor:
    """[B, P, N] m, the distances alone; see `nearest`."""
    return _outside(points, centers, half_sizes)[0]


def _outside(points: Tensor, centers: Tensor, half_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [B, P, N] and the vectors [3, B, P, N] from the boxes to the points."""
    half = half_sizes[..., None, None]
    offset = points[:, None] - centers[:, :, None]
    outside = offset.sub_(offset.clamp(-half, half))
    x, y, z = outside.unbind()
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_(), outside
