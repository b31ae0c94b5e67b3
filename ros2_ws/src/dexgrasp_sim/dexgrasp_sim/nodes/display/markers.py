"""Markers for rviz: the scene of the grasp task, and the shapes that others are made of.

A marker is known by its namespace and number: who publishes it again replaces it.
"""

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point
from numpy.typing import ArrayLike
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dexgrasp_sim.nodes.conversions import BASE_FRAME, to_pose
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.physics.scene import TableConfig

Rgb = tuple[float, float, float]
Corners = tuple[Sequence[float], Sequence[float]]

GOAL_RGB: Rgb = (0.2, 0.8, 0.3)
_TABLE_RGB: Rgb = (0.62, 0.47, 0.33)
_WORKSPACE_RGB: Rgb = (0.25, 0.55, 0.95)
_GOAL_DIAMETER_M = 0.03
_LINE_M = 0.002
_WORKSPACE_TOP_M = 0.6
"""The workspace is drawn this high above its lower side where it is open at the top."""
_UPRIGHT = (1.0, 0.0, 0.0, 0.0)
_UNSCALED = (1.0, 1.0, 1.0)
_LIFETIME = Duration(sec=1)
_TYPES = {
    "box": Marker.CUBE,
    "cylinder": Marker.CYLINDER,
    "sphere": Marker.SPHERE,
    "ellipsoid": Marker.SPHERE,
}
_EDGES = [(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1]
"""Pairs of corners of a box, which are numbered by the bits x, y, z."""


def stamped(markers: Sequence[Marker], stamp: Time) -> MarkerArray:
    """The markers as a message, all of one time."""
    for marker in markers:
        marker.header.stamp = stamp
    return MarkerArray(markers=list(markers))


def table_marker(table: TableConfig) -> Marker:
    """The table, in the namespace `table`."""
    return solid("table", Marker.CUBE, (*table.center_m, *_UPRIGHT), table.size_m, _TABLE_RGB)


def goal_marker(goal_m: Sequence[float]) -> Marker:
    """The goal of the object's centre [3] m, base frame, in the namespace `goal`."""
    return ball("goal", goal_m, _GOAL_DIAMETER_M, GOAL_RGB, opacity=0.5)


def workspace_marker(workspace: Corners) -> Marker:
    """The edges of the box from the lower to the upper corner, m, base frame; `workspace`."""
    lower, upper = np.array(workspace[0]), np.array(workspace[1])
    upper = np.where(np.isfinite(upper), upper, lower + _WORKSPACE_TOP_M)
    corners = [[(lower, upper)[k >> axis & 1][axis] for axis in range(3)] for k in range(8)]
    points = [corners[end] for edge in _EDGES for end in edge]
    return lines("workspace", Marker.LINE_LIST, points, _WORKSPACE_RGB, opacity=0.5)


def object_marker(item: ObjectConfig, pose: Sequence[float]) -> Marker:
    """An object at a pose [7], xyz m and quaternion wxyz, base frame, in the namespace `object`.

    It is a marker of the primitive, or of the triangles for any other shape.
    """
    if item.shape in _TYPES:
        return solid("object", _TYPES[item.shape], pose, item.extents_m, item.rgb)
    marker = solid("object", Marker.TRIANGLE_LIST, pose, _UNSCALED, item.rgb)
    marker.points = _points(item.solid.triangles().reshape(-1, 3))
    return marker


def ball(
    namespace: str,
    center_m: Sequence[float],
    diameter_m: float,
    rgb: Rgb,
    opacity: float = 1.0,
    number: int = 0,
) -> Marker:
    """A sphere at [3] m, base frame."""
    size = (diameter_m, diameter_m, diameter_m)
    marker = solid(namespace, Marker.SPHERE, (*center_m, *_UPRIGHT), size, rgb, opacity)
    marker.id = number
    return marker


def lines(
    namespace: str, kind: int, points_m: ArrayLike, rgb: Rgb, opacity: float = 1.0
) -> Marker:
    """Marker.LINE_LIST or LINE_STRIP through points [P, 3] m, base frame."""
    pose = (0.0, 0.0, 0.0, *_UPRIGHT)
    marker = solid(namespace, kind, pose, (_LINE_M, 0.0, 0.0), rgb, opacity)
    marker.points = _points(points_m)
    return marker


def text(
    namespace: str, place_m: Sequence[float], words: str, height_m: float, rgb: Rgb
) -> Marker:
    """Words that always face the viewer, letters of this height, at [3] m, base frame."""
    pose, size = (*place_m, *_UPRIGHT), (0.0, 0.0, height_m)
    marker = solid(namespace, Marker.TEXT_VIEW_FACING, pose, size, rgb)
    marker.text = words
    return marker


def passing(marker: Marker) -> Marker:
    """The marker, which vanishes unless it is published again within a second."""
    marker.lifetime = _LIFETIME
    return marker


def solid(
    namespace: str,
    kind: int,
    pose: Sequence[float],
    size_m: tuple[float, float, float],
    rgb: Rgb,
    opacity: float = 1.0,
) -> Marker:
    """A marker of any kind at a pose [7], xyz m and quaternion wxyz, base frame."""
    red, green, blue = rgb
    marker = Marker(ns=namespace, type=kind, action=Marker.ADD, pose=to_pose(pose))
    marker.header.frame_id = BASE_FRAME
    marker.scale.x, marker.scale.y, marker.scale.z = size_m
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=opacity)
    return marker


def _points(points_m: ArrayLike) -> list[Point]:
    rows = np.asarray(points_m, np.float64).reshape(-1, 3).tolist()
    return [Point(x=x, y=y, z=z) for x, y, z in rows]
