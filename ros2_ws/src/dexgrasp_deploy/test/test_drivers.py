"""Drivers are found by name, errors say what to do, and mock joints obey."""

import sys
import types

import numpy as np
import pytest

from dexgrasp_deploy.drivers.base import ArmDriver, DriverContext
from dexgrasp_deploy.drivers.mock import MockArm, MockCamera, MockHand
from dexgrasp_deploy.drivers.registry import make_driver
from dexgrasp_deploy.drivers.sim import SimArm, SimCamera, SimHand
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.robot import load_robot

ROBOT = load_robot()
ARM_JOINTS = ROBOT.arm_joints
HAND_JOINTS = ROBOT.hand_joints


class LabArm(MockArm):
    """A driver as a lab would write it."""


class HalfAnArm(ArmDriver):
    """A driver that is not finished."""

    def read(self):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def lab_module(monkeypatch):
    module = types.ModuleType("lab_drivers")
    module.LabArm, module.HalfAnArm, module.not_a_class = LabArm, HalfAnArm, 3
    monkeypatch.setitem(sys.modules, "lab_drivers", module)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("arm", "mock", MockArm),
        ("hand", "mock", MockHand),
        ("camera", "mock", MockCamera),
        ("arm", "sim", SimArm),
        ("hand", "sim", SimHand),
        ("camera", "sim", SimCamera),
        ("arm", "lab_drivers:LabArm", LabArm),
    ],
)
def test_driver_is_found(kind, name, expected):
    assert type(make_driver(kind, name)) is expected


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("arm", "kuka", r"arm.driver = 'kuka': not one of mock, sim, replay, .*lbr and not"),
        ("hand", "module:", r"not of the form `module:Class`"),
        ("camera", "no_such_lab:Camera", r"cannot import no_such_lab .* PYTHONPATH"),
        ("arm", "lab_drivers:Missing", r"lab_drivers has no Missing"),
        ("arm", "lab_drivers:not_a_class", r"not_a_class is not a ArmDriver"),
        ("hand", "lab_drivers:LabArm", r"LabArm is not a HandDriver"),
        ("arm", "lab_drivers:HalfAnArm", r"HalfAnArm lacks configure, write"),
    ],
)
def test_error_says_what_is_wrong(kind, name, message):
    with pytest.raises(ConfigError, match=message):
        make_driver(kind, name)


def test_mock_joints_start_at_the_start_posture_and_obey(bundle, robot, clock):
    context = DriverContext(robot, clock, bundle.manifest)
    arm, hand = MockArm(), MockHand()
    for driver in (arm, hand):
        driver.configure(context, {})
    assert arm.joint_names + hand.joint_names == ARM_JOINTS + HAND_JOINTS
    start = bundle.manifest.robot.start_position_rad
    np.testing.assert_array_equal(arm.read().position, start[:7])
    np.testing.assert_array_equal(hand.read().position, start[7:])
    arm.write({"iiwa7_joint_3": 0.25})
    clock.now_s += 1.0
    sample = arm.read()
    assert sample.position[2] == 0.25
    assert sample.position[1] == start[1]
    assert sample.stamp_s == clock.now_s


def test_mock_joints_without_a_bundle_start_inside_their_limits(robot, clock):
    hand = MockHand()
    hand.configure(DriverContext(robot, clock), {})
    position = hand.read().position
    assert (position >= robot.lower[7:]).all()
    assert (position <= robot.upper[7:]).all()


def test_mock_camera_keeps_its_rate_and_changes_its_image(bundle, robot, clock):
    camera = MockCamera()
    camera.configure(DriverContext(robot, clock, bundle.manifest), {"rate_hz": 10.0})
    first = camera.read()
    assert first.image.shape == (24, 32)
    assert first.image.dtype == np.uint16
    assert camera.read() is None
    clock.now_s += 0.1001
    second = camera.read()
    assert second.stamp_s == clock.now_s
    assert not np.array_equal(first.image, second.image)


def test_camera_needs_a_bundle_and_a_rate(bundle, robot, clock):
    with pytest.raises(ConfigError, match="set the parameter `bundle`"):
        MockCamera().configure(DriverContext(robot, clock), {})
    with pytest.raises(ConfigError, match="greater than 0"):
        MockCamera().configure(DriverContext(robot, clock, bundle.manifest), {"rate_hz": 0})


def test_context_builds_what_is_shared_once(robot, clock):
    context = DriverContext(robot, clock)
    built = []

    def factory(given):
        assert given is context
        built.append(1)
        return object()

    assert context.shared(factory) is context.shared(factory)
    assert built == [1]
