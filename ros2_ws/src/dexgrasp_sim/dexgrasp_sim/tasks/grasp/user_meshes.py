"""Mesh files as objects: read, checked, and taken apart into convex pieces.

A mesh whose connected parts are convex is used part by part. Others are refused: a convex
decomposition takes minutes and its quality needs eyes, so it is done once, outside, and its result
is the file to use.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from scipy.spatial import ConvexHull, QhullError

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.tasks.grasp.pieces import Array, Piece, convex_mesh

SUFFIXES = (".obj", ".stl")
MAX_PIECES = 16
SIZE_M = (0.02, 0.30)
"""Allowed longest extent: what a hand can hold."""

_HOLLOW_SHARE = 0.02
"""A part is convex if it fills its convex hull but for this share of the volume."""
_UNITS_M = {"millimetres": 0.001, "centimetres": 0.01, "inches": 0.0254, "metres": 1000.0}


def load_pieces(path: Path, scale: float, rotation: Array) -> tuple[Piece, ...]:
    """Reads a mesh file as convex pieces.

    Args:
        path: OBJ or STL file; several parts may stand in one file.
        scale: Metres per unit of the file.
        rotation: [3, 3] turns the file's axes into the object's, whose z points up.

    Returns:
        One mesh piece per connected part, all in one frame.

    Raises:
        ConfigError: The file is missing or unreadable, has holes, is too small or too large, or
            has parts that are not convex; the message says what to do.
    """
    mesh = _read(path)
    mesh.apply_scale(scale)
    _check_size(path, mesh.extents, scale)
    _check_closed(path, mesh)
    parts = mesh.split(only_watertight=False)
    if len(parts) > MAX_PIECES:
        raise ConfigError(
            f"{path}: {len(parts)} separate parts, at most {MAX_PIECES} are allowed; decompose "
            f"it into fewer: {_decompose(path)}"
        )
    _check_convex(path, parts)
    pieces = [convex_mesh(np.asarray(part.vertices) @ rotation.T) for part in parts]
    return tuple(replace(piece) for piece in pieces)


def _read(path: Path) -> trimesh.Trimesh:
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a mesh file must end in {' or '.join(SUFFIXES)}; convert it")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; correct `path` (relative to where you start)")
    try:
        mesh = trimesh.load_mesh(path, process=True)
    except Exception as error:  # the reader raises what its parsers happen to raise
        raise ConfigError(
            f"{path}: cannot be read as a mesh ({error or type(error).__name__}); export it again"
        ) from None
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise ConfigError(f"{path}: holds no triangles; export the object as a triangle mesh")
    if not np.isfinite(mesh.vertices).all():
        raise ConfigError(f"{path}: holds coordinates that are not finite; export it again")
    # the same corner may be stored once per face, with other normals or texture coordinates
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return mesh


def _check_size(path: Path, extents_m: Array, scale: float) -> None:
    longest = float(extents_m.max())
    low, high = SIZE_M
    if low <= longest <= high:
        return
    fits = [(unit, s) for unit, s in _UNITS_M.items() if low <= longest * s <= high]
    hint = f"choose `scale` so that it is {low} to {high} m long"
    if fits:
        unit, factor = fits[0]
        hint = f"its numbers look like {unit}: set `scale: {scale * factor:g}`"
        if unit == "metres":
            hint = f"it was scaled twice: set `scale: {scale * factor:g}`"
    raise ConfigError(
        f"{path}: {longest:.4g} m long with `scale` {scale:g}, allowed are {low} to {high} m; {hint}"
    )


def _check_closed(path: Path, mesh: trimesh.Trimesh) -> None:
    """Every edge must belong to two triangles, wound the same way."""
    if not mesh.is_watertight:
        edges, count = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
        bad = edges[count != 2]
        place = mesh.vertices[bad].mean(axis=1)[0] if len(bad) else mesh.centroid
        where = ", ".join(f"{value:.4f}" for value in place)
        raise ConfigError(
            f"{path}: not closed, {len(bad)} edges do not join two triangles (one at {where} m); "
            "close the holes, in Blender: Mesh > Clean Up > Fill Holes"
        )
    if not mesh.is_winding_consistent:
        raise ConfigError(
            f"{path}: its triangles do not face the same way; in Blender: Mesh > Normals > "
            "Recalculate Outside"
        )


def _check_convex(path: Path, parts: "list[trimesh.Trimesh]") -> None:
    for index, part in enumerate(parts):
        try:
            hull_m3 = ConvexHull(part.vertices).volume
        except QhullError:
            raise ConfigError(
                f"{path}: part {index} of {len(parts)} is flat; remove it or give it thickness"
            ) from None
        missing = 1.0 - abs(part.volume) / hull_m3
        if missing > _HOLLOW_SHARE:
            raise ConfigError(
                f"{path}: part {index} of {len(parts)} is not convex ({missing:.0%} of its convex "
                f"hull is empty, allowed is {_HOLLOW_SHARE:.0%}); decompose it: {_decompose(path)}"
            )


def _decompose(path: Path) -> str:
    output = path.with_name(f"{path.stem}_parts.obj")
    return (
        f"pip install coacd trimesh, then coacd -i {path.name} -o {output.name} -c {MAX_PIECES}, "
        f"and set `path` to {output.name}"
    )
