"""Publishes the watched environment on topics for rviz."""

from collections.abc import Mapping

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2
from std_msgs.msg import Header, String
from torch import Tensor
from visualization_msgs.msg import Marker, MarkerArray

from dexgrasp_sim.nodes.conversions import (
    BASE_FRAME,
    to_camera_info,
    to_image,
    to_joint_state,
    to_stamp,
)
from dexgrasp_sim.nodes.display.frames import (
    COMMANDED,
    FrameTopics,
    RobotFrames,
    camera_frames,
    camera_pose,
    optical_frame,
)
from dexgrasp_sim.nodes.display.images import Mark, View, overlay, side_by_side
from dexgrasp_sim.nodes.display.markers import (
    goal_marker,
    object_marker,
    stamped,
    table_marker,
    text,
    workspace_marker,
)
from dexgrasp_sim.nodes.display.point_cloud import point_cloud
from dexgrasp_sim.nodes.display.robot_markers import RobotMarkers
from dexgrasp_sim.nodes.qos import LATCHED, NEWEST
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.transport.telemetry import EnvView
from dexgrasp_sim.view.depth_colors import colorize_depth

IMAGE_TOPIC, POINTS_TOPIC = "display/image", "display/points"
_GOAL_COLOR, _OBJECT_COLOR = (60, 220, 90), (255, 160, 40)
_TEXT_RGB = (0.95, 0.95, 0.95)
_TEXT_HEIGHT_M = 0.05
_TEXT_ABOVE_GOAL_M = 0.35


class SceneTopics:
    """Publishers of robot, objects and images; topic names are relative, those of frames absolute.

    All nodes publish on the same names, so a display shows the watched environment whichever node
    publishes it. What is for displays only is made only while somebody subscribes to it.
    """

    def __init__(self, node: Node, task: GraspConfig) -> None:
        self._clock = node.get_clock()
        self._task, self._robot = task, task.load_robot()
        self._joints = node.create_publisher(JointState, "joint_states", 1)
        self._markers = node.create_publisher(MarkerArray, "markers", 1)
        self._images = node.create_publisher(Image, "camera/depth/image_raw", NEWEST)
        self._infos = node.create_publisher(CameraInfo, "camera/depth/camera_info", NEWEST)
        self._pictures = node.create_publisher(Image, IMAGE_TOPIC, NEWEST)
        self._points = node.create_publisher(PointCloud2, POINTS_TOPIC, NEWEST)
        self._description = node.create_publisher(String, "robot_description", LATCHED)
        self._description.publish(String(data=self._robot.urdf_path.read_text()))
        self._frames = FrameTopics(node)
        self._measured = RobotFrames(self._robot)
        self._commanded = RobotFrames(self._robot, COMMANDED)
        self._robot_markers = RobotMarkers(self._robot)
        cameras = camera_frames(
            BASE_FRAME, task.camera, task.stereo_baseline_m, ("depth", "left", "right")
        )
        self._frames.fix([*self._measured.fixed, *self._commanded.fixed, *cameras])

    def publish(self, view: EnvView, images: Mapping[str, Tensor]) -> None:
        """Publishes the environment at one time.

        Args:
            view: Robot, object and goal.
            images: Those of `depth` [H, W] int16 mm and `stereo_rgb` [2, 3, H, W] uint8 that the
                run has.
        """
        stamp = to_stamp(self._clock, view.time_s)
        values = {name: tensor.tolist() for name, tensor in view.values.items()}
        names, measured = self._robot.joint_names, values["joint_position"]
        joints = (measured, values["joint_velocity"])
        self._joints.publish(to_joint_state(names, *joints, stamp))
        if self._frames.watched:
            targets = dict(zip(names, values["joint_target"]))
            moved = self._measured.moving(dict(zip(names, measured)), stamp)
            self._frames.move([*moved, *self._commanded.moving(targets, stamp)])
        if self._markers.get_subscription_count():
            self._markers.publish(stamped(self._scene(view), stamp))
        self._publish_images(values, images, stamp)

    def _scene(self, view: EnvView) -> list[Marker]:
        task, goal = self._task, view.values["goal"].tolist()
        item = task.objects[view.env % len(task.objects)]  # see GraspEnv
        above = (goal[0], goal[1], goal[2] + _TEXT_ABOVE_GOAL_M)
        words = f"environment {view.env}: {item.name}"
        return [
            table_marker(task.table),
            object_marker(item, view.values["object_pose"].tolist()),
            goal_marker(goal),
            workspace_marker(task.workspace),
            text("status", above, words, _TEXT_HEIGHT_M, _TEXT_RGB),
            *self._robot_markers.at(view.values["joint_position"].double().numpy(), ()),
        ]

    def _publish_images(
        self, values: Mapping[str, list], images: Mapping[str, Tensor], stamp: Time
    ) -> None:
        pictures = {}
        if "depth" in images:
            depth = images["depth"].numpy()
            image = to_image(depth.view(np.uint16), optical_frame("depth"), stamp)
            self._images.publish(image)
            self._infos.publish(to_camera_info(image, self._task.camera.focal_px))
            pictures["depth"] = colorize_depth(depth[None], self._task.camera)[0]
            if self._points.get_subscription_count():
                self._publish_points(depth, pictures["depth"], image.header)
        if "stereo_rgb" in images and self._pictures.get_subscription_count():
            pair = images["stereo_rgb"].permute(0, 2, 3, 1).numpy()
            pictures |= {"left": pair[0], "right": pair[1]}
        if pictures and self._pictures.get_subscription_count():
            marks = [
                Mark(np.array(values["goal"]), _GOAL_COLOR, "cross", "goal"),
                Mark(np.array(values["object_pose"][:3]), _OBJECT_COLOR, "circle", "object"),
            ]
            picture = draw_views(self._task, pictures, marks)
            first, *_ = pictures
            self._pictures.publish(to_image(picture, optical_frame(first), stamp))

    def _publish_points(
        self, depth: NDArray[np.int16], colors: NDArray[np.uint8], header: Header
    ) -> None:
        camera = self._task.camera
        focal = (camera.focal_px, camera.focal_px)
        center = ((camera.width - 1) / 2, (camera.height - 1) / 2)
        self._points.publish(point_cloud(depth, colors, focal, center, header))


def draw_views(
    task: GraspConfig, pictures: Mapping[str, NDArray[np.uint8]], marks: list[Mark]
) -> NDArray[np.uint8]:
    """Images [H, W, 3] by stream as the task's cameras see them, with marks, side by side."""
    left, right = task.camera.stereo_pair(task.stereo_baseline_m)
    drawn = []
    for stream, picture in pictures.items():
        camera = right if stream == "right" else left
        center = ((camera.width - 1) / 2, (camera.height - 1) / 2)
        view = View(camera_pose(camera), (camera.focal_px, camera.focal_px), center)
        drawn.append(overlay(picture, view, marks))
    return side_by_side(drawn)
