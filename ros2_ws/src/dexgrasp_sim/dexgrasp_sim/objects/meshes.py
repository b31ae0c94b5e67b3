"""Makes convex pieces of users' mesh files, and checks that they can be simulated and grasped.

The parts of a file must be convex, or its convex hull is used where the user says so. Others are
refused: a convex decomposition takes minutes and needs inspection, so the user makes it once with
another tool and gives the result.
"""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from scipy.spatial import ConvexHull, QhullError

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.objects.limits import LONGEST_M, check_body
from dexgrasp_sim.objects.mesh_files import read_meshes
from dexgrasp_sim.objects.pieces import Array, Piece, convex_mesh

MAX_PIECES = 16

_EMPTY_SHARE = 0.02
"""A part counts as convex if at most this fraction of its convex hull is empty."""
_UNITS_M = {
    "millimetres": 0.001,
    "centimetres": 0.01,
    "inches": 0.0254,
    "metres scaled as millimetres": 1000.0,
}
"""Metres per unit in which files are written by mistake."""

_log = logging.getLogger(__name__)


def load_pieces(path: Path, scale: float, rotation: Array, hull: bool = False) -> list[Piece]:
    """Reads a mesh file as convex pieces.

    Triangles without an area or that stand in the file twice are dropped, with a note in the log.

    Args:
        path: OBJ, in which each `o` begins a part, or STL. Unconnected components are separate
            parts too.
        scale: Metres per unit of the file.
        rotation: [3, 3], from the file's axes to the object's, whose z points up.
        hull: Takes the convex hull of the whole file, which may have holes then.

    Returns:
        One mesh piece per part, all in one frame.

    Raises:
        ConfigError: The file is missing or unreadable, has holes, is too small or too large, or
            has parts that are not convex or far from the others; the message says what to do.
    """
    meshes, dropped = read_meshes(path)
    if dropped:
        _log.warning("%s: %d triangles without an area or given twice are left out", path, dropped)
    for mesh in meshes:
        mesh.apply_scale(scale)
    corners = np.concatenate([mesh.vertices for mesh in meshes])  # [V, 3]
    _check_size(path, float(np.ptp(corners, axis=0).max()), scale)
    if hull:
        points = [corners]
    else:
        parts = _closed_parts(path, meshes)
        _check_convex(path, parts)
        points = [np.asarray(part.vertices) for part in parts]
    try:
        pieces = [convex_mesh(vertices @ rotation.T) for vertices in points]
        check_body(pieces)
    except QhullError:
        raise ConfigError(f"{path}: it is flat; give it a thickness") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return pieces


def _check_size(path: Path, longest_m: float, scale: float) -> None:
    low, high = LONGEST_M
    if low <= longest_m <= high:
        return
    fits = [
        f"{unit} (`scale: {scale * factor:g}`, {longest_m * factor:.3g} m)"
        for unit, factor in _UNITS_M.items()
        if low <= longest_m * factor <= high
    ]
    remedy = f"is it in {' or '.join(fits)}?" if fits else "choose `scale` so that it fits"
    raise ConfigError(
        f"{path}: {longest_m:.4g} m long with `scale: {scale:g}`; objects are {low} to {high} m "
        f"long; {remedy}"
    )


def _closed_parts(path: Path, meshes: Sequence[trimesh.Trimesh]) -> list[trimesh.Trimesh]:
    for mesh in meshes:
        _check_closed(path, mesh)
    parts = [part for mesh in meshes for part in mesh.split(only_watertight=False)]
    if len(parts) > MAX_PIECES:
        raise ConfigError(
            f"{path}: {len(parts)} separate parts, at most {MAX_PIECES} are allowed; decompose "
            f"it into fewer: {_decompose(path)}; {_use_hull(path, parts)}"
        )
    return parts


def _check_closed(path: Path, mesh: trimesh.Trimesh) -> None:
    """Every edge must join two triangles that face the same way."""
    if not mesh.is_watertight:
        edges, count = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
        open_edges = edges[count != 2]
        place = mesh.vertices[open_edges[0]].mean(axis=0) if len(open_edges) else mesh.centroid
        where = ", ".join(f"{value:.4f}" for value in place)
        raise ConfigError(
            f"{path}: not closed, {len(open_edges)} edges do not join two triangles (one near "
            f"{where} m); fill the holes, give parts that touch their own `o` in an OBJ file, or "
            "say `hull: true` to use the convex hull"
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
                f"{path}: {which} is not convex ({empty:.1%} of its convex hull is empty, allowed "
                f"is {_EMPTY_SHARE:.0%}); {_use_hull(path, parts)}, or decompose it: "
                f"{_decompose(path)}"
            )


def _use_hull(path: Path, parts: Sequence[trimesh.Trimesh]) -> str:
    volume = sum(abs(part.volume) for part in parts)
    hull = ConvexHull(np.concatenate([part.vertices for part in parts])).volume
    return f"say `hull: true` to use the convex hull of all, {hull / volume - 1.0:.0%} larger"


def _decompose(path: Path) -> str:
    """The command line of CoACD, https://github.com/SarahWeiii/CoACD/tree/main/python."""
    parts = path.with_name(f"{path.stem}_parts.obj")
    command = ["coacd", "-i", str(path), "-o", str(parts), "-c", str(MAX_PIECES)]
    return f"`pip install coacd trimesh`, then `{shlex.join(command)}`, and give {parts} as `path`"
