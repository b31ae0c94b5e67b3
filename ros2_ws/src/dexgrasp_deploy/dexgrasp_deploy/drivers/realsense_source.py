"""The open streams of RealSense cameras: frames become checked exposures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics
from dexgrasp_deploy.drivers.camera_config import RealSenseConfig
from dexgrasp_deploy.drivers.capture import SourceLost
from dexgrasp_deploy.drivers.exposure_clock import ExposureClock
from dexgrasp_deploy.drivers.pairing import Exposure, Pair, Side, StereoPairer
from dexgrasp_deploy.drivers.rectification import Rectifier, check_baseline
from dexgrasp_learner.storage.bundle import BundleManifest
from dexgrasp_sim.config import ConfigError

_MAX_DEPTH_MM = 65535
_SIDES: tuple[Side, Side] = ("left", "right")


class _Stream:
    """One stream of one device.

    Attributes:
        side: Of a pair; depth is the left one.
        kind: librealsense stream.
        index: Which of the streams of this kind; -1: any.
        format: librealsense format.
    """

    def __init__(self, side: Side, kind: Any, index: int, pixels: Any) -> None:
        self.side: Side = side
        self.kind, self.index, self.format = kind, index, pixels
        self.number = -1

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.kind).rsplit(".", maxsplit=1)[-1] + (
            f" {self.index}" if self.index > 0 else ""
        )


class _Device:
    """A running pipeline with its streams and clock."""

    def __init__(self, pipeline: Any, streams: Sequence[_Stream], clock: ExposureClock) -> None:
        self.pipeline, self.streams, self.clock = pipeline, streams, clock


class RealSenseSource:
    """See `capture.Source`. Pixels are copied at once: librealsense has few frames to lend."""

    def __init__(
        self,
        rs: Any,
        config: RealSenseConfig,
        rectifiers: Sequence[Rectifier],
        manifest: BundleManifest | None,
        clock: Callable[[], float],
        devices: Sequence[Any],
    ) -> None:
        """Args:
        rs: The module pyrealsense2.
        config: Streams, size and limits.
        rectifiers: For each side; none: images are rectified.
        manifest: Its baseline is that of a pair.
        clock: Monotonic seconds.
        devices: One for each pipeline; None: the recording.

        Raises:
            SourceLost: A stream does not start.
            ConfigError: Its intrinsics or baseline do not fit.
        """
        self._rs, self._config, self._clock = rs, config, clock
        self._rectifiers = dict(zip(_SIDES, rectifiers))
        self._pairer = StereoPairer(config.pairing)
        self._complaint = ""
        self._intrinsics: Intrinsics | None = None
        self._devices: list[_Device] = []
        try:
            for place, device in enumerate(devices):
                self._start(device, self._streams(place))
            if config.image == "infrared_pair":
                self._check_baseline(manifest)
        except BaseException:
            self.close()
            raise

    def next(self, timeout_s: float) -> CameraSample | None:
        """See `capture.Source`."""
        wait_ms = max(1, round(1000 * timeout_s / len(self._devices)))
        sample = None
        for device in self._devices:
            try:
                arrived, frames = device.pipeline.try_wait_for_frames(wait_ms)
            except RuntimeError as error:
                raise SourceLost(f"librealsense: {error}") from None
            if arrived:
                sample = self._exposure(device, frames) or sample
            else:
                self._complaint = self._complaint or "no frames arrive"
        return sample

    def complaint(self) -> str:
        """See `capture.Source`."""
        paired = self._config.image != "depth"
        timeout_s = self._config.capture.timeout_s
        unpaired = self._pairer.complaint(self._clock(), timeout_s) if paired else ""
        return "; ".join(text for text in (self._complaint, unpaired) if text)

    def close(self) -> None:
        """See `capture.Source`."""
        for device in self._devices:
            try:
                device.pipeline.stop()
            except RuntimeError:  # it had not started, or its device is gone
                continue
        self._devices.clear()

    def _streams(self, place: int) -> list[_Stream]:
        rs = self._rs
        if self._config.image == "depth":
            return [_Stream("left", rs.stream.depth, -1, rs.format.z16)]
        if self._config.image == "infrared_pair":
            return [
                _Stream(side, rs.stream.infrared, index, rs.format.y8)
                for index, side in enumerate(_SIDES, start=1)
            ]
        return [_Stream(_SIDES[place], rs.stream.color, -1, rs.format.rgb8)]

    def _start(self, device: Any, streams: list[_Stream]) -> None:
        rs, config = self._rs, self._config
        pipeline, wanted = rs.pipeline(), rs.config()
        if device is None:
            path = str(Path(config.file).expanduser())
            wanted.enable_device_from_file(path, repeat_playback=True)
        elif isinstance(device, rs.software_device):
            pipeline.set_device(device)
        else:
            wanted.enable_device(device.get_info(rs.camera_info.serial_number))
        for stream in streams:
            wanted.enable_stream(
                stream.kind,
                stream.index,
                *(config.width, config.height),
                stream.format,
                round(config.rate_hz),
            )
        try:
            profile = pipeline.start(wanted)
        except RuntimeError as error:
            size = f"{config.width}x{config.height} at {config.rate_hz:g} Hz"
            names = ", ".join(stream.name for stream in streams)
            raise SourceLost(f"{names} {size} does not start: {error}{_usb(rs, device)}") from None
        self._devices.append(_Device(pipeline, streams, ExposureClock(self._clock)))
        self._set_options(profile.get_device())
        self._read_intrinsics(profile, streams)

    def _set_options(self, device: Any) -> None:
        rs, config = self._rs, self._config
        emitter = config.image == "depth" if config.emitter == "auto" else config.emitter == "on"
        values = {rs.option.emitter_enabled: float(emitter)}
        if config.exposure_us > 0:
            values |= {
                rs.option.enable_auto_exposure: 0.0,
                rs.option.exposure: config.exposure_us,
            }
        for sensor in device.query_sensors():
            for option, value in values.items():
                if sensor.supports(option) and not sensor.is_option_read_only(option):
                    sensor.set_option(option, value)

    def _read_intrinsics(self, profile: Any, streams: list[_Stream]) -> None:
        for stream in streams:
            found = profile.get_stream(stream.kind, stream.index).as_video_stream_profile()
            rectified = bool(self._rectifiers)
            intrinsics = _intrinsics_of(found, stream.name, rectified)
            if stream.side == "left":
                self._intrinsics = intrinsics

    def _check_baseline(self, manifest: BundleManifest | None) -> None:
        profile = self._devices[0].pipeline.get_active_profile()
        infrared = self._rs.stream.infrared
        left, right = (profile.get_stream(infrared, index) for index in (1, 2))
        to_right = left.get_extrinsics_to(right).translation
        check_baseline(-to_right[0], manifest, self._config.calibration.baseline_share)

    def _exposure(self, device: _Device, frames: Any) -> CameraSample | None:
        """The exposure, or the pair that it completes; None where a frame cannot be used."""
        done = None
        for stream in device.streams:
            frame = self._frame(frames, stream)
            if frame is None:
                continue
            pixels, stamp_s = self._pixels(frame), self._stamp(device, frame)
            if pixels is None or stamp_s is None:
                continue
            exposure = Exposure(self._rectified(stream.side, pixels), stamp_s, self._clock())
            if self._config.image == "depth":
                done = self._sample(exposure.image, stamp_s)
            elif pair := self._pairer.push(stream.side, exposure):
                done = self._stereo(pair)
        return done

    def _frame(self, frames: Any, stream: _Stream) -> Any:
        """The newest frame of a stream; None if it is missing, repeated or out of order."""
        rs = self._rs
        if stream.kind == rs.stream.depth:
            frame = frames.get_depth_frame()
        elif stream.kind == rs.stream.infrared:
            frame = frames.get_infrared_frame(stream.index)
        else:
            frame = frames.get_color_frame()
        if not frame:
            self._complaint = f"{stream.name} is missing in the frames"
            return None
        number = frame.get_frame_number()
        if number <= stream.number and not self._config.file:
            self._complaint = f"{stream.name} repeats frame {number} after {stream.number}"
            return None
        stream.number = number
        return frame

    def _pixels(self, frame: Any) -> NDArray[Any] | None:
        pixels = np.array(frame.get_data())  # a copy
        expected = (self._config.height, self._config.width)
        if pixels.shape[:2] != expected:
            found = f"{pixels.shape[1]}x{pixels.shape[0]}"
            self._complaint = f"a frame is {found}, not {expected[1]}x{expected[0]}"
            return None
        if self._config.image != "depth":
            return pixels
        unit_mm = 1000.0 * frame.as_depth_frame().get_units()
        if abs(unit_mm - 1.0) < 1e-6:
            return pixels
        depth_mm = np.floor(pixels * unit_mm + 0.5)
        return np.where(depth_mm <= _MAX_DEPTH_MM, depth_mm, 0).astype(np.uint16)

    def _stamp(self, device: _Device, frame: Any) -> float | None:
        """Monotonic time of the exposure; None where the stamp is of another clock."""
        domain, stamp_s = frame.get_frame_timestamp_domain(), frame.get_timestamp() / 1000.0
        if self._config.file:
            return self._clock()  # a recording is played now
        by_device = domain == self._rs.timestamp_domain.hardware_clock
        convert = device.clock.of_device if by_device else device.clock.of_wall_clock
        at_s = convert(stamp_s)
        age_s = self._clock() - at_s
        if -self._config.max_age_s / 3 <= age_s <= self._config.max_age_s:
            return at_s
        name = str(domain).rsplit(".", maxsplit=1)[-1]
        self._complaint = (
            f"a stamp of the {name} is {age_s:.3g} s old, allowed {self._config.max_age_s} s: it "
            "is of another clock"
        )
        return None

    def _rectified(self, side: Side, pixels: NDArray[Any]) -> NDArray[Any]:
        rectify = self._rectifiers.get(side)
        return pixels if rectify is None else rectify(pixels)

    def _stereo(self, pair: Pair) -> CameraSample:
        both = np.stack([_as_rgb(one.image) for one in pair])
        return self._sample(both, pair.stamp_s)

    def _sample(self, image: NDArray[Any], stamp_s: float) -> CameraSample:
        self._complaint = ""
        left = self._rectifiers.get("left")
        intrinsics = self._intrinsics if left is None else left.target
        return CameraSample(image, stamp_s, intrinsics)


def _usb(rs: Any, device: Any) -> str:
    """A hint where the camera hangs on slow USB, which has no second infrared stream."""
    key = rs.camera_info.usb_type_descriptor
    if not isinstance(device, rs.device) or not device.supports(key):
        return ""
    kind = device.get_info(key)
    return "" if kind.startswith("3") else f"; the camera is on USB {kind}, use a USB 3 port"


def _intrinsics_of(profile: Any, name: str, rectified: bool) -> Intrinsics:
    """Checked intrinsics of a stream.

    Args:
        profile: A librealsense video stream profile.
        name: Of the stream, for messages.
        rectified: Whether a calibration file undistorts its images.

    Raises:
        ConfigError: They are not those of an ideal camera.
    """
    found = profile.get_intrinsics()
    if not (found.fx > 0 and found.fy > 0 and np.isfinite([found.ppx, found.ppy]).all()):
        raise ConfigError(f"camera: the {name} stream has no focal length; calibrate the camera")
    if any(found.coeffs) and not rectified:
        lens = [round(c, 4) for c in found.coeffs]
        raise ConfigError(
            f"camera: the {name} stream has lens distortion {lens}; give its camera.calibration"
        )
    return Intrinsics(found.width, found.height, (found.fx, found.fy), (found.ppx, found.ppy))


def _as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] of a colour image, or of a grey one with the same value in all channels."""
    if image.ndim == 3:
        return image
    return np.repeat(image[..., np.newaxis], 3, axis=2)
