"""Robot, table, object, goal, spawn area and cameras as nodes of a viser scene."""

import numpy as np
import viser
from scipy.spatial.transform import Rotation

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.robot.model import RobotModel
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.view.robot_nodes import Color, RobotNodes, color_bytes
from dexgrasp_sim.view.source import Moment
from dexgrasp_sim.vision.camera import CameraConfig

_TABLE_COLOR: Color = (150, 112, 78)
_GOAL_COLOR: Color = (40, 170, 70)
_SPAWN_COLOR: Color = (30, 110, 220)
_CAMERA_COLOR: Color = (200, 60, 60)
_GOAL_RADIUS_M = 0.015
_SPAWN_LINE_M = 0.003
_ABOVE_TABLE_M = 0.002
_CAMERA_SIZE_M = 0.025
_LABEL_SIZE = 0.8
_LABEL_ABOVE_CAMERA_M = 0.04


class SceneView:
    """The nodes of one scene.

    Names: /table, /spawn, /goal, /object, /camera/left, /camera/right, and those of RobotNodes.
    """

    def __init__(self, scene: viser.SceneApi, robot: RobotModel, config: GraspConfig) -> None:
        """Adds everything except the object, which `show` adds.

        Args:
            scene: What to add to.
            robot: Its visual shapes are shown.
            config: The task.
        """
        self._scene, self._config = scene, config
        self._shown_object: ObjectConfig | None = None
        self._add_surroundings()
        self._robot = RobotNodes(scene, robot)
        left, right = config.camera.stereo_pair(config.stereo_baseline_m)
        self._add_camera("left", left)
        self._add_camera("right", right)
        x, y, z = config.camera.position_m
        self._add_label("/camera/label", "cameras", (x, y, z + _LABEL_ABOVE_CAMERA_M))

    def show(self, moment: Moment) -> None:
        """Updates the poses of robot, object and goal, and shows the object of the environment."""
        item = self._config.objects[moment.env % len(self._config.objects)]
        if item is not self._shown_object:
            self._object, self._shown_object = self._add_object(item), item
        self._robot.show(moment.joint_position)
        pose = moment.object_pose.numpy()
        self._object.position, self._object.wxyz = pose[:3], pose[3:]
        self._goal.position = moment.goal.numpy()

    def _add_surroundings(self) -> None:
        scene, config = self._scene, self._config
        table = config.table
        scene.add_box("/table", _TABLE_COLOR, table.size_m, position=table.center_m)
        scene.add_line_segments(
            "/spawn", self._spawn_lines(), _SPAWN_COLOR, thickness=_SPAWN_LINE_M
        )
        self._goal = scene.add_icosphere("/goal", _GOAL_RADIUS_M, _GOAL_COLOR, opacity=0.7)
        self._add_label("/goal/label", "goal", (0.0, 0.0, 2 * _GOAL_RADIUS_M))
        corner = self._spawn_lines()[0, 0]
        self._add_label("/spawn/label", "objects start here", tuple(corner.tolist()))

    def _add_label(self, name: str, text: str, position: tuple[float, ...]) -> None:
        place = np.array(position)
        self._scene.add_label(
            name, text, position=place, anchor="bottom-center", font_screen_scale=_LABEL_SIZE
        )

    def _spawn_lines(self) -> np.ndarray:
        """[4, 2, 3] m: the rectangle in which objects start, just above the table."""
        spawn = self._config.spawn
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        corners = np.full((4, 3), self._config.table.top_m + _ABOVE_TABLE_M)
        corners[:, :2] = spawn.center_m + signs * spawn.half_width_m
        return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)

    def _add_object(self, item: ObjectConfig) -> viser.MeshHandle:
        corners = item.solid.triangles().reshape(-1, 3).astype(np.float32)
        faces = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
        color = color_bytes(item.rgb)
        return self._scene.add_mesh_simple("/object", corners, faces, color=color, side="double")

    def _add_camera(self, side: str, camera: CameraConfig) -> None:
        turn = Rotation.from_matrix(camera.rotation_ros).as_quat(scalar_first=True)
        self._scene.add_camera_frustum(
            f"/camera/{side}",
            fov=float(np.deg2rad(camera.fovy_deg)),
            aspect=camera.width / camera.height,
            scale=_CAMERA_SIZE_M,
            thickness=0.002,
            color=_CAMERA_COLOR,
            position=camera.position,
            wxyz=turn,
        )
