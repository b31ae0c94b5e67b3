"""The arrays that the renderer's kernels read and write, and their construction from models."""

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from dexgrasp_sim.vision.camera import CameraConfig

PLANE = int(mujoco.mjtGeom.mjGEOM_PLANE)
SPHERE = int(mujoco.mjtGeom.mjGEOM_SPHERE)
CAPSULE = int(mujoco.mjtGeom.mjGEOM_CAPSULE)
ELLIPSOID = int(mujoco.mjtGeom.mjGEOM_ELLIPSOID)
CYLINDER = int(mujoco.mjtGeom.mjGEOM_CYLINDER)
BOX = int(mujoco.mjtGeom.mjGEOM_BOX)
MESH = int(mujoco.mjtGeom.mjGEOM_MESH)
HIDDEN = -1

PLAIN, CHECKER, NOISE = 0, 1, 2
"""Values of `Look.pattern`."""

NO_HIT = 2.0**100
"""Depth of a pixel where no geom is seen; exact in float32 and float64."""

AMBIENT_RANGE = (0.1, 0.9)
"""Within which random ambient light stays."""

_DRAWABLE = (PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH)
_FIRST_HIDDEN_GROUP = 3
"""Geoms of this group and above are not drawn, as in MuJoCo's viewer: collision shapes."""
_DEFAULT_RGBA = (0.5, 0.5, 0.5, 1.0)
"""MuJoCo's colour of a geom without one; then the colour of its material is used."""


class Geometry(NamedTuple):
    """The shapes of G geoms in M models, each in its own frame, in m.

    Attributes:
        kind: [M, G] int32, value of mujoco.mjtGeom, or HIDDEN.
        size: [M, G, 3] float64, half sizes as MuJoCo defines them for the type; for a sphere the
            radius in all three elements.
        box_center: [M, G, 3] float64, centre of the bounding box.
        box_extent: [M, G, 3] float64, half sizes of the bounding box.
        first_face: [M, G] int32, a mesh's first triangle in `triangles`.
        last_face: [M, G] int32, one beyond a mesh's last triangle.
        triangles: [F, 3, 3] float64, corners of the triangles of all meshes.
        normals: [F, 3] float64, their outward unit normals.
    """

    kind: np.ndarray
    size: np.ndarray
    box_center: np.ndarray
    box_extent: np.ndarray
    first_face: np.ndarray
    last_face: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray


class Lens(NamedTuple):
    """Intrinsics in pixels; whole numbers are pixel centres."""

    focal: float
    center_u: float
    center_v: float


class Poses(NamedTuple):
    """Poses in n environments; float64, base frame, m.

    Attributes:
        geom_position: [n, G, 3].
        geom_rotation: [n, G, 3, 3], the geoms' axes as columns.
        camera_position: [n, 3].
        camera_axes: [n, 3, 3], the camera's right, down and forward axis, as rows.
    """

    geom_position: np.ndarray
    geom_rotation: np.ndarray
    camera_position: np.ndarray
    camera_axes: np.ndarray


class Frames(NamedTuple):
    """Buffers that `draw` fills for n environments.

    Attributes:
        depth: [n, H, W] float32 m, NO_HIT where nothing is seen.
        geom: [n, H, W] int16, the geom seen, -1 where none is.
        face: [n, H, W] int32, the triangle seen, valid where the geom is a mesh.
        camera: [n, G, 4, 3] float64, in the frame of each geom that is not hidden: the camera's
            right, down and forward axis and its position.
    """

    depth: np.ndarray
    geom: np.ndarray
    face: np.ndarray
    camera: np.ndarray


class Canvas(NamedTuple):
    """One environment's images in `Frames`."""

    depth: np.ndarray
    geom: np.ndarray
    face: np.ndarray


class Look(NamedTuple):
    """The appearance of n environments; colours are RGB from 0 to 1.

    Attributes:
        color: [n, G, 3] float32, a geom's colour.
        accent: [n, G, 3] float32, second colour of a pattern.
        pattern: [n, G] int8, PLAIN, CHECKER (cubes of both colours) or NOISE (a cloudy mixture).
        cell_m: [n, G] float32, size of a pattern's cells.
        light_direction: [n, 3] float32, in which the light travels, base frame, unit length.
        ambient: [n] float32, ambient light as a fraction of full brightness.
        background: [n, 3] float32, colour where no geom is seen.
    """

    color: np.ndarray
    accent: np.ndarray
    pattern: np.ndarray
    cell_m: np.ndarray
    light_direction: np.ndarray
    ambient: np.ndarray
    background: np.ndarray


def collect_geometry(models: Sequence[mujoco.MjModel]) -> Geometry:
    """The shapes of all models' geoms.

    Raises:
        ValueError: The models' geoms differ in number or name, or a visible geom is of a type
            that cannot be drawn.
    """
    for index, model in enumerate(models):
        if _geom_names(model) != _geom_names(models[0]):
            raise ValueError(
                f"model {index} has geoms {_geom_names(model)} and model 0 has "
                f"{_geom_names(models[0])}; give all models the same geoms in the same order"
            )
    triangles: list[np.ndarray] = []
    first_face: dict[bytes, int] = {}  # models often share meshes; each is stored once
    faces = np.zeros((2, len(models), models[0].ngeom), dtype=np.int32)
    for index, model in enumerate(models):
        for geom in np.flatnonzero(_kind(model) == MESH):
            corners = _mesh_triangles(model, model.geom_dataid[geom])
            start = first_face.setdefault(corners.tobytes(), sum(map(len, triangles)))
            if start == sum(map(len, triangles)):
                triangles.append(corners)
            faces[:, index, geom] = start, start + len(corners)
    corners = np.concatenate([*triangles, np.zeros((1, 3, 3))])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return Geometry(
        kind=np.array([_kind(model) for model in models]),
        size=np.array([_size(model) for model in models]),
        box_center=np.array([model.geom_aabb[:, :3] for model in models]),
        box_extent=np.array([model.geom_aabb[:, 3:] for model in models]),
        first_face=faces[0],
        last_face=faces[1],
        triangles=corners,
        normals=normals / np.maximum(lengths, 1e-30),
    )


def default_look(
    models: Sequence[mujoco.MjModel], model_of_env: np.ndarray, camera: CameraConfig
) -> Look:
    """Colours of the models, with textures on surroundings and free objects but not on the robot.

    The light comes from above, from behind the camera and to its left.
    """
    count = len(model_of_env)
    color = np.array([_rgba(model)[:, :3] for model in models])[model_of_env]
    pattern = np.array([_pattern(model) for model in models])[model_of_env]
    cell_m = np.array([_cell_m(model) for model in models])[model_of_env]
    right, _, backward = camera.rotation.T
    light = 0.3 * right - 0.5 * backward - np.array([0.0, 0.0, 0.9])
    return Look(
        color=color,
        accent=0.72 * color,
        pattern=pattern,
        cell_m=cell_m,
        light_direction=np.tile((light / np.linalg.norm(light)).astype(np.float32), (count, 1)),
        ambient=np.full(count, 0.45, np.float32),
        background=np.tile(np.array([0.75, 0.82, 0.88], np.float32), (count, 1)),
    )


def _geom_names(model: mujoco.MjModel) -> list[str]:
    return [model.geom(geom).name for geom in range(model.ngeom)]


def _kind(model: mujoco.MjModel) -> np.ndarray:
    """[G] int32: the geoms' types, HIDDEN for invisible ones."""
    hidden = (model.geom_group >= _FIRST_HIDDEN_GROUP) | (_rgba(model)[:, 3] == 0)
    kind = np.where(hidden, HIDDEN, model.geom_type).astype(np.int32)
    for geom in np.flatnonzero(~hidden & ~np.isin(kind, _DRAWABLE)):
        raise ValueError(
            f"geom {model.geom(geom).name!r} is of type {mujoco.mjtGeom(kind[geom]).name}; only "
            f"{[mujoco.mjtGeom(number).name for number in _DRAWABLE]} can be drawn; "
            f"change it or hide it in group {_FIRST_HIDDEN_GROUP}"
        )
    return kind


def _size(model: mujoco.MjModel) -> np.ndarray:
    """[G, 3] float64: MuJoCo's sizes; a sphere's radius in all three elements."""
    is_sphere = (model.geom_type == SPHERE)[:, None]
    return np.where(is_sphere, model.geom_size[:, :1], model.geom_size)


def _mesh_triangles(model: mujoco.MjModel, mesh: int) -> np.ndarray:
    """[F, 3, 3] float64 m: the triangles' corners in the geom's frame."""
    first_vertex, first_face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
    vertices = model.mesh_vert[first_vertex : first_vertex + model.mesh_vertnum[mesh]]
    faces = model.mesh_face[first_face : first_face + model.mesh_facenum[mesh]]
    return vertices[faces].astype(np.float64)


def _rgba(model: mujoco.MjModel) -> np.ndarray:
    """[G, 4] float32: colours of the geoms as MuJoCo's viewer shows them."""
    rgba = np.array(model.geom_rgba)
    from_material = (model.geom_matid >= 0) & (rgba == np.array(_DEFAULT_RGBA, np.float32)).all(
        axis=1
    )
    rgba[from_material] = model.mat_rgba[model.geom_matid[from_material]]
    return rgba


def _pattern(model: mujoco.MjModel) -> np.ndarray:
    """[G] int8: floors and free objects checkered, other surroundings cloudy, the rest plain."""
    free_bodies = model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
    pattern = np.where(np.isin(model.geom_bodyid, free_bodies), CHECKER, PLAIN)
    pattern[model.geom_bodyid == 0] = NOISE
    pattern[model.geom_type == PLANE] = CHECKER
    return pattern.astype(np.int8)


def _cell_m(model: mujoco.MjModel) -> np.ndarray:
    """[G] float32 m: size of a pattern's cells, 0.25 m on floors and 25 mm elsewhere."""
    return np.where(model.geom_type == PLANE, 0.25, 0.025).astype(np.float32)
