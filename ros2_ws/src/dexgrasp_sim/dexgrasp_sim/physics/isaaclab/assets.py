"""USD files of the scene: the robot from its URDF, the objects, table and ground."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import urdf_usd_converter
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, Vt

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.objects.pieces import Piece, PieceKind, convex_mesh
from dexgrasp_sim.physics.contact_model import (
    OBJECT_COLLISION,
    ROBOT_COLLISION,
    TABLE_COLLISION,
    CollisionBits,
)
from dexgrasp_sim.physics.scene import GROUND_RGBA, TABLE_RGBA, Scene
from dexgrasp_sim.robot.robot import ActuatorGains, Robot
from dexgrasp_sim.robot.rotation import matrix_to_quaternion

_DIMENSIONS = 4
"""Contacts have torsional friction, as in the other backends."""
_LIMIT_REFERENCE = Vt.DoubleArray([0.02, 1.0])
"""MuJoCo's default softness of joint limits; Newton's own is far softer for the fingers."""
_CORNERS = 256
"""Of a mesh in place of a round piece; a sphere of 7 cm then rests 0.2 mm too low at most."""
_HIDDEN_SCALE = 0.05
_GROUND_M = (6.0, 6.0, 0.1)
"""Edge lengths of the ground, whose top is at z = 0."""


def write_robot(robot: Robot, gains: ActuatorGains, folder: Path) -> Path:
    """Converts the robot's URDF and adds what a URDF does not say.

    The converter authors no drives, without which PhysX ignores position targets. Gravity does
    not act on the robot: the real arm and hand compensate their own weight.

    Args:
        robot: Its file and joint names.
        gains: Of the drives.
        folder: Where to write.
    """
    asset = urdf_usd_converter.Converter(layer_structure=False, scene=False).convert(
        str(robot.urdf_path), str(folder)
    )
    stage = Usd.Stage.Open(asset.path)
    for prim in stage.Traverse():
        if prim.HasAPI(UsdPhysics.ArticulationRootAPI):
            _author(prim, "newton:selfCollisionEnabled", Sdf.ValueTypeNames.Bool, False)
        if prim.HasAPI(UsdPhysics.RigidBodyAPI):
            _author(prim, "mjc:gravcomp", Sdf.ValueTypeNames.Float, 1.0)
        if prim.HasAPI(UsdPhysics.CollisionAPI):
            _author_contacts(prim, ROBOT_COLLISION)
        if prim.IsA(UsdPhysics.RevoluteJoint):
            _author_drive(prim, robot, gains)
            _author(prim, "mjc:solreflimit", Sdf.ValueTypeNames.DoubleArray, _LIMIT_REFERENCE)
    stage.GetRootLayer().Save()
    return Path(asset.path)


def _author_drive(prim: Usd.Prim, robot: Robot, gains: ActuatorGains) -> None:
    index = robot.joint_names.index(prim.GetName())
    drive = UsdPhysics.DriveAPI.Apply(prim, "angular")
    per_degree = float(np.deg2rad(1.0))  # USD measures angles of drives in degrees
    drive.CreateTypeAttr("force")
    drive.CreateStiffnessAttr(gains.stiffness[index] * per_degree)
    drive.CreateDampingAttr(gains.damping[index] * per_degree)
    drive.CreateMaxForceAttr(robot.joints[prim.GetName()].effort)
    drive.CreateTargetPositionAttr(0.0)


def common_kinds(objects: Sequence[ObjectConfig]) -> tuple[PieceKind, ...]:
    """The kinds of the pieces that all objects get.

    Newton's MuJoCo solver wants shapes of the same kinds in all environments. Where objects differ
    in the kind of a piece, it becomes a convex mesh, as do ellipsoids, which USD does not have.
    """
    most = max(len(item.solid.pieces) for item in objects)
    kinds: list[PieceKind] = []
    for index in range(most):
        shown = {
            item.solid.pieces[index].kind if index < len(item.solid.pieces) else "mesh"
            for item in objects
        }
        is_common = len(shown) == 1 and shown != {"ellipsoid"}
        kinds.append(shown.pop() if is_common else "mesh")  # type: ignore[arg-type]
    return tuple(kinds)


def write_object(item: ObjectConfig, kinds: Sequence[PieceKind], path: Path) -> Path:
    """Writes an object as a rigid body, its frame at the centre of mass.

    Args:
        item: The object.
        kinds: See `common_kinds`. What the object does not need lies within its first piece.
        path: Of the file.
    """
    stage, root = _new_stage(path)
    UsdPhysics.RigidBodyAPI.Apply(root)
    mass = UsdPhysics.MassAPI.Apply(root)
    moments, axes = np.linalg.eigh(item.solid.unit_inertia_m2)
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    mass.CreateMassAttr(item.total_mass_kg)
    mass.CreateCenterOfMassAttr(Gf.Vec3f(0.0))
    mass.CreateDiagonalInertiaAttr(Gf.Vec3f(*(item.total_mass_kg * moments).tolist()))
    mass.CreatePrincipalAxesAttr(_quaternion(axes))
    pieces = item.solid.pieces
    for index, kind in enumerate(kinds):
        piece = pieces[index] if index < len(pieces) else _inside(pieces[0])
        if piece.kind != kind:
            piece = _as_mesh(piece)
        shape = _add_piece(stage, f"/Root/piece_{index}", piece)
        _place(shape, piece)
        _make_solid(shape, item.rgb, OBJECT_COLLISION)
    stage.GetRootLayer().Save()
    return path


def write_surroundings(scene: Scene, path: Path) -> Path:
    """Writes table and ground as fixed boxes."""
    stage, _ = _new_stage(path)
    ground = np.array([0.0, 0.0, -_GROUND_M[2] / 2])
    boxes = {
        "ground": (ground, np.array(_GROUND_M), GROUND_RGBA),
        "table": (np.array(scene.table.center_m), np.array(scene.table.size_m), TABLE_RGBA),
    }
    for name, (center, size, rgba) in boxes.items():
        box = Piece("box", size / 2, center)
        shape = _add_piece(stage, f"/Root/{name}", box)
        _place(shape, box)
        _make_solid(shape, rgba[:3], TABLE_COLLISION)
    stage.GetRootLayer().Save()
    return path


def _new_stage(path: Path) -> tuple[Usd.Stage, Usd.Prim]:
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/Root").GetPrim()
    stage.SetDefaultPrim(root)
    return stage, root


def _add_piece(stage: Usd.Stage, path: str, piece: Piece) -> UsdGeom.Gprim:
    radius, _, half_length = piece.half_size.tolist()
    if piece.kind == "box":
        shape = UsdGeom.Cube.Define(stage, path)
        shape.CreateSizeAttr(1.0)
        return shape
    if piece.kind == "sphere":
        shape = UsdGeom.Sphere.Define(stage, path)
        shape.CreateRadiusAttr(radius)
        return shape
    if piece.kind in ("cylinder", "capsule"):
        kind = UsdGeom.Cylinder if piece.kind == "cylinder" else UsdGeom.Capsule
        shape = kind.Define(stage, path)
        shape.CreateAxisAttr(UsdGeom.Tokens.z)
        shape.CreateRadiusAttr(radius)
        shape.CreateHeightAttr(2.0 * half_length)
        return shape
    return _add_mesh(stage, path, piece)


def _add_mesh(stage: Usd.Stage, path: str, piece: Piece) -> UsdGeom.Gprim:
    shape = UsdGeom.Mesh.Define(stage, path)
    shape.CreatePointsAttr([Gf.Vec3f(*point) for point in piece.vertices.tolist()])
    shape.CreateFaceVertexCountsAttr([3] * len(piece.faces))
    shape.CreateFaceVertexIndicesAttr(piece.faces.ravel().tolist())
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    collision = UsdPhysics.MeshCollisionAPI.Apply(shape.GetPrim())
    collision.CreateApproximationAttr(UsdPhysics.Tokens.convexHull)
    # else Newton takes a hull of 64 corners, which lies within
    shape.GetPrim().AddAppliedSchema("NewtonMeshCollisionAPI")
    _author(shape.GetPrim(), "newton:maxHullVertices", Sdf.ValueTypeNames.Int, len(piece.vertices))
    return shape


def _as_mesh(piece: Piece) -> Piece:
    """A convex mesh of nearly the shape of a piece; a round one of the same volume."""
    corners = piece.triangles(_CORNERS).reshape(-1, 3)
    mesh = convex_mesh(corners, _CORNERS)
    if piece.kind in ("sphere", "ellipsoid", "capsule"):
        growth = (piece.moments().volume / mesh.moments().volume) ** (1 / 3)
        mesh = convex_mesh(piece.position + growth * (corners - piece.position), _CORNERS)
    return mesh


def _inside(piece: Piece) -> Piece:
    """A mesh that lies within a piece, so that it neither touches nor shows anything."""
    corners = piece.triangles().reshape(-1, 3)
    center = corners.mean(axis=0)
    return convex_mesh(center + _HIDDEN_SCALE * (corners - center))


def _place(shape: UsdGeom.Gprim, piece: Piece) -> None:
    shape.AddTranslateOp().Set(Gf.Vec3d(*piece.position.tolist()))
    shape.AddOrientOp().Set(_quaternion(piece.rotation))
    if piece.kind == "box":  # USD's box is a cube
        shape.AddScaleOp().Set(Gf.Vec3f(*(2.0 * piece.half_size).tolist()))


def _make_solid(shape: UsdGeom.Gprim, rgb: Iterable[float], bits: CollisionBits) -> None:
    shape.CreateDisplayColorAttr([Gf.Vec3f(*rgb)])
    UsdPhysics.CollisionAPI.Apply(shape.GetPrim())
    _author_contacts(shape.GetPrim(), bits)


def _author_contacts(prim: Usd.Prim, bits: CollisionBits) -> None:
    _author(prim, "mjc:contype", Sdf.ValueTypeNames.Int, bits.contype)
    _author(prim, "mjc:conaffinity", Sdf.ValueTypeNames.Int, bits.conaffinity)
    _author(prim, "mjc:condim", Sdf.ValueTypeNames.Int, _DIMENSIONS)


def _author(prim: Usd.Prim, name: str, kind: Sdf.ValueTypeName, value: object) -> None:
    prim.CreateAttribute(name, kind, True).Set(value)


def _quaternion(rotation: np.ndarray) -> Gf.Quatf:
    """USD's quaternion, real part first, of a rotation [3, 3]."""
    return Gf.Quatf(*matrix_to_quaternion(torch.from_numpy(rotation.copy())).tolist())
