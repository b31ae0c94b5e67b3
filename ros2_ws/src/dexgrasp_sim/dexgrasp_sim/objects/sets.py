"""Named sets of objects that a config can ask for."""

import functools
from collections.abc import Callable, Sequence

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.objects.config import LAPTOP_OBJECTS, ObjectConfig
from dexgrasp_sim.objects.procedural import generate

Objects = tuple[ObjectConfig, ...]

_BOX_RGB = (0.27, 0.45, 0.77)
_CYLINDER_RGB = (0.85, 0.47, 0.20)
# DextrAH's primitives, m: width, depth and height; a cylinder's width is its diameter
_PRIMITIVE_SIZES = (
    ("flat", 0.12, 0.05),
    ("tall", 0.05, 0.12),
    ("cube", 0.08, 0.08),
    ("small_flat", 0.06, 0.025),
    ("small_tall", 0.025, 0.06),
    ("small_cube", 0.04, 0.04),
)

PRIMITIVES: Objects = tuple(
    [
        ObjectConfig(f"{name}_box", "box", (width, width, height), rgb=_BOX_RGB)
        for name, width, height in _PRIMITIVE_SIZES
    ]
    + [
        ObjectConfig(f"{name}_cylinder", "cylinder", (width, height), rgb=_CYLINDER_RGB)
        for name, width, height in _PRIMITIVE_SIZES
    ]
)
"""The 12 primitives on which DextrAH and the paper train, 500 kg/m³."""


@functools.cache
def train_objects() -> Objects:
    """152 objects, as many as the paper's: the primitives and 140 generated ones."""
    return PRIMITIVES + generate("train")


@functools.cache
def held_out_objects() -> Objects:
    """40 generated objects for evaluation, 10 of them of kinds that are not in `train`."""
    return generate("held_out")


OBJECT_SETS: dict[str, Callable[[], Objects]] = {
    "laptop": lambda: LAPTOP_OBJECTS,
    "primitives": lambda: PRIMITIVES,
    "train": train_objects,
    "held_out": held_out_objects,
}


def object_set(name: str) -> Objects:
    """The objects of a named set; raises ValueError if there is none of this name."""
    if name not in OBJECT_SETS:
        raise ValueError(f"no such set; give one of {', '.join(OBJECT_SETS)} or a list of objects")
    return OBJECT_SETS[name]()


def set_name(objects: Sequence[ObjectConfig]) -> str | None:
    """The name of the set that holds exactly these objects in this order, if any."""
    for name, members in OBJECT_SETS.items():
        if tuple(objects) == members():
            return name
    return None


def check_mesh_files(objects: Sequence[ObjectConfig]) -> None:
    """Reads the mesh files of the objects; raises ConfigError if one is refused."""
    for item in objects:
        if item.shape == "mesh":
            try:
                _ = item.solid
            except ConfigError as error:
                raise ConfigError(f"object {item.name!r}: {error}") from None
