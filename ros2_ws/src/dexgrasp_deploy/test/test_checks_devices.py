"""What `dexgrasp doctor --robot` says about recorded USB and CAN, a camera and a bundle."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import cv2
import numpy as np
import pytest

from dexgrasp_deploy.calibration.results.camera_info import unrectified, write_camera_info
from dexgrasp_deploy.calibration.results.extrinsics import Extrinsics, stamp_of, write_extrinsics
from dexgrasp_deploy.calibration.results.mounted_camera import place_of
from dexgrasp_deploy.checks import devices
from dexgrasp_deploy.checks.deployment import (
    bundle_and_robot,
    calibration,
    read_deployment,
)
from dexgrasp_deploy.checks.finding import Outcome
from dexgrasp_deploy.checks.machine import Machine
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot

OK, WARNING, FAILED, UNKNOWN = Outcome.OK, Outcome.WARNING, Outcome.FAILED, Outcome.UNKNOWN
D435 = {"name": "Intel RealSense D435", "serial": "123", "firmware": "5.16.0.1", "usb": "3.2"}


def deployment(bundle=None, calibration=None, **drivers):
    named = dict.fromkeys(("arm", "hand", "camera")) | drivers
    return read_deployment(bundle, None, named, calibration)


def outcomes(findings):
    return [finding.outcome for finding in findings]


def usb_of(root, **files):
    device = root / "sys/bus/usb/devices/2-1"
    device.mkdir(parents=True)
    for name, text in files.items():
        (device / name).write_text(f"{text}\n")
    return Machine(root)


@pytest.mark.parametrize(
    ("speed", "usb", "expected"),
    [("5000", "3.2", [OK, OK]), ("480", "2.1", [FAILED, FAILED]), ("", "", [UNKNOWN, OK])],
)
def test_a_realsense_on_usb(tmp_path, speed, usb, expected):
    product = "Intel(R) RealSense(TM) Depth Camera 435"
    here = usb_of(tmp_path, idVendor="8086", product=product, speed=speed)
    wanted = deployment(camera="realsense")
    assert outcomes(devices.usb(here, wanted, lambda: [{**D435, "usb": usb}])) == expected


def test_a_realsense_that_is_not_there(tmp_path):
    here = usb_of(tmp_path, idVendor="1d6b", product="xHCI Host Controller", speed="5000")
    assert outcomes(devices.usb(here, deployment(camera="realsense"), list)) == [FAILED, FAILED]
    assert outcomes(devices.usb(here, deployment(camera="opencv"), list)) == [OK]
    bare = Machine(tmp_path / "nothing")
    assert outcomes(devices.usb(bare, deployment(camera="opencv"), list)) == [UNKNOWN]

    def not_installed():
        raise ConfigError("install pyrealsense2")

    found = list(devices.usb(here, deployment(camera="realsense"), not_installed))
    assert found[1].text == "install pyrealsense2" and found[1].outcome is FAILED


def test_another_realsense_than_the_named_one(tmp_path):
    wanted = deployment(camera="realsense")
    wanted = replace(wanted, parameters={**wanted.parameters, "camera": {"serial": "77"}})
    found = list(devices.usb(Machine(tmp_path), wanted, lambda: [D435]))
    assert "camera.serial 77 is not there; there are 123" in found[1].text


def link(state="ERROR-ACTIVE", bitrate=1_000_000, flags=("NOARP", "UP", "LOWER_UP", "ECHO")):
    """As iproute2 6.1 prints it."""
    data = {"state": state, "bittiming": {"bitrate": bitrate, "sample_point": "0.750"}}
    info = {"info_kind": "can", "info_data": data}
    return {"ifname": "can0", "flags": list(flags), "operstate": "UP", "linkinfo": info}


@pytest.mark.parametrize(
    ("links", "hand", "expected"),
    [
        ([link()], "wonik_ros2", [OK]),
        ([link("BUS-OFF")], "wonik_ros2", [FAILED]),
        ([link("ERROR-PASSIVE")], "wonik_v5", [WARNING]),
        ([link("STOPPED", flags=("NOARP",))], "wonik_ros2", [FAILED]),
        ([link("STOPPED", flags=("NOARP",))], "leap", [WARNING]),
        ([link(bitrate=500_000)], "wonik_ros2", [FAILED]),
        ([link(bitrate=500_000)], "leap", [OK]),
        ([], "wonik_ros2", [WARNING]),
        ([], "leap", [OK]),
        (None, "wonik_ros2", [UNKNOWN]),
    ],
)
def test_can(links, hand, expected):
    answer = None if links is None else json.dumps(links)
    here = Machine(run=lambda words: answer)
    found = list(devices.can(here, deployment(hand=hand)))
    assert outcomes(found) == expected
    if links and links[0]["linkinfo"]["info_data"]["state"] == "BUS-OFF":
        assert "120 ohm" in found[0].remedy


@pytest.fixture
def camera(tmp_path, bundle):
    """A folder of depth images as a camera, calibrated like that of the training."""
    task = bundle.manifest.task
    (tmp_path / "depth").mkdir()
    image = np.full((task.camera.height, task.camera.width), 700, np.uint16)
    assert cv2.imwrite(str(tmp_path / "depth/0.png"), image)
    lens = unrectified("left", image.shape[::-1], task.camera.intrinsics, np.zeros(5))
    write_camera_info(tmp_path / "left.yaml", lens)
    return {
        "source": str(tmp_path / "depth"),
        "image": "depth",
        "calibration.left": str(tmp_path / "left.yaml"),
    }


@pytest.mark.slow
def test_the_stream_of_a_camera_is_counted(bundle_folder, camera):
    """A busy computer is slower than asked for, never faster."""

    def stream(bundle, rate_hz, seconds):
        wanted = deployment(bundle, camera="opencv")
        parameters = {**camera, "rate_hz": rate_hz, "capture.connect_timeout_s": 60.0}
        wanted = replace(wanted, parameters={**wanted.parameters, "camera": parameters})
        (found,) = devices.camera_stream(wanted, seconds)
        return found

    fast = stream(None, 100.0, 3.0)
    assert fast.outcome is OK and "uint16" in fast.text
    slow = stream(bundle_folder, 4.0, 6.0)
    assert slow.outcome is WARNING and "the policy acts 15 times" in slow.text


def test_a_camera_that_does_not_open_is_told():
    (found,) = devices.camera_stream(deployment(camera="opencv"), 0.1)
    assert found.outcome is FAILED and "`source` is empty" in found.text
    (found,) = devices.camera_stream(deployment(camera="sim"), 0.1)
    assert found.outcome is UNKNOWN
    (found,) = devices.camera_stream(deployment(), 0.1)
    assert found.outcome is UNKNOWN


@pytest.mark.slow
def test_a_bundle_is_checked_against_the_robot(bundle_folder):
    def judged(wanted):
        """By check, but for the speed of this computer."""
        return {each.check: each for each in bundle_and_robot(wanted) if each.check != "policy"}

    good = deployment(bundle_folder)
    assert outcomes(judged(good).values()) == [OK, OK, OK]
    other = judged(replace(good, robot=load_robot("franka_leap")))
    assert outcomes(other.values()) == [OK, FAILED, WARNING]
    assert "the bundle is for" in other["joint names"].text
    assert outcomes(bundle_and_robot(deployment())) == [UNKNOWN]


def placed(folder, task, age_days=0.0, **changes):
    x, y, z, *turn = place_of(task).pose.tolist()
    now = datetime.now(timezone.utc)
    values = {
        "parent": task.load_robot().root,
        "child": "camera",
        "xyz_m": (x, y, z),
        "quaternion_xyzw": (*turn[1:], turn[0]),
        "stamp": stamp_of(now - timedelta(days=age_days)),
        "setup": "eye-to-base",
        "rms_px": 0.3,
        "samples": 15,
        "samples_sha256": "",
        "robot": "kuka_allegro",
        "robot_sha256": "",
        "position_std_mm": 0.8,
        "rotation_std_deg": 0.05,
        "verdict": "ok",
    }
    write_extrinsics(folder / "extrinsics.yaml", Extrinsics(**{**values, **changes}))
    return folder


@pytest.mark.parametrize(
    ("age_days", "changes", "expected"),
    [
        (1.0, {}, OK),
        (28.0, {}, WARNING),
        (31.0, {}, FAILED),
        (1.0, {"xyz_m": (0.0, 0.0, 1.0)}, FAILED),
    ],
)
def test_a_calibration_is_judged(tmp_path, bundle_folder, bundle, age_days, changes, expected):
    folder = placed(tmp_path, bundle.manifest.task, age_days, **changes)
    found = list(calibration(deployment(bundle_folder, folder, camera="realsense")))
    assert outcomes(found) == [expected]


def test_a_calibration_that_is_not_named_or_not_there(bundle_folder, tmp_path):
    assert outcomes(calibration(deployment(bundle_folder))) == [UNKNOWN]
    with pytest.raises(ConfigError, match=r"no extrinsics\.yaml here"):
        deployment(bundle_folder, tmp_path, camera="realsense")
