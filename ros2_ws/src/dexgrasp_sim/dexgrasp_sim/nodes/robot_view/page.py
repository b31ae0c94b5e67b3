"""The page of a robot: the scene, and a panel with state, images, joints and a stop button."""

import html
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import viser
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image

from dexgrasp_msgs.msg import PolicyStatus
from dexgrasp_sim.nodes.display.point_cloud import points_of
from dexgrasp_sim.nodes.robot_view.graph import RobotGraph
from dexgrasp_sim.nodes.robot_view.joint_table import joint_table
from dexgrasp_sim.nodes.robot_view.marker_nodes import MarkerNodes
from dexgrasp_sim.robot.model import RobotModel
from dexgrasp_sim.view.robot_nodes import RobotNodes
from dexgrasp_sim.view.server import furnish

_AIM_M = np.array([-0.4, 0.13, 0.42])
_GHOST_COLOR = (60, 130, 230)
_GHOST_OPACITY = 0.25
_CAMERA_COLOR = (200, 60, 60)
_CAMERA_SIZE_M = 0.05
_CAMERA_FOV_RAD = 0.7
_POINT_M = 0.004
_PAPER = np.full((1, 1, 3), 255, np.uint8)
_GREY, _GREEN, _YELLOW, _RED = "#868e96", "#2f9e44", "#e67700", "#c92a2a"
_STATES = {
    PolicyStatus.IDLE: ("IDLE", _GREY),
    PolicyStatus.RUNNING: ("RUNNING", _GREEN),
    PolicyStatus.HOLD: ("HOLD", _YELLOW),
    PolicyStatus.FAULT: ("FAULT", _RED),
}
_STOP = "STOP the robot"


@dataclass
class Wishes:
    """What the user has asked for and was not yet done.

    Attributes:
        stop: Whether to stop the robot.
    """

    stop: bool = False


class RobotPage:
    """Shows what a `RobotGraph` has read. Callbacks of the page only write `wishes`."""

    def __init__(self, server: viser.ViserServer) -> None:
        """Adds everything that does not depend on the robot."""
        self.wishes = Wishes()
        self._server, self._scene = server, server.scene
        furnish(server, _AIM_M)
        self._markers = MarkerNodes(server.scene)
        self._model: RobotModel | None = None
        self._robots: list[RobotNodes] = []
        self._cameras: dict[str, viser.CameraFrustumHandle] = {}
        self._cloud: viser.PointCloudHandle | None = None
        self._drawn: tuple[object, object] = (None, None)
        gui = server.gui
        gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        gui.set_panel_label("dexgrasp")
        self._state = gui.add_html("")
        self._stop = gui.add_button(_STOP, color="red", visible=False)
        self._stop.on_click(self._on_stop)
        self._picture = gui.add_image(_PAPER, label="what the policy sees", visible=False)
        self._facts = gui.add_html("")
        with gui.add_folder("show", expand_by_default=False):
            self._shows = {
                name: gui.add_checkbox(name, initial_value=True)
                for name in ("commanded robot", "points", "markers", "cameras")
            }
        self._joints = gui.add_html("")
        self.wait_for("a robot")

    def wait_for(self, what: str) -> None:
        """Says what is missing, and removes what was shown before."""
        self._say("WAITING", _GREY, f"for {what}")
        self._stop.visible = self._picture.visible = False
        self._facts.content = self._joints.content = ""
        self._show_scene(None)

    def show(self, graph: RobotGraph) -> None:
        """Shows the present state of a robot."""
        with self._server.atomic():
            self._show_scene(graph)
        self._show_state(graph)
        self._stop.visible = graph.can_stop
        self._stop.disabled = graph.is_stopped
        if graph.picture is not None and graph.picture is not self._drawn[0]:
            self._picture.image, self._picture.visible = _pixels(graph.picture), True
            self._drawn = graph.picture, self._drawn[1]
        self._facts.content = _facts(graph)
        if graph.robot is not None:
            self._joints.content = joint_table(graph.robot, graph.measured, graph.commanded)

    def _on_stop(self, _: viser.GuiEvent) -> None:
        self.wishes.stop = True

    def _show_state(self, graph: RobotGraph) -> None:
        status = graph.status
        if graph.is_stopped:
            self._say("EMERGENCY STOP", _RED, "clear it with the service policy/reset")
        elif status is None:
            self._say("NO POLICY", _GREY, "the robot is measured; nothing drives it")
        else:
            name, color = _STATES[status.state]
            self._say(name, color, status.message)

    def _say(self, state: str, color: str, words: str) -> None:
        self._state.content = (
            "<div style='padding:0.4em 0.8em'>"
            f"<span style='background:{color};color:white;border-radius:0.3em;font-weight:700;"
            f"padding:0.15em 0.6em'>{state}</span> "
            f"<span style='font-size:0.85em'>{html.escape(words)}</span></div>"
        )

    def _show_scene(self, graph: RobotGraph | None) -> None:
        if graph is None or graph.robot is None:
            self._rebuild(None)
            self._markers.clear()
            return
        if graph.robot is not self._model:
            self._rebuild(graph.robot)
        robot, ghost = self._robots
        robot.show(graph.position(graph.measured))
        ghost.root.visible = bool(graph.commanded) and self._shows["commanded robot"].value
        if ghost.root.visible:
            ghost.show(graph.position(graph.measured | graph.commanded))
        self._markers.show(graph.markers if self._shows["markers"].value else {})
        self._show_cameras(graph)
        self._show_points(graph)

    def _rebuild(self, model: RobotModel | None) -> None:
        """Shows another robot, or none."""
        for robot in self._robots:
            robot.remove()
        for camera in self._cameras.values():
            camera.remove()
        if self._cloud is not None:
            self._cloud.remove()
        self._robots, self._cameras, self._cloud = [], {}, None
        self._drawn = None, None
        self._model = model
        if model is not None:
            ghost = RobotNodes(self._scene, model, "/commanded", _GHOST_OPACITY, _GHOST_COLOR)
            self._robots = [RobotNodes(self._scene, model), ghost]

    def _show_cameras(self, graph: RobotGraph) -> None:
        for frame in graph.cameras:
            pose = graph.pose_of(frame)
            if pose is None:
                continue
            if frame not in self._cameras:
                self._cameras[frame] = self._scene.add_camera_frustum(
                    f"/cameras/{frame}",
                    fov=_CAMERA_FOV_RAD,
                    aspect=4 / 3,
                    scale=_CAMERA_SIZE_M,
                    thickness=0.002,
                    color=_CAMERA_COLOR,
                )
            camera = self._cameras[frame]
            camera.visible = self._shows["cameras"].value
            _place(camera, pose)

    def _show_points(self, graph: RobotGraph) -> None:
        message, shown = graph.points, self._shows["points"].value
        if self._cloud is not None:
            self._cloud.visible = shown
        if message is None or message is self._drawn[1] or not shown:
            return
        pose = graph.pose_of(message.header.frame_id)
        if pose is None:
            return
        self._drawn = self._drawn[0], message
        points, colors = points_of(message)
        if self._cloud is None:
            self._cloud = self._scene.add_point_cloud(
                "/points", points, colors, point_size=_POINT_M, point_shape="circle"
            )
        self._cloud.points, self._cloud.colors = points, colors
        _place(self._cloud, pose)


def _place(node: viser.SceneNodeHandle, pose: np.ndarray) -> None:
    """Puts a node at a pose [4, 4]."""
    node.position = pose[:3, 3]
    node.wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat(scalar_first=True)


def _pixels(message: Image) -> np.ndarray:
    """[H, W, 3] of an rgb8 image without padding, as the display node makes it."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def _facts(graph: RobotGraph) -> str:
    """Figures of robot and policy, and what devices complain about, as a table."""
    status = graph.status
    lines = []
    figures = [("joints measured", f"{graph.joint_hz:.0f} Hz")]
    if status is not None and status.bundle_id:
        policy = f"{status.bundle_id[:12]}, {status.control_hz:.0f} Hz"
        lines.append(f"<tr><td>policy</td><td colspan=3>{html.escape(policy)}</td></tr>")
        figures += [
            ("step", str(status.step)),
            ("safety interventions", str(status.clamped_commands)),
            ("late periods", str(status.deadline_misses)),
            ("inference", f"{1000 * status.inference_latency_s:.1f} ms"),
            ("observation age", f"{1000 * status.observation_age_s:.0f} ms"),
        ]
    cells = [f"<td>{name}</td><td>{words}</td>" for name, words in figures]
    pairs = zip_longest(cells[::2], cells[1::2], fillvalue="")
    lines += [f"<tr>{left}{right}</tr>" for left, right in pairs]
    lines += [
        f"<tr style='color:{_RED}'><td colspan=4>{html.escape(f'{name}: {words}')}</td></tr>"
        for name, words in graph.health.items()
    ]
    style = "font-size:0.78em;width:100%;line-height:1.6"
    return f"<div style='padding:0 0.6em'><table style='{style}'>{''.join(lines)}</table></div>"
