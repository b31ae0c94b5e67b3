"""The objects to grasp: primitive shapes with published or stated sizes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT

Shape = Literal["box", "cylinder", "sphere"]
SHAPES: tuple[Shape, ...] = Shape.__args__  # type: ignore[attr-defined]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

_EXTENTS_NEEDED = {"box": 3, "cylinder": 2, "sphere": 1}


@dataclass(frozen=True, config=STRICT)
class ObjectConfig:
    """One object.

    Attributes:
        name: Unique name in the run; per-object figures use it.
        shape: box, cylinder (axis along z) or sphere.
        size_m: Full extents: box (x, y, z), cylinder (diameter, height), sphere (diameter).
        mass_kg: Mass, evenly distributed.
        rgb: Colour in images, 0 to 1.
    """

    name: str
    shape: Shape
    size_m: tuple[Annotated[float, Field(gt=0.0, le=0.5)], ...]
    mass_kg: Annotated[float, Field(gt=0.0, le=5.0)] = 0.1
    rgb: tuple[Fraction, Fraction, Fraction] = (0.80, 0.22, 0.18)

    @model_validator(mode="after")
    def _check(self) -> "ObjectConfig":
        needed = _EXTENTS_NEEDED[self.shape]
        if len(self.size_m) != needed:
            raise ValueError(f"a {self.shape} needs {needed} numbers in `size_m`")
        return self

    @property
    def extents_m(self) -> tuple[float, float, float]:
        """Full extents along the object's own x, y and z."""
        if self.shape == "box":
            return self.size_m[0], self.size_m[1], self.size_m[2]
        if self.shape == "cylinder":
            return self.size_m[0], self.size_m[0], self.size_m[1]
        return self.size_m[0], self.size_m[0], self.size_m[0]


LAPTOP_OBJECTS = (
    ObjectConfig("box", "box", (0.06, 0.06, 0.10), rgb=(0.80, 0.22, 0.18)),
    ObjectConfig("cylinder", "cylinder", (0.06, 0.10), rgb=(0.93, 0.69, 0.13)),
    ObjectConfig("sphere", "sphere", (0.07,), rgb=(0.20, 0.62, 0.36)),
)
"""Objects of the `laptop` preset: graspable open-loop under the physics in use."""
