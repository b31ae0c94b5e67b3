"""A RealSense of librealsense's own software device: real pipelines without a camera."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.realsense import librealsense

WIDTH, HEIGHT, RATE_HZ = 64, 48, 30
BASELINE_M = 0.05
_STREAMS = ("depth", "left", "right", "color")


class SoftwareRealSense:
    """A device that sends frames in a thread of its own.

    Attributes:
        device: For the driver.
        change: Of every frame: takes its name (`depth`, `left`, `right`, `color`) and a dict with
            `pixels`, `number`, `stamp_ms` and `domain`; returns whether it is sent.
        sent: How many moments were sent.
    """

    def __init__(
        self,
        serial: str = "SW1",
        coefficients: tuple[float, ...] = (0.0,) * 5,
        focal_px: float = 60.0,
        streams: tuple[str, ...] = _STREAMS,
    ) -> None:
        self.rs = rs = librealsense()
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.serial_number, serial)
        self.device.register_info(rs.camera_info.name, "software camera")
        self.change: Callable[[str, dict[str, Any]], bool] = lambda name, frame: True
        self.sent = 0
        self._coefficients, self._focal_px = coefficients, focal_px
        stereo = self.device.add_sensor("Stereo Module")
        color = self.device.add_sensor("RGB Camera")
        stereo.add_read_only_option(rs.option.depth_units, 0.001)
        on_or_off = rs.option_range()
        on_or_off.min, on_or_off.max, on_or_off.step, on_or_off.default = 0.0, 1.0, 1.0, 0.0
        stereo.add_option(rs.option.emitter_enabled, on_or_off, True)
        kinds = {
            "depth": (stereo, rs.stream.depth, 0, rs.format.z16, 2),
            "left": (stereo, rs.stream.infrared, 1, rs.format.y8, 1),
            "right": (stereo, rs.stream.infrared, 2, rs.format.y8, 1),
            "color": (color, rs.stream.color, 0, rs.format.rgb8, 3),
        }
        self._sensors = {name: kinds[name][0] for name in streams}
        self._bytes = {name: kinds[name][4] for name in streams}
        self._profiles = {
            name: self._add_stream(uid, *kinds[name]) for uid, name in enumerate(streams)
        }
        if "right" in streams:
            extrinsics = rs.extrinsics()
            extrinsics.rotation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            extrinsics.translation = [-BASELINE_M, 0.0, 0.0]
            self._profiles["left"].register_extrinsics_to(self._profiles["right"], extrinsics)
        self.device.create_matcher(rs.matchers.default)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "SoftwareRealSense":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _add_stream(
        self, uid: int, sensor: Any, kind: Any, index: int, pixels: Any, size: int
    ) -> Any:
        rs, lens = self.rs, self.rs.intrinsics()
        lens.width, lens.height = WIDTH, HEIGHT
        lens.fx = lens.fy = self._focal_px
        lens.ppx, lens.ppy = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
        lens.model, lens.coeffs = rs.distortion.brown_conrady, list(self._coefficients)
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid = kind, index, uid
        stream.width, stream.height, stream.fps = WIDTH, HEIGHT, RATE_HZ
        stream.bpp, stream.fmt, stream.intrinsics = size, pixels, lens
        return sensor.add_video_stream(stream, True).as_video_stream_profile()

    def _run(self) -> None:
        while not self._stop.wait(1.0 / RATE_HZ):
            self.sent += 1
            for name in self._sensors:
                frame = {
                    "pixels": picture(name, self.sent),
                    "number": self.sent,
                    "stamp_ms": 1000.0 * self.sent / RATE_HZ,
                    "domain": self.rs.timestamp_domain.hardware_clock,
                }
                if self.change(name, frame):
                    # no pipeline is open while the driver opens it again
                    with contextlib.suppress(RuntimeError):
                        self._send(name, **frame)

    def _send(
        self, name: str, pixels: NDArray[Any], number: int, stamp_ms: float, domain: Any
    ) -> None:
        frame = self.rs.software_video_frame()
        frame.pixels = pixels
        frame.bpp, frame.stride = self._bytes[name], WIDTH * self._bytes[name]
        frame.timestamp, frame.domain = stamp_ms, domain
        frame.frame_number, frame.profile = number, self._profiles[name]
        if name == "depth":
            frame.depth_units = 0.001
        self._sensors[name].on_video_frame(frame)


def picture(name: str, number: int) -> NDArray[Any]:
    """The image of a stream at a moment; its first pixel tells the moment."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    if name == "depth":
        image = (500 + rows + columns).astype(np.uint16)
        image[0, 0] = number
        return image
    image = ((rows + 2 * columns + (7 if name == "right" else 0)) % 200).astype(np.uint8)
    image[0, 0] = number % 256
    return image if name != "color" else np.repeat(image[..., np.newaxis], 3, axis=2)
