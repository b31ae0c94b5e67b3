"""Reads mesh files of objects, checks them and splits them into convex pieces.

The parts of a file must be convex. Others are refused: a convex decomposition takes minutes and
needs inspection, so the user makes it once with another tool and gives the result.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial import ConvexHull, QhullError

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.objects.pieces import Array, Piece, convex_mesh

SUFFIXES = (".obj", ".stl")
MAX_PIECES = 16
SIZE_M = (0.02, 0.30)
"""Allowed longest extent: what a hand can hold."""

_EMPTY_SHARE = 0.02
"""A part counts as convex if at most this fraction of its convex hull is empty."""
_UNITS_M = {"millimetres": 0.001, "centimetres": 0.01, "inches": 0.0254, "metres": 1000.0}
"""Metres per unit; the last is for metres that were scaled as if they were millimetres."""


def load_pieces(path: Path, scale: float, rotation: Array) -> tuple[Piece, ...]:
    """Reads a mesh file as convex pieces.

    Args:
        path: OBJ, in which each `o` begins a part, or STL. Unconnected components are separate
            parts too.
        scale: Metres per unit of the file.
        rotation: [3, 3], from the file's axes to the object's, whose z points up.

    Returns:
        One mesh piece per part, all in one frame.

    Raises:
        ConfigError: The file is missing or unreadable, has holes, is too small or too large, or
            has parts that are not convex; the message says what to do.
    """
    meshes = _read(path)
    for mesh in meshes:
        mesh.apply_scale(scale)
    bounds = np.array([mesh.bounds for mesh in meshes])
    _check_size(path, float((bounds[:, 1].max(axis=0) - bounds[:, 0].min(axis=0)).max()), scale)
    for mesh in meshes:
        _check_closed(path, mesh)
    parts = [part for mesh in meshes for part in mesh.split(only_watertight=False)]
    if len(parts) > MAX_PIECES:
        raise ConfigError(
            f"{path}: {len(parts)} separate parts, at most {MAX_PIECES} are allowed; decompose "
            f"it into fewer: {_decompose(path)}"
        )
    _check_convex(path, parts)
    return tuple(convex_mesh(np.asarray(part.vertices) @ rotation.T) for part in parts)


def _read(path: Path) -> list[trimesh.Trimesh]:
    """The file's meshes, without duplicate vertices."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a mesh file must end in {' or '.join(SUFFIXES)}; convert it")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; correct `path`")
    options: dict[str, Any] = {}
    if suffix == ".obj":
        options = {"split_objects": True, "group_material": False, "skip_materials": True}
    try:
        scene = trimesh.load_scene(path, **options)
    except Exception as error:  # parsers raise all kinds of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: no valid mesh file ({reason}); export it again") from None
    named = sorted(scene.geometry.items())
    meshes = [mesh for _, mesh in named if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
    if not meshes:
        raise ConfigError(f"{path}: holds no triangles; export the object as a triangle mesh")
    for mesh in meshes:
        # files repeat a vertex for each of its faces, normals and texture coordinates
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return meshes


def _check_size(path: Path, longest_m: float, scale: float) -> None:
    low, high = SIZE_M
    if low <= longest_m <= high:
        return
    fits = [unit for unit, factor in _UNITS_M.items() if low <= longest_m * factor <= high]
    remedy = "choose `scale` so that it fits"
    if fits:
        remedy = f"in {fits[0]} it would fit: set `scale: {scale * _UNITS_M[fits[0]]:g}`"
    raise ConfigError(
        f"{path}: {longest_m:.4g} m long with `scale: {scale:g}`; objects are {low} to {high} m "
        f"long; {remedy}"
    )


def _check_closed(path: Path, mesh: trimesh.Trimesh) -> None:
    """Every edge must join two triangles that face the same way."""
    if not mesh.is_watertight:
        edges, count = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
        open_edges = edges[count != 2]
        place = mesh.vertices[open_edges[0]].mean(axis=0) if len(open_edges) else mesh.centroid
        where = ", ".join(f"{value:.4f}" for value in place)
        raise ConfigError(
            f"{path}: not closed, {len(open_edges)} edges do not join two triangles (one near "
            f"{where} m); fill the holes, and give parts that touch their own `o` in an OBJ file"
        )
    if not mesh.is_winding_consistent:
        raise ConfigError(
            f"{path}: its triangles do not all face outwards; recalculate the normals"
        )


def _check_convex(path: Path, parts: Sequence[trimesh.Trimesh]) -> None:
    for number, part in enumerate(parts, start=1):
        which = f"part {number} of {len(parts)}"
        try:
            hull_m3 = ConvexHull(part.vertices).volume
        except QhullError:
            raise ConfigError(f"{path}: {which} is flat; remove it or thicken it") from None
        empty = 1.0 - abs(part.volume) / hull_m3
        if empty > _EMPTY_SHARE:
            raise ConfigError(
                f"{path}: {which} is not convex ({empty:.0%} of its convex hull is empty, allowed "
                f"is {_EMPTY_SHARE:.0%}); decompose it: {_decompose(path)}"
            )


def _decompose(path: Path) -> str:
    parts = f"{path.stem}_parts.obj"
    return (
        f"`pip install coacd`, then `coacd -i {path.name} -o {parts} -c {MAX_PIECES}`, and give "
        f"{parts} as `path`"
    )
