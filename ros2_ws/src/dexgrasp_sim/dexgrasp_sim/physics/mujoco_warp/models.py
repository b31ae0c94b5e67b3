"""One MuJoCo model that holds any of the objects, and what differs between them.

MuJoCo Warp has one model for all environments, in which most numbers of a geom may differ between
environments, also the mesh it shows, but not its type. So the object's body has as many geoms of
each type as the object that needs most of that type, and an environment uses some of them.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.objects.pieces import Piece, PieceKind
from dexgrasp_sim.physics.contact_model import OBJECT_COLLISION
from dexgrasp_sim.physics.mujoco.models import contact_friction, scene_spec
from dexgrasp_sim.physics.mujoco.object_geoms import (
    GEOM_TYPES,
    OBJECT,
    add_body,
    add_mesh,
    add_piece,
    common_layout,
    slot_name,
)
from dexgrasp_sim.physics.mujoco_warp.looks import add_appearance
from dexgrasp_sim.physics.scene import Scene

NO_MESH = -1
"""`geom_dataid` of a mesh geom that an environment does not use."""
_NEVER_M = -1000.0
"""Contact margin of geoms that an environment does not use: no distance is below it."""
_ABSENT_SIZE_M = 0.001


@dataclass(frozen=True)
class Slots:
    """The geoms of the object's body.

    Attributes:
        kinds: Type of each geom.
        aligned: Whether the objects' frames are principal axes of inertia.
    """

    kinds: tuple[PieceKind, ...]
    aligned: bool

    def assign(self, pieces: Sequence[Piece]) -> list[Piece | None]:
        """The piece that each geom shows, None where it shows none."""
        left = list(pieces)
        shown: list[Piece | None] = []
        for kind in self.kinds:
            piece = next((piece for piece in left if piece.kind == kind), None)
            if piece is not None:
                left.remove(piece)
            shown.append(piece)
        return shown


@dataclass(frozen=True)
class ObjectArrays:
    """What differs between M objects, as in `mujoco.MjModel`; S geoms of the object's body.

    Attributes:
        geom_dataid: [M, S] int32, index of the mesh in the common model, or `NO_MESH`.
        geom_size: [M, S, 3].
        geom_pos: [M, S, 3].
        geom_quat: [M, S, 4].
        geom_aabb: [M, S, 6].
        geom_rbound: [M, S].
        geom_margin: [M, S].
        geom_rgba: [M, S, 4]; alpha is 0 where the object does not use the geom.
        body_mass: [M].
        body_inertia: [M, 3].
        body_ipos: [M, 3].
        body_iquat: [M, 4].
        body_invweight0: [M, 2].
        dof_invweight0: [M, 6].
    """

    geom_dataid: np.ndarray
    geom_size: np.ndarray
    geom_pos: np.ndarray
    geom_quat: np.ndarray
    geom_aabb: np.ndarray
    geom_rbound: np.ndarray
    geom_margin: np.ndarray
    geom_rgba: np.ndarray
    body_mass: np.ndarray
    body_inertia: np.ndarray
    body_ipos: np.ndarray
    body_iquat: np.ndarray
    body_invweight0: np.ndarray
    dof_invweight0: np.ndarray


def common_slots(objects: Sequence[ObjectConfig]) -> Slots:
    """The fewest geoms with which each of the objects can be shown."""
    kinds: list[PieceKind] = []
    for kind in GEOM_TYPES:
        most = max(sum(p.kind == kind for p in item.solid.pieces) for item in objects)
        kinds += [kind] * most  # type: ignore[list-item]
    return Slots(tuple(kinds), common_layout(objects).aligned)


def build_common_model(scene: Scene, objects: Sequence[ObjectConfig]) -> mujoco.MjModel:
    """The scene with an object's body that has all geoms, and with the meshes of M objects.

    Its layout depends on the scene only, so that all workers of a run compile the same kernels.

    Args:
        scene: What to simulate.
        objects: Those that environments of this worker have.
    """
    slots, friction = common_slots(scene.objects), contact_friction(scene.physics)
    spec = scene_spec(scene)
    body = add_body(spec, objects[0], slots.aligned, scene.start_position_m)
    meshes = [piece for item in objects for piece in item.solid.pieces if piece.kind == "mesh"]
    if "mesh" in slots.kinds and not meshes:  # a worker without a mesh, in a run with some
        meshes = [p for item in scene.objects for p in item.solid.pieces if p.kind == "mesh"][:1]
    for index, piece in enumerate(meshes):
        add_mesh(spec, _mesh_name(index), piece.vertices, piece.faces)
    for slot, kind in enumerate(slots.kinds):
        shown = meshes[0] if kind == "mesh" else Piece(kind, np.full(3, _ABSENT_SIZE_M))
        geom = add_piece(spec, body, slot_name(slot), shown, _mesh_name(0))
        geom.contype, geom.conaffinity = OBJECT_COLLISION.contype, OBJECT_COLLISION.conaffinity
        geom.friction, geom.condim, geom.mass = friction, 4, 0.0
    add_appearance(spec, scene)
    return spec.compile()


def object_arrays(scene: Scene, objects: Sequence[ObjectConfig]) -> ObjectArrays:
    """What differs between M objects; arguments as for `build_common_model`."""
    slots = common_slots(scene.objects)
    rows: list[dict[str, np.ndarray]] = []
    first_mesh = 0
    for item in objects:
        shown = slots.assign(item.solid.pieces)
        row = _arrays_of(_object_alone(item, slots, shown))
        is_mesh = np.array([piece is not None and piece.kind == "mesh" for piece in shown])
        # meshes are numbered in the order of the pieces, and so are the geoms that show them
        row["geom_dataid"] = np.full(len(shown), NO_MESH)
        row["geom_dataid"][is_mesh] = first_mesh + np.arange(is_mesh.sum())
        first_mesh += int(is_mesh.sum())
        is_absent = np.array([piece is None for piece in shown])
        row["geom_margin"] = np.where(is_absent, _NEVER_M, row["geom_margin"])
        row["geom_rgba"] = np.where(is_absent[:, None], 0.0, [*item.rgb, 1.0])
        rows.append(row)
    return ObjectArrays(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})


def with_camera(model: mujoco.MjModel, fovy_deg: float) -> mujoco.MjModel:
    """A copy of the model whose cameras have a vertical field of view."""
    changed = copy.copy(model)
    changed.cam_fovy[:] = fovy_deg
    return changed


def _object_alone(item: ObjectConfig, slots: Slots, shown: list[Piece | None]) -> mujoco.MjModel:
    """A model of one object only; spheres stand for the geoms that it does not use."""
    spec = mujoco.MjSpec()
    body = add_body(spec, item, slots.aligned, (0.0, 0.0, 0.0))
    for slot, piece in enumerate(shown):
        absent = Piece("sphere", np.full(3, _ABSENT_SIZE_M))
        add_piece(spec, body, slot_name(slot), piece or absent).mass = 0.0
    return spec.compile()


def _arrays_of(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    geoms = ("size", "pos", "quat", "aabb", "rbound", "margin")
    row = {f"geom_{name}": getattr(model, f"geom_{name}").copy() for name in geoms}
    bodies = ("mass", "inertia", "ipos", "iquat", "invweight0")
    body = model.body(OBJECT).id
    row |= {f"body_{name}": getattr(model, f"body_{name}")[body].copy() for name in bodies}
    return row | {"dof_invweight0": model.dof_invweight0.copy()}


def _mesh_name(index: int) -> str:
    return f"mesh_{index}"
