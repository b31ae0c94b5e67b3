"""The simulated scene as rviz markers."""

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dexgrasp_deploy.nodes.conversions import BASE_FRAME, to_pose
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_TABLE_RGB = (0.62, 0.47, 0.33)
_GOAL_RGB = (0.2, 0.8, 0.3)
_GOAL_DIAMETER_M = 0.03
_TYPES = {"box": Marker.CUBE, "cylinder": Marker.CYLINDER, "sphere": Marker.SPHERE}


def scene_markers(
    task: GraspConfig, object_name: str, object_pose: NDArray[np.float64], stamp: Time
) -> MarkerArray:
    """Table, object and goal.

    Args:
        task: The task in the world.
        object_name: Which of its objects.
        object_pose: [7] xyz m and quaternion wxyz, base frame.
        stamp: When it was so.
    """
    item = next(item for item in task.objects if item.name == object_name)
    upright = np.array([1.0, 0.0, 0.0, 0.0])
    table = np.concatenate((task.table.center_m, upright))
    resting_m = task.table.top_m + item.extents_m[2] / 2
    goal = np.array([*task.spawn.center_m, resting_m + task.goal_height_m, *upright])
    ball = (_GOAL_DIAMETER_M,) * 3
    return MarkerArray(
        markers=[
            _marker("table", Marker.CUBE, table, task.table.size_m, _TABLE_RGB, 1.0, stamp),
            _marker(
                "object", _TYPES[item.shape], object_pose, item.extents_m, item.rgb, 1.0, stamp
            ),
            _marker("goal", Marker.SPHERE, goal, ball, _GOAL_RGB, 0.5, stamp),
        ]
    )


def _marker(
    namespace: str,
    kind: int,
    pose: NDArray[np.float64],
    size_m: tuple[float, float, float],
    rgb: tuple[float, float, float],
    opacity: float,
    stamp: Time,
) -> Marker:
    marker = Marker(ns=namespace, id=0, type=kind, action=Marker.ADD)
    marker.header.stamp = stamp
    marker.header.frame_id = BASE_FRAME
    marker.pose = to_pose(pose, stamp).pose
    marker.scale.x, marker.scale.y, marker.scale.z = size_m
    marker.color = ColorRGBA(r=rgb[0], g=rgb[1], b=rgb[2], a=opacity)
    return marker
