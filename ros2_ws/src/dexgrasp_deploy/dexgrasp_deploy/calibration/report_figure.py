"""The residual report as a picture: verdict, error of each image, where corners are off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.quality import Grade

_COLORS = {Grade.OK: "#2e8b57", Grade.POOR: "#d98e04", Grade.REFUSE: "#c0392b"}
_USED, _REJECTED = "#1f6fb2", "#c0392b"
_LONGEST_ARROW = 0.04
"""Length of the 95th percentile of the errors in the picture, as a fraction of its width."""


def write_figure(
    path: Path,
    title: str,
    report: Mapping[str, Any],
    image_errors: Mapping[str, float],
    residuals: NDArray[np.float64],
    size: tuple[int, int],
) -> None:
    """Writes the picture as PNG.

    Args:
        path: Of the file.
        title: What was calibrated.
        report: With `verdict`, `reasons`, `checks` and `rejected` (error by image).
        image_errors: Error in px of every used image, by name.
        residuals: [K, 4] px: place of each used corner, and measured minus predicted.
        size: Width and height of the images.
    """
    figure = plt.figure(figsize=(11, 7.6), dpi=110)
    grid = figure.add_gridspec(
        2, 2, height_ratios=(1, 1.1), width_ratios=(1, 1.1), hspace=0.42, wspace=0.14
    )
    grade = Grade(report["verdict"])
    figure.suptitle(f"{title}: {grade.value}", color=_COLORS[grade], fontsize=15, y=0.97)
    _bars(figure.add_subplot(grid[0, :]), image_errors, report["rejected"])
    _arrows(figure.add_subplot(grid[1, 0]), residuals, size)
    _checks(figure.add_subplot(grid[1, 1]), report["checks"])
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def _bars(
    axes: plt.Axes, image_errors: Mapping[str, float], rejected: Mapping[str, float]
) -> None:
    errors = dict(sorted({**image_errors, **rejected}.items()))
    colors = [_REJECTED if name in rejected else _USED for name in errors]
    axes.bar(range(len(errors)), list(errors.values()), color=colors)
    labels = [Path(name).stem for name in errors]
    axes.set_xticks(range(len(errors)), labels, rotation=90 if len(errors) > 20 else 0, fontsize=8)
    if image_errors:
        highest = max(image_errors.values())
        axes.set_ylim(0, 2.0 * highest if highest > 0 else 1.0)
        for index, (name, error) in enumerate(errors.items()):
            if name in rejected:
                text = f"{error:.3g}\nrejected"
                axes.text(index, 1.98 * highest, text, ha="center", va="top", fontsize=7)
    axes.set(xlabel="image", ylabel="error in px", title="Error of each image")
    axes.grid(axis="y", alpha=0.25)


def _arrows(axes: plt.Axes, residuals: NDArray[np.float64], size: tuple[int, int]) -> None:
    lengths = np.linalg.norm(residuals[:, 2:], axis=1)
    usual = max(float(np.percentile(lengths, 95)), 1e-9)
    factor = _LONGEST_ARROW * size[0] / usual
    axes.quiver(
        *residuals[:, :2].T,
        *(factor * residuals[:, 2:].T),
        angles="xy",
        scale_units="xy",
        scale=1.0,
        width=0.0022,
        color=_USED,
    )
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="equal", xlabel="u in px", ylabel="v")
    axes.set_title(f"Measured minus predicted corners, {factor:.0f} times as long")
    axes.grid(alpha=0.2)


def _checks(axes: plt.Axes, checks: list[Mapping[str, Any]]) -> None:
    axes.set_axis_off()
    axes.set_title("Checks: value (limit of ok, of poor)")
    for row, check in enumerate(checks):
        y = 0.95 - row * 0.95 / max(len(checks), 8)
        color = _COLORS[Grade(check["grade"])]
        axes.text(0.0, y, check["grade"], color=color, va="center", fontsize=9, weight="bold")
        axes.text(0.11, y, check["name"], va="center", fontsize=9)
        text = f"{check['value']:.3g}  ({check['good']:g}, {check['usable']:g})"
        axes.text(1.02, y, text, va="center", ha="right", fontsize=9)
