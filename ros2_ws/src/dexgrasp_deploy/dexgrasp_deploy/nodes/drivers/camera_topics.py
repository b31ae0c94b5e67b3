"""A depth camera or a pair behind another ROS driver."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dexgrasp_deploy.control.sensing.image_message import (
    ImageError,
    from_camera_info,
    from_compressed,
    from_image,
)
from dexgrasp_deploy.drivers.base import (
    CameraDriver,
    CameraSample,
    DriverContext,
    Health,
    Intrinsics,
    Level,
)
from dexgrasp_deploy.drivers.camera_config import ImageTopicConfig, ImageTopicsConfig
from dexgrasp_deploy.drivers.pairing import Exposure, StereoPairer
from dexgrasp_deploy.drivers.rectification import Rectifier, check_baseline, make_rectifiers
from dexgrasp_deploy.drivers.registry import driver_config
from dexgrasp_deploy.nodes.conversions import from_stamp
from dexgrasp_deploy.nodes.drivers.peer import (
    Obstacle,
    await_peer,
    full_topic,
    qos_profile,
    why_unconnected,
)
from dexgrasp_sim.config import ConfigError


class TopicCamera(CameraDriver):
    """Images on topics; parameters: ImageTopicsConfig."""

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Waits for the first exposure.

        Raises:
            ConfigError: Nothing arrives, images cannot be read, intrinsics are missing, or the
                baseline is not that of training; the message says which.
        """
        config = driver_config(ImageTopicsConfig, self.kind, parameters, self.profile)
        if context.node is None:
            raise ConfigError("camera.driver needs a ROS node; use camera_node")
        self._node: Node = context.node
        self._config, self._context = config, context
        pair = bool(config.left.image)
        rectifiers = make_rectifiers(config.calibration, context.manifest, pair)
        sides = ("left", "right") if pair else ("depth",)
        self._rectifiers: dict[str, Rectifier] = dict(zip(sides, rectifiers))
        self._pairer = StereoPairer(config.pairing)
        self._intrinsics: dict[str, Intrinsics] = {}
        self._problems: dict[str, str] = {}
        self._info_problems: dict[str, str] = {}
        self._heard: set[str] = set()
        self._sample: CameraSample | None = None
        self._newest_s = -np.inf
        self._topics = {side: _subscribed(getattr(config, side), side) for side in sides}
        self._subscriptions = [self._subscribe(side) for side in sides]
        self._subscriptions += [self._subscribe_info(side) for side in sides if self._info(side)]
        self._connect()

    def read(self) -> CameraSample | None:
        """The newest exposure that was not returned yet."""
        sample, self._sample = self._sample, None
        return sample

    def health(self) -> Health:
        """An error while no exposures come; the message says why."""
        age_s = time.monotonic() - self._newest_s
        if age_s <= self._config.timeout_s:
            return Health()
        return Health(Level.ERROR, f"no exposure for {age_s:.2g} s: {self._obstacle().reason}")

    def deactivate(self) -> None:
        """Leaves the topics."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _info(self, side: str) -> str:
        return getattr(self._config, side).info

    def _subscribe(self, side: str) -> Any:
        topic, kind = self._topics[side], _type_of(self._topics[side])
        own = {full_topic(self._node, f"camera/{name}/image_raw") for name in self._topics}
        if full_topic(self._node, topic) in own:
            raise ConfigError(
                f"camera.{side}.image = {topic!r}: dexgrasp publishes its own images there; start "
                "dexgrasp in a namespace (namespace:=dexgrasp)"
            )
        on_image = partial(self._on_image, side)
        qos = qos_profile(self._config.qos)
        return self._node.create_subscription(kind, topic, on_image, qos)

    def _subscribe_info(self, side: str) -> Any:
        on_info = partial(self._on_info, side)
        qos = qos_profile(self._config.qos)
        return self._node.create_subscription(CameraInfo, self._info(side), on_info, qos)

    def _connect(self) -> None:
        def obstacle() -> Obstacle | None:
            return self._obstacle() if self._sample is None else None

        if reason := await_peer(self._node, obstacle, self._config.connect_timeout_s):
            self.deactivate()
            raise ConfigError(f"camera: {reason}")

    def _obstacle(self) -> Obstacle:
        """Why there is no exposure."""
        for side, topic in self._topics.items():
            name = full_topic(self._node, topic)
            if side in self._problems:
                return Obstacle(f"{name}: {self._problems[side]}", lasting=True)
            if side in self._info_problems:
                return Obstacle(self._info_problems[side], lasting=True)
            if side not in self._heard:
                return self._no_images(name)
            if side not in self._rectifiers and side not in self._intrinsics:
                return self._no_intrinsics(side)
        paired = "left" in self._topics
        complaint = paired and self._pairer.complaint(time.monotonic(), self._config.timeout_s)
        return Obstacle(complaint or "the images have stopped")

    def _no_images(self, topic: str) -> Obstacle:
        qos = qos_profile(self._config.qos)
        kind = "CompressedImage" if _type_of(topic) is CompressedImage else "Image"
        found = why_unconnected(self._node, topic, f"sensor_msgs/msg/{kind}", qos, reads=True)
        found = found or Obstacle("its publisher is silent")
        return found._replace(reason=f"no images on {topic}: {found.reason}")

    def _no_intrinsics(self, side: str) -> Obstacle:
        if self._info(side):
            return Obstacle(f"no camera info on {self._info(side)}")
        text = f"camera.{side}.info is empty; name the topic, or give camera.calibration"
        return Obstacle(text, lasting=True)

    def _on_info(self, side: str, message: CameraInfo) -> None:
        intrinsics = from_camera_info(message)
        try:
            if not all(focal > 0 for focal in intrinsics.focal_px):
                raise ConfigError("has no focal length; calibrate the camera")
            if side == "right" and not self._rectifiers:
                share = self._config.calibration.baseline_share
                baseline_m = -message.p[3] / intrinsics.focal_px[0]
                check_baseline(baseline_m, self._context.manifest, share)
        except ConfigError as error:
            self._info_problems[side] = f"{self._info(side)}: {error}"
            self._intrinsics.pop(side, None)
            return
        self._info_problems.pop(side, None)
        self._intrinsics[side] = intrinsics

    def _on_image(self, side: str, message: Image | CompressedImage) -> None:
        self._heard.add(side)
        now_s, stamp = time.monotonic(), message.header.stamp
        stamped = self._config.stamp == "header" and (stamp.sec or stamp.nanosec)
        stamp_s = from_stamp(self._node.get_clock(), stamp) if stamped else now_s
        try:
            pixels = (
                from_image(message) if isinstance(message, Image) else from_compressed(message)
            )
            pixels = self._prepared(side, pixels)
        except (ImageError, ConfigError) as error:
            self._problems[side] = str(error)
            return
        self._problems.pop(side, None)
        intrinsics = self._ideal(side)
        if intrinsics is None:
            return
        exposure = Exposure(pixels, stamp_s, now_s)
        if side == "depth":
            self._take(CameraSample(pixels, stamp_s, intrinsics, now_s))
        elif pair := self._pairer.push("left" if side == "left" else "right", exposure):
            self._join(pair.left, pair.right)

    def _prepared(self, side: str, pixels: NDArray[Any]) -> NDArray[Any]:
        """A rectified image of the right kind."""
        wanted = 2 if side == "depth" else 3
        if pixels.ndim != wanted:
            kinds = {2: "a depth image", 3: "a colour image"}
            raise ImageError(f"{kinds[pixels.ndim]}, where {kinds[wanted]} is needed")
        if side == "right" and self._config.right_upside_down:
            pixels = np.ascontiguousarray(pixels[::-1, ::-1])
        rectify = self._rectifiers.get(side)
        return pixels if rectify is None else rectify(pixels)

    def _ideal(self, side: str) -> Intrinsics | None:
        rectify = self._rectifiers.get(side)
        return self._intrinsics.get(side) if rectify is None else rectify.target

    def _join(self, left: Exposure, right: Exposure) -> None:
        if left.image.shape != right.image.shape:
            sizes = f"{list(left.image.shape[:2])} and {list(right.image.shape[:2])}"
            self._problems["right"] = f"left and right image are {sizes}, not of one size"
            return
        stamp_s = min(left.stamp_s, right.stamp_s)
        arrival_s = min(left.arrival_s, right.arrival_s)
        pixels = np.stack((left.image, right.image))
        self._take(CameraSample(pixels, stamp_s, self._ideal("left"), arrival_s))

    def _take(self, sample: CameraSample) -> None:
        self._sample, self._newest_s = sample, time.monotonic()


def _subscribed(config: ImageTopicConfig, side: str) -> str:
    if not config.image:
        raise ConfigError(f"camera.{side}.image is empty; name a topic")
    return config.image


def _type_of(topic: str) -> type:
    is_compressed = topic.rsplit("/", maxsplit=1)[-1] in ("compressed", "compressedDepth")
    return CompressedImage if is_compressed else Image
