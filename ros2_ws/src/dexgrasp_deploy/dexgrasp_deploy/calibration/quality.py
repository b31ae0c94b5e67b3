"""Judges a calibration: every measured quantity against two limits, with a remedy."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.transforms import mean_rotation, rotation_vectors


class Grade(str, Enum):
    """`ok`: use it. `poor`: usable, but better data would help. `refuse`: do not use it."""

    OK = "ok"
    POOR = "poor"
    REFUSE = "refuse"


_ORDER = (Grade.OK, Grade.POOR, Grade.REFUSE)


@dataclass(frozen=True)
class Check:
    """A quantity with its limits.

    Attributes:
        name: What it is, with the unit.
        value: Measured.
        good: Limit of `ok`.
        usable: Limit of `poor`. Where it lies above `good`, small values are the better ones.
        remedy: What to do when it is not ok.
    """

    name: str
    value: float
    good: float
    usable: float
    remedy: str

    @property
    def grade(self) -> Grade:
        """The grade of this quantity; one that is not a number is refused."""
        sign = 1.0 if self.usable >= self.good else -1.0
        if sign * self.value <= sign * self.good:
            return Grade.OK
        return Grade.POOR if sign * self.value <= sign * self.usable else Grade.REFUSE

    @property
    def reason(self) -> str:
        """One clause that says what is wrong and what to do."""
        relation = "at most" if self.usable >= self.good else "at least"
        return f"{self.name} {self.value:.3g}, {relation} {self.good:g} is good; {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "name": self.name,
            "value": self.value,
            "good": self.good,
            "usable": self.usable,
            "grade": self.grade.value,
        }


@dataclass(frozen=True)
class Verdict:
    """The worst grade of all checks, and why."""

    checks: tuple[Check, ...]

    @property
    def grade(self) -> Grade:
        """The worst grade."""
        return max((check.grade for check in self.checks), key=_ORDER.index)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Of every check that is not ok, the worst first."""
        bad = [check for check in self.checks if check.grade is not Grade.OK]
        bad.sort(key=lambda check: -_ORDER.index(check.grade))
        return tuple(check.reason for check in bad)

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "verdict": self.grade.value,
            "reasons": list(self.reasons),
            "checks": [check.to_dict() for check in self.checks],
        }


def rotation_spread_deg(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far poses are turned against each other, about the three axes that show it best.

    Args:
        rotations: [N, 3, 3].

    Returns:
        [3] degrees, falling: largest minus smallest rotation about each principal axis of the
        rotation vectors from the mean rotation. The second is near 0 when all poses turn about
        one axis, along which the position of a camera cannot be found.
    """
    vectors = rotation_vectors(mean_rotation(rotations).T @ rotations)  # [N, 3]
    _, _, axes = np.linalg.svd(vectors - vectors.mean(0))
    return np.sort(np.rad2deg(np.ptp(vectors @ axes.T, axis=0)))[::-1]


def image_coverage(points: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> float:
    """Fraction of an 8 x 6 grid over the image in which corners were seen.

    Args:
        points: Corners [K, 2] px of each image.
        size: Width and height of the images.
    """
    grid = np.array([8, 6])
    cells = np.floor(np.concatenate(points) / size * grid).astype(int)  # [K, 2]
    return len(np.unique(np.clip(cells, 0, grid - 1), axis=0)) / float(grid.prod())
