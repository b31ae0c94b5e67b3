"""The board as a page to print at true size, with a bar to check the print."""

from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from dexgrasp_deploy.calibration.board import SCALE_BAR_M, BoardConfig
from dexgrasp_sim.config import ConfigError

PAPERS_M = {
    "a4": (0.297, 0.210),
    "a3": (0.420, 0.297),
    "a2": (0.594, 0.420),
    "letter": (0.2794, 0.2159),
}
"""Landscape sheets, width and height (ISO 216; ANSI A)."""
PNG_DPI = 300
_MARGIN_M = 0.008
"""Most printers leave 3 to 6 mm blank."""
_BAR_ZONE_M = 0.024
_INCH_M = 0.0254
_PIXELS_PER_SQUARE = 200
"""Of the image from which the rectangles are read."""


def write_sheet(path: Path, board: BoardConfig, paper: str = "a4") -> None:
    """Writes a page.

    Args:
        path: Ends in `.pdf` (vectors), or `.png` (300 dots per inch, with its size in the file).
        board: The board.
        paper: One of `PAPERS_M`.

    Raises:
        ConfigError: The board does not fit the paper, or the file is of another kind.
    """
    if path.suffix.lower() not in (".pdf", ".png"):
        raise ConfigError(f"--out {path}: must end in .pdf or .png; rename it")
    width, height = PAPERS_M[paper]
    board_width, board_height = board.size_m
    if (
        max(board_width, SCALE_BAR_M) > width - 2 * _MARGIN_M
        or board_height > height - 2 * _MARGIN_M - _BAR_ZONE_M
    ):
        raise ConfigError(
            f"the board of {1e3 * board_width:g} x {1e3 * board_height:g} mm and its scale bar do "
            f"not fit {paper} ({1e3 * width:g} x {1e3 * height:g} mm); give larger paper or "
            "smaller squares"
        )
    figure = plt.figure(figsize=(width / _INCH_M, height / _INCH_M))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    bottom = _BAR_ZONE_M + (height - _BAR_ZONE_M - board_height) / 2
    _draw_board(axes, board, (width - board_width) / 2, bottom)
    _draw_bar(axes, board, width / 2, _MARGIN_M + 0.008)
    try:
        figure.savefig(path, dpi=PNG_DPI)
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror}; give another path") from None
    finally:
        plt.close(figure)


def _draw_board(axes: plt.Axes, board: BoardConfig, left: float, bottom: float) -> None:
    """The black cells of squares and markers as rectangles: exact at any resolution."""
    image = board.image(_PIXELS_PER_SQUARE)
    top = bottom + board.size_m[1]
    scale = board.square_m / _PIXELS_PER_SQUARE
    for row, first, last in _black_runs(image):
        corner = (left + first * scale, top - row[1] * scale)
        size = ((last - first) * scale, (row[1] - row[0]) * scale)
        axes.add_patch(Rectangle(corner, *size, color="black", linewidth=0))


def _black_runs(image: np.ndarray) -> list[tuple[tuple[int, int], int, int]]:
    """Rectangles (rows, first column, last column + 1) that cover the black pixels."""
    changes = np.flatnonzero((image[1:] != image[:-1]).any(axis=1)) + 1
    bounds = [0, *changes.tolist(), len(image)]
    runs = []
    for start, end in pairwise(bounds):
        black = np.pad((image[start] < 128).astype(np.int8), 1)
        steps = np.flatnonzero(np.diff(black)).tolist()
        runs += [((start, end), a, b) for a, b in zip(steps[::2], steps[1::2])]
    return runs


def _draw_bar(axes: plt.Axes, board: BoardConfig, centre: float, y: float) -> None:
    left, right = centre - SCALE_BAR_M / 2, centre + SCALE_BAR_M / 2
    axes.plot([left, right], [y, y], color="black", linewidth=0.8, solid_capstyle="butt")
    for step in range(21):
        x = left + step * SCALE_BAR_M / 20
        height = 0.004 if step % 5 == 0 else 0.002
        axes.plot([x, x], [y, y + height], color="black", linewidth=0.5, solid_capstyle="butt")
        if step % 5 == 0:
            axes.text(x, y + 0.005, f"{1e3 * step * SCALE_BAR_M / 20:g}", ha="center", fontsize=7)
    text = (
        f"Print at 100 %. This bar must measure {1e3 * SCALE_BAR_M:g} mm; give another length as "
        f"--scale-bar-mm.  Board: {board.columns} x {board.rows} squares of "
        f"{1e3 * board.square_m:g} mm, markers {1e3 * board.marker_m:g} mm, {board.dictionary}"
    )
    axes.text(centre, y - 0.003, text, ha="center", va="top", fontsize=6.5)
