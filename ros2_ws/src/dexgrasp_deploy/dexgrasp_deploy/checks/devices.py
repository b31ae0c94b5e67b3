"""What hangs on the computer: cameras on USB, hands on CAN, and the stream of a camera."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from dexgrasp_deploy.checks.deployment import Deployment
from dexgrasp_deploy.checks.finding import Finding, failed, ok, unknown, warning
from dexgrasp_deploy.checks.machine import Machine
from dexgrasp_deploy.drivers.base import CameraDriver, CameraSample, DriverContext, SceneCamera
from dexgrasp_deploy.drivers.registry import BUILT_IN, make_driver
from dexgrasp_sim.config import ConfigError

_INTEL = "8086"
_USB3_MBIT = 5000
_CAN_BITRATE = 1_000_000
"""Of Allegro hands (Wonik's allegro_hand_ros2, README)."""
_ON_CAN = ("wonik_ros2", "wonik_v5")
_POLL_S = 0.002
_MANY_LOST = 0.9
"""A stream with a smaller share of the images that it should have is slow."""

RealSenses = Callable[[], list[dict[str, str]]]


def list_realsenses() -> list[dict[str, str]]:
    """Name, serial, firmware and USB type of the RealSense cameras that librealsense finds.

    Raises:
        ConfigError: librealsense is not installed.
    """
    from dexgrasp_deploy.drivers.realsense import librealsense

    rs = librealsense()
    keys = {
        "name": rs.camera_info.name,
        "serial": rs.camera_info.serial_number,
        "firmware": rs.camera_info.firmware_version,
        "usb": rs.camera_info.usb_type_descriptor,
    }
    return [
        {name: device.get_info(key) for name, key in keys.items() if device.supports(key)}
        for device in rs.context().query_devices()
    ]


def usb(
    machine: Machine, deployment: Deployment, realsenses: RealSenses = list_realsenses
) -> Iterator[Finding]:
    """RealSense cameras on USB as the kernel and librealsense see them."""
    name = "RealSense on USB"
    needed = deployment.drivers["camera"] == "realsense"
    folder = machine.root / "sys/bus/usb/devices"
    if not folder.is_dir():
        yield unknown(name, "the kernel shows no USB here")
    else:
        yield from _usb_of_kernel(machine, name, needed)
    if not needed:
        return
    try:
        cameras = realsenses()
    except (ConfigError, RuntimeError) as error:
        yield failed("librealsense", str(error))
        return
    if not cameras:
        yield failed(
            "librealsense",
            "finds no camera",
            "plug it in, install Intel's udev rules, and let no other program hold it",
        )
    wanted = deployment.parameters["camera"].get("serial", "")
    serials = [camera.get("serial", "") for camera in cameras]
    if wanted and cameras and wanted not in serials:
        there = ", ".join(serials)
        yield failed("librealsense", f"camera.serial {wanted} is not there; there are {there}")
    for camera in cameras:
        kind = camera.get("usb", "")
        text = ", ".join(f"{key} {value}" for key, value in camera.items() if value)
        if kind and not kind.startswith("3"):
            yield failed("librealsense", text, "use a USB 3 port and the cable of the camera")
        else:
            yield ok("librealsense", text)


def _usb_of_kernel(machine: Machine, name: str, needed: bool) -> Iterator[Finding]:
    found = False
    for device in sorted((machine.root / "sys/bus/usb/devices").iterdir()):
        place = device.relative_to(machine.root)
        product = machine.read(place / "product") or ""
        if machine.read(place / "idVendor") != _INTEL or "RealSense" not in product:
            continue
        found = True
        speed = machine.read(place / "speed") or ""
        text = f"{product} at {device.name}: {speed} Mbit/s"
        if not speed.isdigit():
            yield unknown(name, f"{product} at {device.name}: the kernel tells no speed")
        elif int(speed) < _USB3_MBIT:
            yield failed(
                name,
                f"{text} (USB 2): no second infrared image, few sizes and rates",
                "use a USB 3 port and the cable of the camera",
            )
        else:
            yield ok(name, text)
    if not found and needed:
        yield failed(name, "no camera here", "plug it in")
    elif not found:
        yield ok(name, "no camera here, and the camera's driver needs none")


def can(machine: Machine, deployment: Deployment) -> Iterator[Finding]:
    """State of the CAN interfaces; hands of Wonik hang on one."""
    hand = deployment.drivers["hand"]
    needed = hand in _ON_CAN
    text = machine.run(["ip", "-json", "-details", "link", "show", "type", "can"])
    try:
        links = json.loads(text or "[]") if text is not None else None
    except ValueError:
        links = None
    if links is None:
        yield unknown("CAN", "`ip` does not tell of CAN interfaces (no iproute2, or no CAN here)")
        return
    links = [link for link in links if link]
    if not links and needed:
        yield warning(
            "CAN",
            f"no interface on this computer; the hand of {hand} hangs on one",
            "run doctor on the computer of the hand, or load the driver of its CAN adapter",
        )
    elif not links:
        yield ok("CAN", "no interface, and the hand's driver needs none")
    for link in links:
        yield _can_link(link, needed)


def _can_link(link: dict[str, Any], needed: bool) -> Finding:
    data = link.get("linkinfo", {}).get("info_data", {})
    name, state = f"CAN {link.get('ifname', '?')}", data.get("state", "")
    bitrate = data.get("bittiming", {}).get("bitrate", 0)
    text = f"{state or 'state not told'}, {bitrate / 1e6:g} Mbit/s"
    up = f"run `sudo ip link set {link.get('ifname')} up type can bitrate {_CAN_BITRATE}`"
    wiring = "check power, cable, 120 ohm at both ends, and the bitrate"
    if state == "BUS-OFF":
        return failed(name, f"{text}: the bus is dead", f"{wiring}; then {up}")
    if "UP" not in link.get("flags", []) or state == "STOPPED":
        return (failed if needed else warning)(name, f"{text}: is down", up)
    if state in ("ERROR-PASSIVE", "ERROR-WARNING"):
        return warning(name, f"{text}: many frames are lost", wiring)
    if needed and bitrate and bitrate != _CAN_BITRATE:
        return failed(name, f"{text}: Allegro hands speak {_CAN_BITRATE / 1e6:g} Mbit/s", up)
    if not state:
        return unknown(name, text)
    return ok(name, text)


def camera_stream(
    deployment: Deployment, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Finding]:
    """Opens a camera that is read in this process, as the camera node will, and counts images."""
    name, chosen = "camera stream", deployment.drivers["camera"]
    built_in = BUILT_IN["camera"].get(chosen)
    if not chosen:
        yield unknown(name, "no camera driver named", "give --camera")
        return
    if built_in is None or not built_in.path.startswith("dexgrasp_deploy.drivers."):
        return  # on topics, see `graph`; or of somebody else, who may want a node
    driver = make_driver("camera", chosen)
    assert isinstance(driver, CameraDriver)
    if isinstance(driver, SceneCamera):
        yield unknown(name, f"{chosen} draws what the twin shows; there is no camera")
        return
    context = DriverContext(deployment.robot, clock, deployment.manifest)
    try:
        driver.configure(context, deployment.camera_drivers_own)
        driver.activate()
        samples = _read_for(driver, seconds, clock)
    except ConfigError as error:
        yield failed(name, str(error))
        return
    finally:
        driver.deactivate()
    yield _judged(name, samples, deployment, driver)


def _read_for(
    driver: CameraDriver, seconds: float, clock: Callable[[], float]
) -> list[CameraSample]:
    """The exposures of some seconds from the first one on."""
    samples: list[CameraSample] = []
    end_s = clock() + seconds
    while clock() < end_s:
        sample = driver.read()
        if sample is not None:
            samples.append(sample)
        time.sleep(_POLL_S)
    return samples


def _judged(
    name: str, samples: list[CameraSample], deployment: Deployment, driver: CameraDriver
) -> Finding:
    if len(samples) < 2:
        return failed(name, f"{len(samples)} images came: {driver.health().message}")
    rate_hz = (len(samples) - 1) / (samples[-1].stamp_s - samples[0].stamp_s)
    shape = "x".join(str(size) for size in samples[-1].image.shape)
    text = f"{rate_hz:.1f} images/s of {shape} {samples[-1].image.dtype.name}"
    needed_hz = deployment.rate_hz
    if needed_hz is not None and rate_hz < _MANY_LOST * needed_hz:
        return warning(
            name,
            f"{text}; the policy acts {needed_hz:g} times a second and sees some images twice",
            "raise camera.rate_hz, lower its size, or use a USB 3 port",
        )
    return ok(name, text)
