"""The camera's images with what the robot knows drawn into them, and as points in space."""

from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from dexgrasp_deploy.calibration.results.extrinsics import Extrinsics
from dexgrasp_deploy.control.sensing.image_message import (
    ImageError,
    from_camera_info,
    from_image,
)
from dexgrasp_deploy.drivers.base import Intrinsics
from dexgrasp_deploy.nodes.display.robot_state import RobotState
from dexgrasp_sim.nodes.conversions import BASE_FRAME, to_image
from dexgrasp_sim.nodes.display.frames import camera_frames, optical_frame, pose_matrix, transform
from dexgrasp_sim.nodes.display.images import Mark, View, overlay, side_by_side
from dexgrasp_sim.nodes.display.point_cloud import point_cloud
from dexgrasp_sim.nodes.display.scene_topics import IMAGE_TOPIC, POINTS_TOPIC
from dexgrasp_sim.nodes.qos import NEWEST
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.view.depth_colors import colorize_depth

_STREAMS = {"depth": ("depth",), "stereo_rgb": ("left", "right"), None: ()}


class CameraViews:
    """Topics `display/image` and `display/points`; the camera is listened to only while somebody
    subscribes to them.

    Attributes:
        frames: Where the cameras are.
    """

    def __init__(
        self, node: Node, task: GraspConfig, image: str | None, place: Extrinsics | None
    ) -> None:
        """Args:
        node: The owner.
        task: Of the policy; its camera is taken where nothing else is known.
        image: The policy's group of images; None: it sees none.
        place: Where the camera was found by calibration.
        """
        self._node, self._task = node, task
        self._streams = _STREAMS[image]
        self.frames = camera_frames(BASE_FRAME, task.camera, task.stereo_baseline_m, self._streams)
        if place is not None and self.frames:
            self.frames = _calibrated(place, self._streams, task.stereo_baseline_m)
        self._images: dict[str, Image] = {}
        self._intrinsics: dict[str, Intrinsics] = {}
        self._shown: dict[str, Any] = {}
        self._listening: list[Subscription] = []
        self._pictures = node.create_publisher(Image, IMAGE_TOPIC, NEWEST)
        self._points = node.create_publisher(PointCloud2, POINTS_TOPIC, NEWEST)

    def publish(self, marks: list[Mark], state: RobotState) -> None:
        """Publishes what is new; called by a timer.

        Args:
            marks: What to draw into the images.
            state: The robot, for a camera on its hand.
        """
        wants_picture = self._pictures.get_subscription_count() > 0
        wants_points = self._points.get_subscription_count() > 0 and "depth" in self._streams
        self._listen(wants_picture or wants_points)
        if not self._streams or not all(name in self._images for name in self._streams):
            return
        stamps = {name: image.header.stamp for name, image in self._images.items()}
        if stamps == self._shown:
            return
        self._shown = stamps
        try:
            pixels = {name: from_image(self._images[name]) for name in self._streams}
        except ImageError as error:
            text = f"no picture: {error}"
            self._node.get_logger().warning(text, throttle_duration_sec=10.0)
            return
        first = self._images[self._streams[0]]
        if wants_points:
            self._publish_points(pixels["depth"], first)
        if wants_picture:
            picture = self._picture(pixels, marks, state)
            frame = optical_frame(self._streams[0])
            self._pictures.publish(to_image(picture, frame, first.header.stamp))

    def _picture(
        self, pixels: dict[str, NDArray[Any]], marks: list[Mark], state: RobotState
    ) -> NDArray[np.uint8]:
        drawn = []
        for place, (name, image) in zip(self.frames, pixels.items(), strict=True):
            colors = self._colors(image) if name == "depth" else image
            pose = pose_matrix(place)
            parent = place.header.frame_id
            above = np.eye(4) if parent == BASE_FRAME else state.pose_of(parent)
            view = None
            if above is not None:
                intrinsics = self._intrinsics_of(name, colors)
                view = View(above @ pose, intrinsics.focal_px, intrinsics.center_px)
            drawn.append(overlay(colors, view, marks))
        height = min(image.shape[0] for image in drawn)
        return side_by_side([image[:height] for image in drawn])

    def _publish_points(self, depth: NDArray[np.uint16], image: Image) -> None:
        intrinsics = self._intrinsics_of("depth", depth)
        header = image.header
        header.frame_id = optical_frame("depth")
        colors = self._colors(depth)
        cloud = point_cloud(depth, colors, intrinsics.focal_px, intrinsics.center_px, header)
        self._points.publish(cloud)

    def _colors(self, depth: NDArray[np.uint16]) -> NDArray[np.uint8]:
        return colorize_depth(depth[None], self._task.camera)[0]

    def _intrinsics_of(self, stream: str, pixels: NDArray[Any]) -> Intrinsics:
        """As the camera says; the task's where it says nothing."""
        height, width = pixels.shape[:2]
        camera = self._task.camera
        ideal = Intrinsics.centered(width, height, camera.focal_px * height / camera.height)
        return self._intrinsics.get(stream, ideal)

    def _listen(self, wanted: bool) -> None:
        """Begins or ends to listen to the camera."""
        if wanted == bool(self._listening) or not self._streams:
            return
        if not wanted:
            for subscription in self._listening:
                self._node.destroy_subscription(subscription)
            self._listening.clear()
            self._images.clear()
            return
        for name in self._streams:
            take = (partial(self._on_image, name), partial(self._on_info, name))
            create = self._node.create_subscription
            self._listening += [
                create(Image, f"camera/{name}/image_raw", take[0], NEWEST),
                create(CameraInfo, f"camera/{name}/camera_info", take[1], NEWEST),
            ]

    def _on_image(self, stream: str, message: Image) -> None:
        self._images[stream] = message

    def _on_info(self, stream: str, message: CameraInfo) -> None:
        self._intrinsics[stream] = from_camera_info(message)


def _calibrated(
    place: Extrinsics, streams: tuple[str, ...], baseline_m: float
) -> list[TransformStamped]:
    """The frames of the cameras where calibration has found the first one."""
    frames = []
    for name in streams:
        matrix = place.matrix.copy()
        if name == "right":
            matrix[:3, 3] += baseline_m * matrix[:3, 0]
        frames.append(transform(place.parent, optical_frame(name), matrix))
    return frames
