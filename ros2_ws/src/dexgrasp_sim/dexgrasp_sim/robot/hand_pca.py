"""The five directions of the hand's sixteen joints along which grasps differ most."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dexgrasp_sim.robot.kuka_allegro import HAND_CURLED, HAND_JOINTS, HAND_REST

PCA_PATH = Path(__file__).with_name("hand_pca.yaml")
NUM_COMPONENTS = 5
_DIGITS = 6


@dataclass(frozen=True)
class HandPca:
    """Principal components c = axes @ q of hand joint positions q; no mean is subtracted.

    Attributes:
        axes: [5, 16] float32, orthonormal rows, columns in `HAND_JOINTS` order.
        lower: [5] rad, smallest components of the grasps that the axes were computed from.
        upper: [5] rad, largest ones.
        explained: Share of the squared deviation from the flat hand that lies along the axes.
    """

    axes: Tensor
    lower: Tensor
    upper: Tensor
    explained: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values as in the data file, rounded to 6 digits behind the point."""
        return {
            "joints": list(HAND_JOINTS),
            "axes": _rounded(self.axes),
            "lower_rad": _rounded(self.lower),
            "upper_rad": _rounded(self.upper),
            "explained": round(self.explained, 4),
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "HandPca":
        """Inverse of `to_dict`; columns are sorted by joint name.

        Raises:
            ValueError: The joints are not those of this hand, or the axes are not orthonormal.
        """
        if sorted(values["joints"]) != sorted(HAND_JOINTS):
            raise ValueError(f"joints {values['joints']}: must be {list(HAND_JOINTS)}")
        columns = [values["joints"].index(joint) for joint in HAND_JOINTS]
        axes = torch.tensor(values["axes"])[:, columns]
        error = (axes @ axes.mT - torch.eye(len(axes))).abs().max().item()
        if error > 1e-5:
            raise ValueError(f"axes are {error:.1e} off orthonormal; compute the file anew")
        lower, upper = torch.tensor(values["lower_rad"]), torch.tensor(values["upper_rad"])
        return HandPca(axes, lower, upper, float(values["explained"]))


def fit(grasps: Tensor) -> HandPca:
    """Components of grasp postures [G, 16] rad in `HAND_JOINTS` order.

    The axes are those along which the grasps differ most from the flat hand, where a grasp starts,
    so that the first is the way the hand closes. Each axis is turned so that its largest entry is
    positive. The ranges hold the hand at reset as well.
    """
    away = grasps - torch.tensor(HAND_CURLED)
    _, singular, axes = torch.linalg.svd(away.double(), full_matrices=False)
    axes = axes[:NUM_COMPONENTS]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    components = torch.cat((grasps, torch.tensor([HAND_REST]))).double() @ axes.mT
    energy = singular.square()
    explained = (energy[:NUM_COMPONENTS].sum() / energy.sum()).item()
    lower, upper = components.amin(0), components.amax(0)
    return HandPca(axes.float(), lower.float(), upper.float(), explained)


@cache
def load_hand_pca() -> HandPca:
    """The components in the committed file, which `scripts/compute_hand_pca.py` writes."""
    return HandPca.from_dict(yaml.safe_load(PCA_PATH.read_text(encoding="utf-8")))


def _rounded(values: Tensor) -> Any:
    return torch.round(values.double(), decimals=_DIGITS).tolist()
