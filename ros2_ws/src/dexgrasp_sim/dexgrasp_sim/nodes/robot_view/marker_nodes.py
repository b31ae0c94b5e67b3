"""Markers as nodes of a viser scene."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray
from visualization_msgs.msg import Marker

from dexgrasp_sim.view.robot_nodes import color_bytes

_LABELS = {"goal": "goal", "prediction": "predicted object"}
"""Words beside the first marker of a namespace."""
_LABEL_ABOVE_M = 0.03
_LABEL_SIZE = 0.8
_UNIT_RADIUS_M = 0.5


class MarkerNodes:
    """Shows markers of the base frame, each as the node /markers/<namespace>/<number>.

    Text is left out: a page says in its panel what rviz can only write into the scene.
    """

    def __init__(self, scene: viser.SceneApi) -> None:
        self._scene = scene
        self._shown: dict[tuple[str, int], tuple[tuple, Any]] = {}
        self._labels: dict[str, viser.LabelHandle] = {}

    def show(self, markers: Mapping[tuple[str, int], Marker]) -> None:
        """Makes the scene show these markers and no others."""
        for key in self._shown.keys() - markers.keys():
            self._shown.pop(key)[1].remove()
            namespace, number = key
            if number == 0 and namespace in self._labels:
                self._labels.pop(namespace).remove()
        for key, marker in markers.items():
            look = _look(marker)
            if key not in self._shown or self._shown[key][0] != look:
                node = self._add_shape(f"/markers/{marker.ns}/{marker.id}", marker)
                if node is None:
                    continue
                self._shown[key] = look, node
            place, turn = marker.pose.position, marker.pose.orientation
            node = self._shown[key][1]
            node.position = np.array([place.x, place.y, place.z])
            node.wxyz = np.array([turn.w, turn.x, turn.y, turn.z])
            self._label(marker)

    def clear(self) -> None:
        """Removes all."""
        self.show({})

    def _label(self, marker: Marker) -> None:
        """Moves the words beside a marker, which are no part of it: its scale is not theirs."""
        if marker.id != 0 or marker.ns not in _LABELS:
            return
        place = marker.pose.position
        above = np.array([place.x, place.y, place.z + _LABEL_ABOVE_M])
        if marker.ns not in self._labels:
            self._labels[marker.ns] = self._scene.add_label(
                f"/labels/{marker.ns}",
                _LABELS[marker.ns],
                anchor="bottom-center",
                font_screen_scale=_LABEL_SIZE,
            )
        self._labels[marker.ns].position = above

    def _add_shape(self, name: str, marker: Marker) -> Any:
        """The node; None for kinds that are not shown."""
        scene, kind = self._scene, marker.type
        color = color_bytes((marker.color.r, marker.color.g, marker.color.b))
        opacity = marker.color.a if marker.color.a < 1 else None
        size = (marker.scale.x, marker.scale.y, marker.scale.z)
        solid = {"color": color, "opacity": opacity, "cast_shadow": opacity is None}
        if kind == Marker.CUBE:
            return scene.add_box(name, dimensions=size, **solid)
        if kind == Marker.SPHERE:
            return scene.add_icosphere(name, _UNIT_RADIUS_M, scale=size, **solid)
        if kind == Marker.CYLINDER:
            return scene.add_cylinder(name, _UNIT_RADIUS_M, 1.0, scale=size, **solid)
        points = _points(marker)
        if kind == Marker.TRIANGLE_LIST:
            faces = np.arange(len(points), dtype=np.uint32).reshape(-1, 3)
            return scene.add_mesh_simple(name, points, faces, side="double", **solid)
        if kind == Marker.LINE_STRIP:
            points = np.stack([points[:-1], points[1:]], axis=1)
        elif kind == Marker.LINE_LIST:
            points = points.reshape(-1, 2, 3)
        else:
            return None
        return scene.add_line_segments(name, points, color, thickness=marker.scale.x)


def _points(marker: Marker) -> NDArray[np.float32]:
    rows = [(point.x, point.y, point.z) for point in marker.points]
    return np.array(rows, np.float32).reshape(-1, 3)


def _look(marker: Marker) -> tuple:
    """Everything but the pose."""
    color, scale = marker.color, marker.scale
    return (
        marker.type,
        (color.r, color.g, color.b, color.a),
        (scale.x, scale.y, scale.z),
        _points(marker).tobytes(),
    )
