"""Convex pieces of objects: bounds, volumes and second moments."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Array = NDArray[np.float64]
_DISPLAY_POINTS = 128
PieceKind = Literal["box", "cylinder", "sphere", "capsule", "ellipsoid", "mesh"]


@dataclass(frozen=True, eq=False)
class Piece:
    """One convex body.

    Attributes:
        kind: Its type.
        half_size: [3] m in the piece's frame. Box and ellipsoid: half lengths along x, y, z;
            cylinder and capsule (axis z): radius, radius, half the length of the cylindrical
            part; sphere: the radius three times; mesh: unused.
        position: [3] m, origin of the piece's frame in the object's frame.
        rotation: [3, 3], axes of the piece's frame as columns.
        vertices: [V, 3] m, corners of a mesh in the piece's frame.
        faces: [F, 3] int64, triangles of a mesh, counterclockwise from outside.
    """

    kind: PieceKind
    half_size: Array = field(default_factory=lambda: np.zeros(3))
    position: Array = field(default_factory=lambda: np.zeros(3))
    rotation: Array = field(default_factory=lambda: np.eye(3))
    vertices: Array = field(default_factory=lambda: np.zeros((0, 3)))
    faces: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def bounds(self) -> tuple[Array, Array]:
        """[3] and [3] m: lowest and highest coordinates in the object's frame."""
        if self.kind == "mesh":
            corners = self.vertices @ self.rotation.T + self.position  # [V, 3]
            return corners.min(axis=0), corners.max(axis=0)
        reach = self._reach()
        return self.position - reach, self.position + reach

    def _reach(self) -> Array:
        """[3] m: half extents of a primitive along the object's axes."""
        half, turn = self.half_size, self.rotation
        if self.kind == "box":
            return np.abs(turn) @ half
        if self.kind == "cylinder":
            along = np.abs(turn[:, 2])
            return half[0] * np.sqrt(np.maximum(1.0 - along**2, 0.0)) + half[2] * along
        if self.kind == "capsule":
            return half[0] + half[2] * np.abs(turn[:, 2])
        return np.sqrt(turn**2 @ half**2)

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """[P] bool: which points [P, 3] m of the object's frame lie inside, not on the surface."""
        local = (points - self.position) @ self.rotation  # [P, 3]
        half = self.half_size
        if self.kind == "mesh":
            planes = ConvexHull(self.vertices).equations
            heights = local @ planes[:, :3].T + planes[:, 3]  # [P, F]
            return np.all(heights < -_SURFACE_M, axis=1)
        if self.kind == "box":
            return np.all(np.abs(local) < half - _SURFACE_M, axis=1)
        if self.kind == "cylinder":
            in_circle = np.hypot(local[:, 0], local[:, 1]) < half[0] - _SURFACE_M
            return in_circle & (np.abs(local[:, 2]) < half[2] - _SURFACE_M)
        if self.kind == "capsule":
            local[:, 2] -= np.clip(local[:, 2], -half[2], half[2])
            return np.linalg.norm(local, axis=1) < half[0] - _SURFACE_M
        return np.linalg.norm(local / half, axis=1) < 1.0 - _SURFACE_M / half.min()

    def thickness_m(self) -> float:
        """The smallest distance of two parallel planes with the piece between them.

        Of a mesh: with one of the planes on a face, of which the other directions between two
        edges differ little.
        """
        if self.kind != "mesh":
            radius_or_half = self.half_size[:2] if self.kind == "capsule" else self.half_size
            return 2.0 * float(radius_or_half.min())
        heights = self.vertices @ ConvexHull(self.vertices).equations[:, :3].T  # [V, F]
        return float(np.ptp(heights, axis=0).min())

    def triangles(self, num_points: int = _DISPLAY_POINTS) -> Array:
        """[F, 3, 3] m: corners of triangles of its surface, counterclockwise from outside, in the
        object's frame. Curved surfaces are approximated, with corners at about `num_points` points
        of the surface.
        """
        mesh = self
        if self.kind != "mesh":
            points = _surface_points(self.kind, self.half_size, num_points)
            mesh = convex_mesh(points, max_vertices=len(points))
        corners = mesh.vertices @ self.rotation.T + self.position
        return corners[mesh.faces]

    def moments(self) -> "Moments":
        """Moments for density 1 about the origin of the object's frame."""
        if self.kind == "mesh":
            local = _mesh_moments(self.vertices, self.faces)
        else:
            volume, second = _primitive_moments(self.kind, self.half_size)
            local = Moments(volume, np.zeros(3), np.diag(second))
        return local.turned(self.rotation).moved(self.position)


_SURFACE_M = 1e-9
"""Points closer to the surface than this count as outside."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Integrals over a body of density 1.

    Attributes:
        volume: m³.
        first: [3] m⁴, integral of x; the centroid is `first / volume`.
        second: [3, 3] m⁵, integral of x xᵀ.
    """

    volume: float
    first: Array
    second: Array

    def moved(self, offset: Array) -> "Moments":
        """The moments after a translation by `offset` [3] m."""
        cross = np.outer(offset, self.first)
        second = self.second + cross + cross.T + self.volume * np.outer(offset, offset)
        return Moments(self.volume, self.first + self.volume * offset, second)

    def turned(self, rotation: Array) -> "Moments":
        """The moments after a rotation by `rotation` [3, 3] about the origin."""
        return Moments(self.volume, rotation @ self.first, rotation @ self.second @ rotation.T)

    def minus(self, other: "Moments") -> "Moments":
        """The moments of this body without `other`, which is part of it."""
        return Moments(
            self.volume - other.volume, self.first - other.first, self.second - other.second
        )

    @staticmethod
    def total(parts: "list[Moments]") -> "Moments":
        """The moments of bodies that do not overlap, together."""
        return Moments(
            sum(part.volume for part in parts),
            np.sum([part.first for part in parts], axis=0),
            np.sum([part.second for part in parts], axis=0),
        )


def convex_mesh(points: Array, max_vertices: int = 128) -> Piece:
    """The convex hull of points [P, 3] m as a mesh piece.

    Args:
        points: At least four that do not lie in one plane.
        max_vertices: A hull of more corners is replaced by the hull of its extreme points in this
            number of evenly spread directions; a round body gets about 1 % smaller.

    Raises:
        scipy.spatial.QhullError: The points lie in one plane.
    """
    corners = points[ConvexHull(points).vertices]
    if len(corners) > max_vertices:
        extreme = np.argmax(corners @ _spread_directions(max_vertices).T, axis=0)
        corners = corners[np.unique(extreme)]
    hull = ConvexHull(corners)
    faces = hull.simplices.astype(np.int64)
    first, second, third = (corners[faces[:, column]] for column in range(3))
    normals = np.cross(second - first, third - first)  # [F, 3]
    inward = np.einsum("fi,fi->f", normals, hull.equations[:, :3]) < 0
    faces[inward] = faces[inward][:, ::-1]
    return Piece("mesh", vertices=corners, faces=faces)


def superquadric_points(
    extents_m: tuple[float, float, float], exponents: tuple[float, float]
) -> Array:
    """Corners of a convex superquadric, scaled to fill its extents exactly.

    x = a c(u, e1) c(v, e2), y = b c(u, e1) s(v, e2), z = c s(u, e1) with the signed powers
    c(w, e) = sign(cos w) |cos w|^e and s alike (Barr 1981, "Superquadrics and Angle-Preserving
    Transformations"). The latitudes leave out the poles, so the body has small flat ends on
    which it can stand.

    Args:
        extents_m: Full lengths 2a, 2b, 2c.
        exponents: e1 (profile along z) and e2 (outline seen along z), 0 < e <= 2; 1 and 1 is an
            ellipsoid, small ones a box, (small, 1) a cylinder.

    Returns:
        [128, 3] m.
    """
    latitudes, longitudes = 8, 16
    u = np.pi * ((np.arange(latitudes) + 0.5) / latitudes - 0.5)
    v = 2 * np.pi * (np.arange(longitudes) + 0.5) / longitudes
    u, v = (grid.ravel() for grid in np.meshgrid(u, v, indexing="ij"))
    profile, outline = exponents
    points = np.stack(
        [
            _signed_power(np.cos(u), profile) * _signed_power(np.cos(v), outline),
            _signed_power(np.cos(u), profile) * _signed_power(np.sin(v), outline),
            _signed_power(np.sin(u), profile),
        ],
        axis=1,
    )
    return points / (2 * np.abs(points).max(axis=0)) * extents_m


def _signed_power(base: Array, exponent: float) -> Array:
    return np.sign(base) * np.abs(base) ** exponent


def _spread_directions(count: int) -> Array:
    """[count, 3] unit vectors spread evenly over the sphere (golden spiral)."""
    index = np.arange(count) + 0.5
    z = 1.0 - 2.0 * index / count
    turn = np.pi * (1.0 + np.sqrt(5.0)) * index
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)


def _surface_points(kind: PieceKind, half: Array, count: int) -> Array:
    """[P, 3] m: points on a primitive's surface; their convex hull approximates it."""
    directions = _spread_directions(count)
    if kind == "box":
        signs = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]), axis=-1)
        return signs.reshape(-1, 3) * half
    if kind in ("sphere", "ellipsoid"):
        return directions * half
    if kind == "capsule":
        shift = np.sign(directions[:, 2:]) * np.array([0.0, 0.0, half[2]])
        return directions * half[0] + shift
    turn = 2.0 * np.pi * np.arange(count // 4) / (count // 4)
    circle = np.stack([np.cos(turn), np.sin(turn), np.ones_like(turn)], axis=1) * half
    return np.concatenate([circle, circle * [1.0, 1.0, -1.0]])


def _primitive_moments(kind: PieceKind, half: Array) -> tuple[float, Array]:
    """Volume m³ and the integrals [3] m⁵ of x², y², z² about the centre."""
    if kind == "box":
        volume = 8.0 * half.prod()
        return volume, volume * half**2 / 3.0
    if kind in ("sphere", "ellipsoid"):
        volume = 4.0 / 3.0 * np.pi * half.prod()
        return volume, volume * half**2 / 5.0
    radius, length = half[0], half[2]
    tube = 2.0 * np.pi * radius**2 * length
    across, along = tube * radius**2 / 4.0, tube * length**2 / 3.0
    if kind == "cylinder":
        return tube, np.array([across, across, along])
    # half balls at the ends, whose centroids are 3/8 of the radius beyond the tube
    ball = 4.0 / 3.0 * np.pi * radius**3
    across += ball * radius**2 / 5.0
    along += ball * (radius**2 / 5.0 + 3.0 / 4.0 * radius * length + length**2)
    return tube + ball, np.array([across, across, along])


def _mesh_moments(vertices: Array, faces: NDArray[np.int64]) -> Moments:
    """Moments of a closed triangle mesh, summed over tetrahedra with a corner at the origin."""
    corners = vertices[faces]  # [F, 3, 3]
    volumes = np.linalg.det(corners) / 6.0
    sums = corners.sum(axis=1)  # [F, 3]
    # integral of x xᵀ over a tetrahedron 0, a, b, c: V/20 (aaᵀ + bbᵀ + ccᵀ + ssᵀ), s = a + b + c
    second = np.einsum("f,fki,fkj->ij", volumes, corners, corners)
    second += np.einsum("f,fi,fj->ij", volumes, sums, sums)
    return Moments(float(volumes.sum()), volumes @ sums / 4.0, second / 20.0)
