"""Principal components of hand postures in grasps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError, read_values

NUM_COMPONENTS = 5
_DIGITS = 6


@dataclass(frozen=True, eq=False)
class HandPca:
    """Principal components c = axes @ q of hand joint positions q; no mean is subtracted.

    Attributes:
        joints: [H] names of the hand's joints.
        axes: [5, H] float32, orthonormal rows, columns in the order of `joints`.
        lower: [5] rad, smallest components of the grasps from which the axes were computed.
        upper: [5] rad, largest ones.
        explained: Fraction of the squared distance from the flat hand that lies along the axes.
    """

    joints: tuple[str, ...]
    axes: Tensor
    lower: Tensor
    upper: Tensor
    explained: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values as in the data file, rounded to 6 decimals."""
        return {
            "joints": list(self.joints),
            "axes": _rounded(self.axes),
            "lower_rad": _rounded(self.lower),
            "upper_rad": _rounded(self.upper),
            "explained": round(self.explained, 4),
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any], joints: Sequence[str]) -> "HandPca":
        """Inverse of `to_dict`; columns are put into the order of `joints`.

        Raises:
            ValueError: The joints are not those of the hand, or the axes are not orthonormal.
        """
        if sorted(values["joints"]) != sorted(joints):
            raise ValueError(f"joints {values['joints']}: must be {list(joints)}")
        columns = [values["joints"].index(joint) for joint in joints]
        axes = torch.tensor(values["axes"])[:, columns]
        # in float64, to measure the error of the file only
        error = (axes.double() @ axes.double().mT - torch.eye(len(axes))).abs().max().item()
        if error > 1e-5:
            raise ValueError(f"axes are {error:.1e} off orthonormal; compute the file anew")
        lower, upper = torch.tensor(values["lower_rad"]), torch.tensor(values["upper_rad"])
        return HandPca(tuple(joints), axes, lower, upper, float(values["explained"]))


def fit(grasps: Tensor, flat: Tensor, rest: Tensor, joints: Sequence[str]) -> HandPca:
    """Components of grasp postures.

    The axes are those along which the grasps differ most from the flat hand, where a grasp starts,
    so the first axis closes the hand. The sign of each axis makes its largest entry positive.
    The ranges include the hand at reset.

    Args:
        grasps: [G, H] rad.
        flat: [H] rad, the flat hand.
        rest: [H] rad, the hand at reset.
        joints: [H] names of the columns.
    """
    _, singular, axes = torch.linalg.svd((grasps - flat).double(), full_matrices=False)
    axes = axes[:NUM_COMPONENTS]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    components = torch.cat((grasps, rest[None])).double() @ axes.mT
    energy = singular.square()
    explained = (energy[:NUM_COMPONENTS].sum() / energy.sum()).item()
    lower, upper = components.amin(0), components.amax(0)
    return HandPca(tuple(joints), axes.float(), lower.float(), upper.float(), explained)


def read_hand_pca(path: Path, joints: Sequence[str]) -> HandPca:
    """Reads a file that `scripts/compute_hand_pca.py` has written.

    Raises:
        ConfigError: The file is missing or damaged, or is of another hand.
    """
    values = read_values(path)
    try:
        return HandPca.from_dict(values, joints)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}; compute it anew for this hand") from None


def _rounded(values: Tensor) -> Any:
    return torch.round(values.double(), decimals=_DIGITS).tolist()
