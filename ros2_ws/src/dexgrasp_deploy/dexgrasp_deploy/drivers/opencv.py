"""Cameras and files that OpenCV reads: UVC devices, films, folders of PNG images."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import CameraSample, DriverContext
from dexgrasp_deploy.drivers.camera_config import OpenCvConfig
from dexgrasp_deploy.drivers.capture import Capture, CapturedCamera, SourceEnded, SourceLost
from dexgrasp_deploy.drivers.pairing import Exposure, Side, StereoPairer
from dexgrasp_deploy.drivers.rectification import Rectifier, make_rectifiers
from dexgrasp_deploy.drivers.registry import driver_config
from dexgrasp_sim.config import ConfigError

_SIDES: tuple[Side, Side] = ("left", "right")


class OpenCvCamera(CapturedCamera):
    """A depth or stereo camera, or a recording of one; parameters: OpenCvConfig."""

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Opens the sources and waits for the first exposure.

        Raises:
            ConfigError: A source is not there, the calibration is missing or does not fit, or no
                exposure comes.
        """
        config = driver_config(OpenCvConfig, self.kind, parameters, self.profile)
        pair = config.image == "stereo"
        rectifiers = make_rectifiers(config.calibration, context.manifest, pair)
        if not rectifiers:
            raise ConfigError(
                "camera.calibration.left is empty; OpenCV does not know the lens: give its camera "
                "info YAML" + (" and that of the right one" if pair else "")
            )
        live = config.source.startswith("/dev/")
        make = _OpenDevices if live else _OpenFiles
        self._capture = Capture(
            lambda reset: make(config, rectifiers, context.clock),
            config.capture,
            context.clock,
            live,
        )
        self._capture.start()


class _Open:
    """What devices and files have in common: images become samples; see `capture.Source`."""

    def __init__(
        self, config: OpenCvConfig, rectifiers: Sequence[Rectifier], clock: Callable[[], float]
    ) -> None:
        self._config, self._rectifiers, self._clock = config, rectifiers, clock
        self._pairer = StereoPairer(config.pairing)

    def complaint(self) -> str:
        """See `capture.Source`."""
        if not self._config.right_source:
            return ""
        return self._pairer.complaint(self._clock(), self._config.capture.timeout_s)

    def _sample(self, images: Sequence[NDArray[Any]], stamps_s: Sequence[float]) -> Any:
        """A sample of the images of all sources; None where a pair is skewed.

        Raises:
            ConfigError: An image is not of the kind or size that was configured.
        """
        if self._config.image == "depth":
            depth = _checked_depth(images[0], self._config.source)
            return CameraSample(
                self._rectifiers[0](depth), stamps_s[0], self._rectifiers[0].target
            )
        sides = [_colour(image) for image in images]
        if len(sides) == 1:
            sides = _halves(sides[0])
            stamps_s = (stamps_s[0], stamps_s[0])
        if self._config.right_upside_down:
            sides[1] = np.ascontiguousarray(sides[1][::-1, ::-1])
        now_s, pair = self._clock(), None
        for side, image, stamp_s in zip(_SIDES, sides, stamps_s, strict=True):
            pair = self._pairer.push(side, Exposure(image, stamp_s, now_s)) or pair
        if pair is None:
            return None
        both = [rectify(one.image) for rectify, one in zip(self._rectifiers, pair, strict=True)]
        return CameraSample(np.stack(both), pair.stamp_s, self._rectifiers[0].target)


class _OpenDevices(_Open):
    """One or two V4L2 devices."""

    def __init__(
        self, config: OpenCvConfig, rectifiers: Sequence[Rectifier], clock: Callable[[], float]
    ) -> None:
        """Raises SourceLost where a device does not open."""
        super().__init__(config, rectifiers, clock)
        self._devices: list[cv2.VideoCapture] = []
        for path in (config.source, config.right_source):
            if path:
                self._devices.append(_open_device(path, config))

    def next(self, timeout_s: float) -> CameraSample | None:
        """See `capture.Source`; V4L2 itself waits for a frame, at most 10 s."""
        stamps_s = []
        for device in self._devices:  # all grab before any decodes, so that the skew stays small
            if not device.grab():
                raise SourceLost(f"{self._config.source}: no frame; is the device still there?")
            stamps_s.append(self._clock())
        images = []
        for device in self._devices:
            decoded, image = device.retrieve()
            if not decoded:
                raise SourceLost(f"{self._config.source}: a frame cannot be decoded")
            images.append(image)
        return self._sample(images, stamps_s)

    def close(self) -> None:
        """See `capture.Source`."""
        for device in self._devices:
            device.release()


class _OpenFiles(_Open):
    """A film or a folder, or two, at the rate of the config."""

    def __init__(
        self, config: OpenCvConfig, rectifiers: Sequence[Rectifier], clock: Callable[[], float]
    ) -> None:
        """Raises ConfigError where a file is not there."""
        super().__init__(config, rectifiers, clock)
        self._files = self._opened()
        self._due_s = clock()

    def next(self, timeout_s: float) -> CameraSample | None:
        """See `capture.Source`."""
        wait_s = self._due_s - self._clock()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
        images = self._read()
        if not images:
            if not self._config.loop:
                raise SourceEnded(f"{self._config.source} has ended")
            self._files = self._opened()
            images = self._read()
        stamp_s = self._clock()
        self._due_s = max(self._due_s + 1.0 / self._config.rate_hz, stamp_s)
        return self._sample(images, [stamp_s] * len(images))

    def close(self) -> None:
        """See `capture.Source`."""

    def _opened(self) -> list[Callable[[], NDArray[Any] | None]]:
        paths = (self._config.source, self._config.right_source)
        return [_open_file(path) for path in paths if path]

    def _read(self) -> list[NDArray[Any]]:
        """The next image of each file; none where one has ended."""
        images = [read() for read in self._files]
        found = [image for image in images if image is not None]
        return found if len(found) == len(images) else []


def _open_device(path: str, config: OpenCvConfig) -> cv2.VideoCapture:
    device = cv2.VideoCapture(path, cv2.CAP_V4L2)
    if not device.isOpened():
        raise SourceLost(f"{path} does not open; is it connected, and are you in the group video?")
    wanted = {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*config.fourcc),
        cv2.CAP_PROP_FRAME_WIDTH: config.width,
        cv2.CAP_PROP_FRAME_HEIGHT: config.height,
        cv2.CAP_PROP_FPS: config.rate_hz,
    }
    for option, value in wanted.items():
        if value:
            device.set(option, value)
    device.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else old frames wait
    if config.exposure:
        device.set(cv2.CAP_PROP_AUTO_EXPOSURE, 1)  # by hand, in V4L2
        device.set(cv2.CAP_PROP_EXPOSURE, config.exposure)
    return device


def _open_file(path: str) -> Callable[[], NDArray[Any] | None]:
    """Reads the next image of a film or folder; None at the end.

    Raises:
        ConfigError: There is no such file, or it holds no images.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        names = iter(sorted(place.glob("*.png")))
        first = next(names, None)
        if first is None:
            raise ConfigError(f"camera.source = {path!r}: no .png images in this folder")
        waiting = [first]
        return lambda: _read_png(waiting.pop() if waiting else next(names, None))
    if not place.is_file():
        raise ConfigError(f"camera.source = {path!r}: no such device, film or folder")
    film = cv2.VideoCapture(str(place))
    if not film.isOpened():
        raise ConfigError(
            f"camera.source = {path!r}: OpenCV cannot read this film; write it as MJPG (.avi)"
        )
    return partial(_read_film, film)


def _read_film(film: cv2.VideoCapture) -> NDArray[Any] | None:
    arrived, image = film.read()
    return image if arrived else None


def _read_png(path: Path | None) -> NDArray[Any] | None:
    if path is None:
        return None
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ConfigError(f"{path}: cannot be read as an image")
    return image


def _checked_depth(image: NDArray[Any], source: str) -> NDArray[Any]:
    if image.ndim != 2 or image.dtype != np.uint16:
        found = f"{image.dtype.name} {list(image.shape)}"
        raise ConfigError(f"camera.source = {source!r}: {found} is no 16 bit depth image")
    return image


def _colour(image: NDArray[Any]) -> NDArray[Any]:
    """[H, W, 3] RGB of an image of OpenCV, which is BGR, BGRA or grey."""
    if image.dtype != np.uint8:
        raise ConfigError(f"camera.source: {image.dtype.name} is no 8 bit colour image")
    codes = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return cv2.cvtColor(image, codes[2 if image.ndim == 2 else image.shape[2]])


def _halves(image: NDArray[Any]) -> list[NDArray[Any]]:
    if image.shape[1] % 2:
        raise ConfigError(f"camera.source: {image.shape[1]} columns cannot be two images")
    half = image.shape[1] // 2
    return [np.ascontiguousarray(image[:, :half]), np.ascontiguousarray(image[:, half:])]
