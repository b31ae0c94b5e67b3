"""The joints as a table of a page: where in its range each one stands, and its command."""

import math
from collections.abc import Mapping

import numpy as np

from dexgrasp_sim.nodes.display.robot_markers import limit_levels
from dexgrasp_sim.robot.model import RobotModel

COLORS = ("#2f9e44", "#f08c00", "#e03131")
"""Inside of the range, near a limit, at it."""
_STYLE = (
    "font-family:inherit;font-size:0.72em;width:100%;border-collapse:collapse;"
    "line-height:1.35;font-variant-numeric:tabular-nums"
)
_BAR = "position:relative;height:0.5em;background:#e9ecef;border-radius:0.25em"


def joint_table(
    robot: RobotModel, measured: Mapping[str, float], commanded: Mapping[str, float]
) -> str:
    """HTML: name, measured angle, bar over the range with the command as a line; degrees."""
    names = robot.joint_names
    position = np.array([measured.get(name, np.nan) for name in names])
    levels = limit_levels(position, robot.lower, robot.upper)
    rows = [
        _row(name, position[index], commanded.get(name, math.nan), robot, index, levels[index])
        for index, name in enumerate(names)
    ]
    head = (
        "<tr style='color:#868e96;text-align:left'><th>joint</th>"
        "<th style='text-align:right'>measured</th><th style='text-align:right'>command</th>"
        "<th style='padding-left:0.8em'>lower … upper</th></tr>"
    )
    return (
        f"<div style='padding:0 0.6em'><table style='{_STYLE}'>{head}{''.join(rows)}</table></div>"
    )


def _row(
    name: str, measured: float, command: float, robot: RobotModel, index: int, level: int
) -> str:
    if not math.isfinite(measured):
        return f"<tr><td>{name}</td><td colspan=3 style='color:#868e96'>not measured</td></tr>"
    lower, upper = float(robot.lower[index]), float(robot.upper[index])

    def share(value: float) -> float:
        return 100 * min(max((value - lower) / (upper - lower), 0.0), 1.0)

    color = COLORS[level]
    dot = (
        f"<div style='position:absolute;left:calc({share(measured):.1f}% - 0.3em);top:-0.05em;"
        f"width:0.6em;height:0.6em;border-radius:50%;background:{color}'></div>"
    )
    line = wanted = ""
    if math.isfinite(command):
        line = (
            f"<div style='position:absolute;left:calc({share(command):.1f}% - 1px);top:-0.15em;"
            "width:2px;height:0.8em;background:#495057'></div>"
        )
        wanted = f"{math.degrees(command):.1f}°"
    bold = f"color:{color};font-weight:600" if level else ""
    return (
        f"<tr><td style='{bold}'>{name}</td>"
        f"<td style='text-align:right;{bold}'>{math.degrees(measured):.1f}°</td>"
        f"<td style='text-align:right;color:#868e96'>{wanted}</td>"
        f"<td style='width:38%;padding-left:0.8em'><div style='{_BAR}'>{line}{dot}</div></td></tr>"
    )
