"""Intel RealSense in this process, through librealsense."""

import ctypes
import importlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dexgrasp_deploy.drivers.base import DriverContext
from dexgrasp_deploy.drivers.camera_config import RealSenseConfig
from dexgrasp_deploy.drivers.capture import Capture, CapturedCamera, SourceLost
from dexgrasp_deploy.drivers.realsense_source import RealSenseSource
from dexgrasp_deploy.drivers.rectification import make_rectifiers
from dexgrasp_deploy.drivers.registry import driver_config
from dexgrasp_sim.config import ConfigError

_RESET_S = 10.0
_LOOK_AGAIN_S = 0.2


def librealsense() -> Any:
    """The module pyrealsense2, with the libusb of a wheel where the system has none.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        if "libusb" not in str(error):
            raise ConfigError(
                f"camera.driver = 'realsense': {error}; install the extra `deploy` "
                "(pip install pyrealsense2 libusb-package)"
            ) from None
    try:
        wheel = importlib.import_module("libusb_package")
    except ImportError:
        raise ConfigError(
            "camera.driver = 'realsense': libusb is missing; apt-get install libusb-1.0-0, or "
            "pip install libusb-package"
        ) from None
    library = Path(str(wheel.__file__)).parent / "libusb-1.0.so"
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("pyrealsense2")


class RealSenseCamera(CapturedCamera):
    """A depth camera, its two infrared cameras, or the colour cameras of two.

    Parameters: RealSenseConfig.
    """

    def __init__(self, devices: Mapping[str, Any] | None = None) -> None:
        """Args:
        devices: librealsense devices by serial number, such as software devices; None: those
            that are connected.
        """
        self._devices = devices

    def configure(self, context: DriverContext, parameters: Mapping[str, Any]) -> None:
        """Starts the stream and waits for the first exposure.

        Raises:
            ConfigError: There is no such camera, it has no such stream, its calibration or
                baseline does not fit, or no exposure comes.
        """
        config = driver_config(RealSenseConfig, self.kind, parameters, self.profile)
        if config.file and not Path(config.file).expanduser().is_file():
            raise ConfigError(f"camera.file = {config.file!r}: no such file")
        rs = librealsense()
        pair = config.image != "depth"
        rectifiers = make_rectifiers(config.calibration, context.manifest, pair)
        make = partial(RealSenseSource, rs, config, rectifiers, context.manifest, context.clock)
        self._capture = Capture(
            partial(self._open, rs, config, make), config.capture, context.clock
        )
        self._capture.start()

    def _open(
        self,
        rs: Any,
        config: RealSenseConfig,
        make: Callable[[list[Any]], RealSenseSource],
        reset: bool,
    ) -> RealSenseSource:
        if config.file:
            return make([None])
        serials = [config.serial, *([config.right_serial] if config.right_serial else [])]
        devices = [self._find(rs, serial) for serial in serials]
        if reset and self._devices is None:
            for device in devices:
                device.hardware_reset()
            devices = [_found_again(self._find, rs, serial) for serial in serials]
        return make(devices)

    def _find(self, rs: Any, serial: str) -> Any:
        """A device by its serial number; librealsense itself would wait 15 s for it.

        Raises:
            SourceLost: It is not connected.
        """
        given = self._devices
        found = (
            given
            if given is not None
            else {
                device.get_info(rs.camera_info.serial_number): device
                for device in rs.context().query_devices()
            }
        )
        if serial in found:
            return found[serial]
        if not serial and len(found) == 1:
            return next(iter(found.values()))
        there = ", ".join(sorted(found)) or "none"
        wanted = f"camera.serial {serial} is not connected" if serial else "name camera.serial"
        raise SourceLost(f"{wanted}; RealSense cameras that are connected: {there}")


def _found_again(find: Callable[[Any, str], Any], rs: Any, serial: str) -> Any:
    """A device after a reset, which takes it away for some seconds."""
    deadline_s = time.monotonic() + _RESET_S
    while True:
        time.sleep(_LOOK_AGAIN_S)
        try:
            return find(rs, serial)
        except SourceLost:
            if time.monotonic() > deadline_s:
                raise
