"""An object's convex pieces as geoms of its body, in a layout that different objects share.

`mujoco.batch.Batch` mixes models only if their data have the same layout: the same number of
geoms, of nodes in the bounding volume trees of bodies and meshes, and of elements in the mass
matrix. So every model gets the same number of geom slots; unused slots hold a hidden geom without
contacts. Every model gets meshes with the same total number of triangles; meshes that no geom uses
fill the rest. If the frame of one object is not along its principal axes of inertia, its block of
the mass matrix is full, and all objects are given a full block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.objects.pieces import Array, Piece
from dexgrasp_sim.physics.contact_model import OBJECT_COLLISION, CollisionBits

OBJECT = "object"
"""Name of the object's body, joint and first geom; the next ones are `object_1` and so on."""

_HIDDEN_COLLISION = CollisionBits(8, 0)
"""A separate type that matches no affinity. With type 0 MuJoCo would keep the geom out of the
body's tree, which would change the layout."""
_HIDDEN_GROUP = 3
_HIDDEN_SIZE_M = 0.001
_LEAST_FACES = 6
"""Smallest number of triangles of a filler mesh: two pyramids on a triangle."""

GEOM_TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "mesh": mujoco.mjtGeom.mjGEOM_MESH,
}
"""MuJoCo's type of each kind of piece."""


@dataclass(frozen=True)
class Layout:
    """The data layout that all models of a batch share.

    Attributes:
        geoms: Geom slots of the object's body.
        meshes: Meshes in a model, fillers included; 0 if no object has one.
        faces: Triangles of all meshes together.
        aligned: Whether the objects' frames are principal axes of inertia.
    """

    geoms: int
    meshes: int
    faces: int
    aligned: bool


def common_layout(objects: Sequence[ObjectConfig]) -> Layout:
    """The smallest layout that holds any of the objects."""
    geoms = max(len(item.solid.pieces) for item in objects)
    mesh_counts = [len(_mesh_pieces(item)) for item in objects]
    aligned = all(_is_diagonal(item.solid.unit_inertia_m2) for item in objects)
    if not any(mesh_counts):
        return Layout(geoms, 0, 0, aligned)
    meshes = max(mesh_counts) + 1
    faces = max(
        _num_faces(item) + _LEAST_FACES * (meshes - count)
        for item, count in zip(objects, mesh_counts, strict=True)
    )
    return Layout(geoms, meshes, faces, aligned)


def add_object(
    spec: mujoco.MjSpec,
    item: ObjectConfig,
    layout: Layout,
    position_m: Sequence[float],
    friction: tuple[float, float, float],
) -> None:
    """Adds an object as a free body, its frame at the centre of mass.

    Args:
        spec: What to add to.
        item: The object.
        layout: Of the batch that the model will be part of.
        position_m: [3] initial position, base frame.
        friction: Sliding, torsional (m) and rolling (m) coefficient.
    """
    body = add_body(spec, item, layout.aligned, position_m)
    pieces = item.solid.pieces
    for slot in range(layout.geoms):
        name = slot_name(slot)
        if slot < len(pieces):
            geom = add_piece(spec, body, name, pieces[slot])
            geom.rgba, bits = [*item.rgb, 1.0], OBJECT_COLLISION
        else:
            geom, bits = _add_hidden(body, name), _HIDDEN_COLLISION
        geom.contype, geom.conaffinity = bits.contype, bits.conaffinity
        geom.friction, geom.condim, geom.mass = friction, 4, 0.0
    if layout.meshes:
        missing = layout.meshes - len(_mesh_pieces(item))
        _add_fillers(spec, missing, layout.faces - _num_faces(item))


def slot_name(slot: int) -> str:
    """Name of the object's geom in a slot."""
    return f"{OBJECT}_{slot}" if slot else OBJECT


def add_body(
    spec: mujoco.MjSpec, item: ObjectConfig, aligned: bool, position_m: Sequence[float]
) -> mujoco.MjsBody:
    """Adds an object's free body with its mass and inertia; arguments as for `add_object`."""
    body = spec.worldbody.add_body(name=OBJECT, pos=position_m)
    body.add_freejoint(name=OBJECT)
    _set_inertia(body, item, aligned)
    return body


def _mesh_pieces(item: ObjectConfig) -> list[Piece]:
    return [piece for piece in item.solid.pieces if piece.kind == "mesh"]


def _num_faces(item: ObjectConfig) -> int:
    return sum(len(piece.faces) for piece in _mesh_pieces(item))


def _is_diagonal(inertia: Array) -> bool:
    return np.abs(inertia - np.diag(np.diag(inertia))).max() < 1e-9 * np.trace(inertia)


def _set_inertia(body: mujoco.MjsBody, item: ObjectConfig, aligned: bool) -> None:
    unit = item.solid.unit_inertia_m2
    moments, axes = np.diag(unit), np.eye(3)
    if not aligned:
        moments, axes = np.linalg.eigh(unit)
        axes[:, 2] *= np.sign(np.linalg.det(axes))
        # takes the right-handed order of axes that is farthest from the frame: MuJoCo would treat
        # an object with principal axes along its frame as aligned
        orders = [np.roll(np.arange(3), shift) for shift in range(3)]
        order = min(orders, key=lambda order: np.trace(axes[:, order]))
        moments, axes = moments[order], axes[:, order]
    body.explicitinertial = True
    body.mass = item.total_mass_kg
    body.ipos = [0.0, 0.0, 0.0]
    body.iquat = _quaternion(axes)
    body.inertia = item.total_mass_kg * moments


def _quaternion(rotation: Array) -> Array:
    """[4] wxyz of a rotation [3, 3]."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    return quaternion


def add_piece(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, name: str, piece: Piece, mesh: str = ""
) -> mujoco.MjsGeom:
    """Adds one convex piece of an object as a geom.

    Args:
        spec: What to add a mesh to.
        body: What to add the geom to.
        name: Of the geom.
        piece: Its shape.
        mesh: Name of a mesh that the spec already has; "": a mesh of the geom's name is added.
    """
    geom = body.add_geom(
        name=name,
        type=GEOM_TYPES[piece.kind],
        pos=piece.position,
        quat=_quaternion(piece.rotation),
    )
    if piece.kind == "mesh":
        if not mesh:
            add_mesh(spec, name, piece.vertices, piece.faces)
        geom.meshname = mesh or name
    elif piece.kind in ("cylinder", "capsule"):
        geom.size = [piece.half_size[0], piece.half_size[2], 0.0]
    elif piece.kind == "sphere":
        geom.size = [piece.half_size[0], 0.0, 0.0]
    else:
        geom.size = piece.half_size
    return geom


def _add_hidden(body: mujoco.MjsBody, name: str) -> mujoco.MjsGeom:
    return body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[_HIDDEN_SIZE_M, 0.0, 0.0],
        rgba=[0.0, 0.0, 0.0, 0.0],
        group=_HIDDEN_GROUP,
    )


def add_mesh(spec: mujoco.MjSpec, name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Adds a convex mesh with vertices [V, 3] m and triangles [F, 3]."""
    spec.add_mesh(
        name=name,
        uservert=vertices.ravel(),
        userface=faces.ravel(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX,
    )


def _add_fillers(spec: mujoco.MjSpec, count: int, faces: int) -> None:
    """Adds `count` unused meshes with `faces` triangles in total, an even number."""
    for index in range(count):
        own = _LEAST_FACES if index < count - 1 else faces - _LEAST_FACES * (count - 1)
        corners = own // 2
        turn = 2.0 * np.pi * np.arange(corners) / corners
        ring = np.stack([np.cos(turn), np.sin(turn), np.zeros(corners)], axis=1)
        tips = [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]
        this, following = np.arange(corners), np.roll(np.arange(corners), -1)
        upper = np.stack([this, following, np.full(corners, corners)], axis=1)
        lower = np.stack([following, this, np.full(corners, corners + 1)], axis=1)
        add_mesh(spec, f"filler_{index}", np.vstack([ring, tips]), np.vstack([upper, lower]))
