"""The objects to grasp: primitives, convex meshes, unions of primitives, mesh files."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic.dataclasses import dataclass
from scipy.spatial import QhullError
from scipy.spatial.transform import Rotation

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.objects.limits import check_body, check_length
from dexgrasp_sim.objects.pieces import Array, Piece, convex_mesh, superquadric_points
from dexgrasp_sim.objects.solids import Solid, unite
from dexgrasp_sim.yaml_file import absolute_path

Primitive = Literal["box", "cylinder", "sphere", "capsule", "ellipsoid"]
Shape = Literal[
    "box",
    "cylinder",
    "sphere",
    "capsule",
    "ellipsoid",
    "superquadric",
    "hull",
    "compound",
    "mesh",
]
SHAPES: tuple[Shape, ...] = Shape.__args__  # type: ignore[attr-defined]

SHAPE_CLASSES = ("box", "cylinder", "sphere", "capsule", "ellipsoid", "convex", "compound")
"""Shape classes in the `state` observation: a primitive's name, `convex` for other bodies of one
piece, `compound` for bodies of several pieces."""

Vector3 = tuple[float, float, float]
Length = Annotated[float, Field(gt=0.0, le=0.5), AfterValidator(check_length)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Exponent = Annotated[float, Field(ge=0.1, le=2.0)]

_EXTENTS_NEEDED = {
    "box": 3,
    "cylinder": 2,
    "sphere": 1,
    "capsule": 2,
    "ellipsoid": 3,
    "superquadric": 3,
}
_OWN_FIELD = {
    "superquadric": "exponents",
    "hull": "points_m",
    "compound": "parts",
    "mesh": "path",
}
_FEWEST_POINTS = 4
_UPRIGHT = np.eye(3)


@dataclass(frozen=True, config=STRICT)
class PartConfig:
    """One primitive of a compound, in a frame that all parts share.

    Attributes:
        shape: box, cylinder, sphere, capsule or ellipsoid, as of objects.
        size_m: Full extents, as of objects.
        position_m: Its centre.
        rpy_rad: Its orientation: roll, pitch, yaw about the fixed axes, as in a URDF.
    """

    shape: Primitive
    size_m: tuple[Length, ...]
    position_m: Vector3 = (0.0, 0.0, 0.0)
    rpy_rad: Vector3 = (0.0, 0.0, 0.0)

    @model_validator(mode="after")
    def _check(self) -> "PartConfig":
        _check_size(self.shape, self.size_m)
        return self


@dataclass(frozen=True, config=STRICT)
class ObjectConfig:
    """One object. Its frame is at its centre of mass, z up at the start.

    Attributes:
        name: Unique name in the run; per-object figures use it.
        shape: box, cylinder (axis along z), sphere, capsule (axis along x: it lies), ellipsoid,
            superquadric, hull (convex hull of `points_m`), compound (union of `parts`) or mesh
            (the file `path`).
        size_m: Full extents: box, ellipsoid and superquadric (x, y, z), cylinder (diameter,
            height), sphere (diameter), capsule (diameter, length over all); none for the others.
        mass_kg: Mass; none for `density_kg_m3` times the volume.
        rgb: Colour in images, 0 to 1.
        density_kg_m3: Uniform density; the default is DextrAH's.
        exponents: Of a superquadric: profile along z, outline seen along z. 1 is round, 0.1 nearly
            square, 2 pointed.
        points_m: Of a hull; any origin.
        parts: Of a compound.
        path: Of a mesh: OBJ or STL, see `objects/meshes.py` for what is allowed. A relative path
            counts from the config file that holds it, one on the command line from the working
            folder.
        scale: Of a mesh: metres per unit of the file.
        hull: Of a mesh: its convex hull is used, as for scans, which are not quite convex or have
            holes.
        rpy_rad: Of a mesh: rotation of the file's axes after which z points up.
    """

    name: str
    shape: Shape
    size_m: tuple[Length, ...] = ()
    mass_kg: Annotated[float, Field(gt=0.0, le=5.0)] | None = None
    rgb: tuple[Fraction, Fraction, Fraction] = (0.80, 0.22, 0.18)
    density_kg_m3: Annotated[float, Field(ge=10.0, le=20000.0)] = 500.0
    exponents: tuple[Exponent, Exponent] | None = None
    points_m: tuple[Vector3, ...] = ()
    parts: tuple[PartConfig, ...] = ()
    path: Path | None = None
    scale: Annotated[float, Field(gt=0.0)] = 1.0
    hull: bool = False
    rpy_rad: Vector3 = (0.0, 0.0, 0.0)

    @field_validator("path", mode="before")
    @classmethod
    def _make_absolute(cls, path: Any, info: ValidationInfo) -> Any:
        if not isinstance(path, str | Path):
            return path
        absolute = absolute_path(path)  # workers may run in another folder
        return str(absolute) if info.mode == "json" else absolute  # as pydantic wants it there

    @model_validator(mode="after")
    def _check(self) -> "ObjectConfig":
        _check_size(self.shape, self.size_m)
        own = _OWN_FIELD.get(self.shape)
        if own and not getattr(self, own):
            raise ValueError(f"a {self.shape} needs `{own}`")
        for shape, field in _OWN_FIELD.items():
            if field != own and getattr(self, field):
                raise ValueError(f"`{field}` is for a {shape}, not for a {self.shape}; remove it")
        if self.shape != "mesh" and (self.scale != 1.0 or any(self.rpy_rad) or self.hull):
            raise ValueError(
                f"`scale`, `hull` and `rpy_rad` are for a mesh, not for a {self.shape}"
            )
        if self.shape == "hull" and not _spans_space(self.points_m):
            raise ValueError(
                f"`points_m` needs at least {_FEWEST_POINTS} points that are not in one plane"
            )
        if self.shape != "mesh":  # a robot that uses a policy may not have the file
            check_body(_pieces(self))
        return self

    @property
    def solid(self) -> Solid:
        """Its geometry; raises ConfigError if a mesh file is refused."""
        return _solid(self)

    @property
    def extents_m(self) -> tuple[float, float, float]:
        """Full extents along the object's own x, y and z."""
        return self.solid.extents_m

    @property
    def total_mass_kg(self) -> float:
        """`mass_kg`, or what the density gives."""
        return self.mass_kg or self.density_kg_m3 * self.solid.volume_m3

    @property
    def shape_class(self) -> str:
        """One of `SHAPE_CLASSES`."""
        if self.shape in Primitive.__args__:  # type: ignore[attr-defined]
            return self.shape
        return "convex" if len(self.solid.pieces) == 1 else "compound"


def _check_size(shape: Shape, size_m: tuple[float, ...]) -> None:
    needed = _EXTENTS_NEEDED.get(shape, 0)
    if len(size_m) != needed:
        raise ValueError(f"a {shape} needs {needed} numbers in `size_m`")
    if shape == "capsule" and size_m[1] <= size_m[0]:
        raise ValueError(f"a capsule's length {size_m[1]} must exceed its diameter {size_m[0]}")


def _spans_space(points_m: tuple[Vector3, ...]) -> bool:
    if len(points_m) < _FEWEST_POINTS:
        return False
    try:
        convex_mesh(np.array(points_m))
    except QhullError:
        return False
    return True


@functools.cache
def _solid(item: ObjectConfig) -> Solid:
    return unite(_pieces(item))


def _pieces(item: ObjectConfig) -> Sequence[Piece]:
    if item.shape == "mesh":
        # imported only by runs with mesh files
        from dexgrasp_sim.objects.meshes import load_pieces

        assert item.path is not None
        return load_pieces(item.path, item.scale, _rotation(item.rpy_rad), item.hull)
    if item.shape == "compound":
        return tuple(
            _primitive(part.shape, part.size_m, part.position_m, _rotation(part.rpy_rad))
            for part in item.parts
        )
    if item.shape == "hull":
        return (convex_mesh(np.array(item.points_m)),)
    if item.shape == "superquadric":
        x, y, z = item.size_m
        assert item.exponents is not None
        return (convex_mesh(superquadric_points((x, y, z), item.exponents)),)
    return (_primitive(item.shape, item.size_m, (0.0, 0.0, 0.0), _UPRIGHT),)


def _primitive(
    shape: Primitive, size_m: tuple[float, ...], position_m: Vector3, rotation: Array
) -> Piece:
    half = [extent / 2 for extent in size_m]
    if shape == "cylinder":
        half = [half[0], half[0], half[1]]
    elif shape == "sphere":
        half = half * 3
    elif shape == "capsule":
        half = [half[0], half[0], half[1] - half[0]]
        rotation = rotation @ _rotation((0.0, np.pi / 2, 0.0))  # z of the piece along x
    return Piece(shape, np.array(half), np.array(position_m), rotation)


def _rotation(rpy_rad: Vector3) -> Array:
    return Rotation.from_euler("xyz", rpy_rad).as_matrix()


LAPTOP_OBJECTS = (
    ObjectConfig("box", "box", (0.06, 0.06, 0.10), mass_kg=0.1, rgb=(0.80, 0.22, 0.18)),
    ObjectConfig("cylinder", "cylinder", (0.06, 0.10), mass_kg=0.1, rgb=(0.93, 0.69, 0.13)),
    ObjectConfig("sphere", "sphere", (0.07,), mass_kg=0.1, rgb=(0.20, 0.62, 0.36)),
)
"""Objects of the `laptop` preset: graspable open-loop under the physics in use."""
