"""Reads OBJ and STL files of users into triangles without defects that have one remedy."""

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from dexgrasp_sim.config import ConfigError

SUFFIXES = (".obj", ".stl")
_STL_HEADER, _STL_TRIANGLE = 84, 50
"""Bytes; see https://en.wikipedia.org/wiki/STL_(file_format)."""


def read_meshes(path: Path) -> tuple[list[trimesh.Trimesh], int]:
    """Reads the parts of a mesh file.

    Vertices at one place are joined, triangles that have two corners at one place or stand in the
    file again are dropped.

    Args:
        path: OBJ, in which each `o` begins a part, or STL.

    Returns:
        The parts, and the number of triangles that were dropped.

    Raises:
        ConfigError: The file is missing, damaged or of another type, holds no triangles, numbers
            that are not finite, or parts of one name; the message names the file and the remedy.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a mesh file must end in {' or '.join(SUFFIXES)}; convert it")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; correct `path`") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); correct `path`") from None
    problem = _damage_of_stl(content) if suffix == ".stl" else _damage_of_obj(content)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    meshes = _parse(path, suffix)
    for mesh in meshes:
        _check_finite(path, mesh)
    dropped = sum(_clean(mesh) for mesh in meshes)
    meshes = [mesh for mesh in meshes if len(mesh.faces)]
    if not meshes:
        raise ConfigError(f"{path}: no triangle has an area; check the vertices and export again")
    return meshes, dropped


def _damage_of_stl(content: bytes) -> str:
    """What is wrong with the content of an STL file and its remedy, "" if nothing is seen."""
    if not content:
        return "is empty; export it again"
    count = struct.unpack("<I", content[80:_STL_HEADER])[0] if len(content) >= _STL_HEADER else 0
    whole = _STL_HEADER + _STL_TRIANGLE * count
    if len(content) == whole:
        return ""
    if content.lstrip().startswith(b"solid") and b"facet" in content:
        is_whole = b"endsolid" in content[content.rfind(b"endfacet") :]
        return "" if is_whole else "is cut off: `endsolid` is missing; copy or export it again"
    if len(content) < _STL_HEADER or len(content) > whole:
        return "is no STL file, neither binary nor text; export it again"
    held = (len(content) - _STL_HEADER) // _STL_TRIANGLE
    return f"is cut off: it holds {held} of {count} triangles; copy or export it again"


def _damage_of_obj(content: bytes) -> str:
    lines = content.decode(errors="replace").splitlines()
    names = Counter(line[2:].strip() for line in lines if line.startswith("o "))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        return (
            f"{names[twice[0]]} parts have the name {twice[0]!r} and would be taken as one; give "
            "each `o` a name of its own"
        )
    return "" if lines else "is empty; export it again"


def _parse(path: Path, suffix: str) -> list[trimesh.Trimesh]:
    options: dict[str, Any] = {"process": False}  # it would drop vertices that are not finite
    if suffix == ".obj":
        options |= {"split_objects": True, "group_material": False, "skip_materials": True}
    try:
        scene = trimesh.load_scene(path, **options)
    except Exception as error:  # parsers raise all kinds of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: no valid mesh file ({reason}); export it again") from None
    named = sorted(scene.geometry.items())
    meshes = [mesh for _, mesh in named if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
    if not meshes:
        raise ConfigError(f"{path}: holds no triangles; export the object as a triangle mesh")
    return meshes


def _check_finite(path: Path, mesh: trimesh.Trimesh) -> None:
    wrong = np.flatnonzero(~np.isfinite(mesh.vertices).all(axis=1))
    if len(wrong):
        place = " ".join(f"{value:g}" for value in mesh.vertices[wrong[0]])
        raise ConfigError(
            f"{path}: {len(wrong)} of {len(mesh.vertices)} vertices are not finite (the first is "
            f"{place}); delete them and close the holes, or export it again"
        )


def _clean(mesh: trimesh.Trimesh) -> int:
    """Joins vertices and drops useless triangles; returns how many."""
    # files repeat a vertex for each of its faces, normals and texture coordinates
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    faces: NDArray[np.int64] = np.asarray(mesh.faces)
    distinct = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    # a triangle begins with its first vertex: equal rows are the same triangle, seen from one side
    first = faces.argmin(axis=1)[:, None]
    rows = np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)
    kept = np.zeros(len(faces), dtype=bool)
    kept[np.unique(rows, axis=0, return_index=True)[1]] = True
    kept &= distinct
    mesh.update_faces(kept)
    mesh.remove_unreferenced_vertices()
    return int((~kept).sum())
