"""What the policy wants and believes, as markers in the scene and as marks in images."""

import math
from collections import deque

import numpy as np
from visualization_msgs.msg import Marker

from dexgrasp_deploy.nodes.display.robot_state import RobotState
from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.display.images import Mark
from dexgrasp_sim.nodes.display.markers import (
    Rgb,
    ball,
    goal_marker,
    lines,
    passing,
    table_marker,
    text,
    workspace_marker,
)
from dexgrasp_sim.nodes.display.robot_markers import RobotMarkers
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

Point = tuple[float, float, float]

_PREDICTION_RGB: Rgb = (0.1, 0.75, 0.95)
_PREDICTION_DIAMETER_M = 0.035
_TRAIL_LENGTH = 40
_TRAIL_STEP_M = 0.003
_STATUS_RGB = {
    PolicyStatus.IDLE: (0.8, 0.8, 0.8),
    PolicyStatus.RUNNING: (0.4, 0.9, 0.5),
    PolicyStatus.HOLD: (1.0, 0.85, 0.3),
    PolicyStatus.FAULT: (1.0, 0.35, 0.3),
}
_STATUS_HEIGHT_M = 0.045
_STATUS_ABOVE_M = 0.55
_WORDS = 60
_GOAL_COLOR, _PREDICTION_COLOR, _TIP_COLOR = (60, 220, 90), (40, 200, 255), (255, 160, 40)


class PolicyMarkers:
    """Makes them from the newest status of the policy and the joints."""

    def __init__(self, robot: Robot, task: GraspConfig) -> None:
        self._robot = robot
        self._task = task
        self._robot_markers = RobotMarkers(robot)
        self._fixed = [table_marker(task.table), workspace_marker(task.workspace)]
        heights = {item.name: self._rest_height(item.name) for item in task.objects}
        self._heights = heights
        self._goal: Point = task.goal_at(float(np.median([*heights.values()])))
        self._trail: deque[Point] = deque(maxlen=_TRAIL_LENGTH)

    def name_object(self, name: str) -> None:
        """Says which object it is, where that is known: the goal depends on its height."""
        if name in self._heights:
            self._goal = self._task.goal_at(self._heights[name])

    def at(self, state: RobotState, status: PolicyStatus | None) -> list[Marker]:
        """All markers at present."""
        markers = [*self._fixed, goal_marker(self._goal)]
        position = state.position
        if position is not None:
            markers += self._robot_markers.at(position, state.touching())
        if status is not None:
            markers += [passing(self._status(status)), *self._prediction(status)]
        return markers

    def marks(self, state: RobotState, status: PolicyStatus | None) -> list[Mark]:
        """Goal, prediction and fingertips."""
        marks = []
        for tip in self._robot.fingertips:
            pose = state.pose_of(tip)
            if pose is not None:
                marks.append(Mark(pose[:3, 3], _TIP_COLOR))
        marks.append(Mark(np.array(self._goal), _GOAL_COLOR, "cross", "goal"))
        place = _predicted(status)
        if place is not None:
            marks.append(Mark(np.array(place), _PREDICTION_COLOR, "circle", "predicted"))
        return marks

    def _status(self, status: PolicyStatus) -> Marker:
        x, y = self._task.spawn.center_m
        above = (x, y, self._task.table.top_m + _STATUS_ABOVE_M)
        words = status.message
        words = words if len(words) <= _WORDS else f"{words[:_WORDS]} ..."
        return text("status", above, words, _STATUS_HEIGHT_M, _STATUS_RGB[status.state])

    def _prediction(self, status: PolicyStatus) -> list[Marker]:
        """Where the policy believes the object, and where it believed it shortly before."""
        place = _predicted(status)
        if place is None:
            self._trail.clear()
            return []
        if not self._trail or math.dist(place, self._trail[-1]) > _TRAIL_STEP_M:
            self._trail.append(place)
        believed = ball("prediction", place, _PREDICTION_DIAMETER_M, _PREDICTION_RGB, opacity=0.8)
        if len(self._trail) < 2:
            return [passing(believed)]
        trail = lines("prediction", Marker.LINE_STRIP, [*self._trail], _PREDICTION_RGB, 0.6)
        trail.id = 1
        return [passing(believed), passing(trail)]

    def _rest_height(self, name: str) -> float:
        item = next(item for item in self._task.objects if item.name == name)
        return self._task.table.top_m + item.solid.rest_height_m


def _predicted(status: PolicyStatus | None) -> Point | None:
    """[3] m, base frame; None if the policy predicts nothing at present."""
    if status is None:
        return None
    place = status.predicted_object_position
    point = (place.x, place.y, place.z)
    return point if all(map(math.isfinite, point)) else None
