"""The other end of a camera's topics: a node that publishes as a camera's own driver does."""

import contextlib
import threading
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

WIDTH, HEIGHT, FOCAL_PX = 64, 48, 60.0
PERIOD_S = 0.03


class CameraPeer:
    """Publishes images and camera infos, in a participant and a thread of its own.

    Attributes:
        change: Is applied to the stamp (ns) and the message of each image, by the topic; None: it
            is not sent.
    """

    def __init__(self, qos: QoSProfile) -> None:
        self.change: Callable[[str, Any], Any] = lambda topic, message: message
        self._qos, self._count = qos, 0
        self._images: list[tuple[Any, str, Callable[[int], Any]]] = []
        self._infos: list[tuple[Any, float]] = []
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("camera_peer", context=self.context)
        self.node.create_timer(PERIOD_S, self._publish)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def add(self, topic: str, make: Callable[[int], Any]) -> None:
        """Publishes an image; `make` takes the number of the moment."""
        kind = type(make(0))
        self._images.append((self.node.create_publisher(kind, topic, self._qos), topic, make))

    def add_info(self, topic: str, baseline_m: float = 0.0, focal_px: float = FOCAL_PX) -> None:
        """Publishes a camera info; of a right camera with the baseline."""
        message = CameraInfo(width=WIDTH, height=HEIGHT)
        center = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
        message.k = [focal_px, 0.0, center[0], 0.0, focal_px, center[1], 0.0, 0.0, 1.0]
        message.p = [
            *(focal_px, 0.0, center[0], -focal_px * baseline_m),
            *(0.0, focal_px, center[1], 0.0, 0.0, 0.0, 1.0, 0.0),
        ]
        publisher = self.node.create_publisher(CameraInfo, topic, self._qos)
        self.node.create_timer(PERIOD_S, lambda: publisher.publish(message))

    def __enter__(self) -> "CameraPeer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        rclpy.shutdown(context=self.context)
        self._thread.join(timeout=30)
        self.node.destroy_node()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _publish(self) -> None:
        self._count += 1
        stamp = self.node.get_clock().now().to_msg()
        for publisher, topic, make in self._images:
            message = make(self._count)
            message.header.stamp = stamp
            changed = self.change(topic, message)
            if changed is not None:
                publisher.publish(changed)


def image(pixels: NDArray[Any], encoding: str) -> Image:
    """An image message."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step, message.data = pixels[0].nbytes, array("B", pixels.tobytes())
    return message


def compressed(data: NDArray[np.uint8], kind: str) -> CompressedImage:
    """A compressed image message."""
    return CompressedImage(format=kind, data=array("B", data.tobytes()))


def later(message: Any, seconds: float) -> Any:
    """The message with a later stamp."""
    stamp = Time.from_msg(message.header.stamp).nanoseconds + round(seconds * 1e9)
    message.header.stamp = Time(nanoseconds=stamp).to_msg()
    return message
