"""Generated objects: superquadrics, convex hulls of random points, and unions of primitives.

They replace the 140 VisDex meshes of the paper, whose extents (sorted per object) are 4.5 to
11.5, 5.5 to 15.9 and 9.5 to 16.2 cm, medians 7.5, 9.6 and 12.6 cm. Extents are drawn from
triangular distributions with these numbers. For grasps from above there are two more limits: the
narrower horizontal extent is at most 10 cm and the height at most 14 cm. Unions have typical sizes
of their kind instead.

Every object has its own random generator, and all its numbers are rounded to 0.1 mm, so the lists
are the same on every machine.
"""

import colorsys
import functools
from typing import Any, Literal

import numpy as np
from scipy.spatial import ConvexHull

from dexgrasp_sim.objects.compounds import HELD_OUT_KINDS, TRAIN_KINDS
from dexgrasp_sim.objects.config import ObjectConfig, Vector3
from dexgrasp_sim.objects.pieces import Array, convex_mesh

Split = Literal["train", "held_out"]
Recipe = tuple[str, dict[str, Any]]
"""Name and fields of an `ObjectConfig`."""

_SPLITS = ("train", "held_out")
_COUNTS = {"train": (45, 45, 10, 40), "held_out": (10, 10, 2, 18)}
"""Numbers of superquadrics, hulls, round primitives and compounds."""

# VisDex: least, median and largest of the smallest, middle and largest extent, m
_EXTENTS_M = ((0.045, 0.075, 0.115), (0.055, 0.096, 0.159), (0.095, 0.126, 0.162))
_WIDTH_M = 0.10
_HEIGHT_M = 0.14
_FLAT_EXPONENT = 0.5
"""A superquadric with a smaller profile exponent has flat ends on which it can stand."""
_HULL_POINTS = 24
_BASE_SHARE = 0.25
"""Fraction of a hull's height that is flattened at the bottom, so that it can stand."""

_BASE_MARGIN_M = 0.008
"""Least distance of a hull's centre of mass from the edge of its base, seen from above."""


@functools.cache
def generate(split: Split) -> tuple[ObjectConfig, ...]:
    """The generated objects of a split: 140 to train on, 40 held out."""
    objects = []
    for family, make in enumerate(_FAMILIES):
        for index in range(_COUNTS[split][family]):
            random = np.random.default_rng((_SPLITS.index(split), family, index))
            name, fields = make(split, index, random)
            objects.append(ObjectConfig(_name(split, name), rgb=_color(random), **fields))
    return tuple(objects)


def _name(split: Split, name: str) -> str:
    return name if split == "train" else f"{split}_{name}"


def _superquadric(split: Split, index: int, random: np.random.Generator) -> Recipe:
    profile, outline = random.uniform(0.2, 1.4, 2).round(2).tolist()
    size = _extents(random, lies=profile > _FLAT_EXPONENT)
    fields = {"shape": "superquadric", "size_m": size, "exponents": (profile, outline)}
    return f"superquadric_{index:02d}", fields


def _hull(split: Split, index: int, random: np.random.Generator) -> Recipe:
    """The hull of points near an ellipsoid with a flat base; redrawn until it can stand."""
    while True:
        size = np.array(_extents(random, lies=False))
        points = random.uniform(-1.0, 1.0, (_HULL_POINTS, 3))
        points /= np.linalg.norm(points, axis=1, keepdims=True) ** random.uniform(0.6, 1.0)
        low, high = points.min(axis=0), points.max(axis=0)
        points[:, 2] = np.maximum(points[:, 2], low[2] + _BASE_SHARE * (high[2] - low[2]))
        low, high = points.min(axis=0), points.max(axis=0)
        points = ((points - (low + high) / 2) / (high - low) * size).round(4)
        if _stands(points):
            rows = tuple(tuple(row) for row in points.tolist())
            return f"hull_{index:02d}", {"shape": "hull", "points_m": rows}


def _stands(points: Array) -> bool:
    """Whether the centroid of the hull of points [P, 3] m is above its base, with a margin."""
    moments = convex_mesh(points).moments()
    center = moments.first[:2] / moments.volume
    base = points[points[:, 2] == points[:, 2].min(), :2]
    if len(base) < 3:
        return False
    edges = ConvexHull(base).equations
    return bool((edges[:, :2] @ center + edges[:, 2] < -_BASE_MARGIN_M).all())


def _round(split: Split, index: int, random: np.random.Generator) -> Recipe:
    """An ellipsoid, a lying capsule or a cylinder."""
    x, y, z = _extents(random, lies=True)
    kinds = (("ellipsoid", (x, y, z)), ("capsule", (z, x)), ("cylinder", (y, min(x, _HEIGHT_M))))
    shape, size = kinds[index % len(kinds)]
    return f"{shape}_{index // len(kinds):02d}", {"shape": shape, "size_m": size}


def _compound(split: Split, index: int, random: np.random.Generator) -> Recipe:
    kinds = TRAIN_KINDS if split == "train" else TRAIN_KINDS + 2 * HELD_OUT_KINDS
    kind = kinds[index % len(kinds)]
    copy = kinds[: index % len(kinds)].count(kind) + index // len(kinds)
    return f"{kind.__name__}_{copy:02d}", {"shape": "compound", "parts": kind(random)}


def _extents(random: np.random.Generator, lies: bool) -> Vector3:
    """Random extents along x, y, z in m, in random order; with `lies` in falling order."""
    while True:
        small, middle, large = sorted(random.triangular(*limits) for limits in _EXTENTS_M)
        x, y, z = random.permutation([small, middle, large]).tolist()
        if lies:
            x, y, z = large, middle, small
        if min(x, y) <= _WIDTH_M and z <= _HEIGHT_M:
            return round(x, 4), round(y, 4), round(z, 4)


def _color(random: np.random.Generator) -> Vector3:
    hue, saturation, value = random.uniform((0.0, 0.35, 0.45), (1.0, 0.85, 0.95)).tolist()
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red, 3), round(green, 3), round(blue, 3)


_FAMILIES = (_superquadric, _hull, _round, _compound)
