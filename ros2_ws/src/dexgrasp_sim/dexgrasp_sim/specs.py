"""Descriptions of tensors shared between processes or files: name, shape, type, unit, frame."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import torch

_TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int64": torch.int64,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class Term:
    """Consecutive elements of a flat observation group with a common name, unit and frame."""

    name: str
    size: int
    unit: str
    frame: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a batch: `shape` is without the environment axis.

    Attributes:
        name: Observation group or result name.
        shape: Shape for one environment.
        dtype: One of float32, float16, uint8, int16, int64, bool.
        unit: SI unit of the elements; "" if `terms` have it or there is none.
        frame: Frame of the elements; "" if `terms` have it or there is none.
        terms: For a flat group, its terms in order; their sizes add up to the shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""
    frame: str = ""
    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown dtype or terms that do not fill the shape."""
        if self.dtype not in _TORCH_DTYPES:
            raise ValueError(f"{self.name}: dtype {self.dtype!r} is not one of {[*_TORCH_DTYPES]}")
        if self.terms and self.shape != (sum(term.size for term in self.terms),):
            raise ValueError(f"{self.name}: terms do not add up to the shape {self.shape}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The element type in torch."""
        return _TORCH_DTYPES[self.dtype]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element type in numpy."""
        return np.dtype(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of one environment's tensor."""
        return prod(self.shape) * self.numpy_dtype.itemsize

    def empty(self, *leading: int) -> torch.Tensor:
        """A zeroed tensor of this spec with the given leading axes."""
        return torch.zeros(*leading, *self.shape, dtype=self.torch_dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "TensorSpec":
        """The inverse of `to_dict`."""
        terms = tuple(Term(**term) for term in values.get("terms", ()))
        return TensorSpec(**{**values, "shape": tuple(values["shape"]), "terms": terms})


def flat_spec(name: str, terms: Sequence[Term]) -> TensorSpec:
    """A float32 group made of the given terms, one after the other."""
    return TensorSpec(name, (sum(term.size for term in terms),), terms=tuple(terms))


def schema_hash(specs: Sequence[TensorSpec]) -> str:
    """16 hexadecimal digits that differ if any attribute of a spec or their order differs."""
    canonical = json.dumps([spec.to_dict() for spec in specs], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
