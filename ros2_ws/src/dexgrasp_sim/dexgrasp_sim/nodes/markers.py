"""The scene of the grasp task as rviz markers."""

from collections.abc import Sequence

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dexgrasp_sim.nodes.conversions import BASE_FRAME, to_pose
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.physics.scene import TableConfig

_TABLE_RGB = (0.62, 0.47, 0.33)
_GOAL_RGB = (0.2, 0.8, 0.3)
_GOAL_DIAMETER_M = 0.03
_UPRIGHT = (1.0, 0.0, 0.0, 0.0)
_UNSCALED = (1.0, 1.0, 1.0)
_TYPES = {
    "box": Marker.CUBE,
    "cylinder": Marker.CYLINDER,
    "sphere": Marker.SPHERE,
    "ellipsoid": Marker.SPHERE,
}


def scene_markers(
    table: TableConfig,
    item: ObjectConfig,
    object_pose: Sequence[float],
    goal_m: Sequence[float],
    stamp: Time,
) -> MarkerArray:
    """Markers of table, object and goal, each in a namespace of its name.

    Args:
        table: Position and size of the table.
        item: The object's shape, size and colour.
        object_pose: [7] xyz m and quaternion wxyz, base frame.
        goal_m: [3] goal of the object's centre, base frame.
        stamp: Time of the scene.
    """
    ball = (_GOAL_DIAMETER_M, _GOAL_DIAMETER_M, _GOAL_DIAMETER_M)
    markers = [
        _marker("table", Marker.CUBE, (*table.center_m, *_UPRIGHT), table.size_m, _TABLE_RGB),
        _object_marker(item, object_pose),
        _marker("goal", Marker.SPHERE, (*goal_m, *_UPRIGHT), ball, _GOAL_RGB, opacity=0.5),
    ]
    for marker in markers:
        marker.header.stamp = stamp
    return MarkerArray(markers=markers)


def _object_marker(item: ObjectConfig, pose: Sequence[float]) -> Marker:
    """A marker of the primitive, or of the triangles for any other shape."""
    if item.shape in _TYPES:
        return _marker("object", _TYPES[item.shape], pose, item.extents_m, item.rgb)
    marker = _marker("object", Marker.TRIANGLE_LIST, pose, _UNSCALED, item.rgb)
    corners = item.solid.triangles().reshape(-1, 3).tolist()
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in corners]
    return marker


def _marker(
    namespace: str,
    kind: int,
    pose: Sequence[float],
    size_m: tuple[float, float, float],
    rgb: tuple[float, float, float],
    opacity: float = 1.0,
) -> Marker:
    red, green, blue = rgb
    marker = Marker(ns=namespace, type=kind, action=Marker.ADD, pose=to_pose(pose))
    marker.header.frame_id = BASE_FRAME
    marker.scale.x, marker.scale.y, marker.scale.z = size_m
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=opacity)
    return marker
