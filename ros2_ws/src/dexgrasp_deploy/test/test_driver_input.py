"""What a person can get wrong with a driver is refused in one line, for every driver there is."""

from types import SimpleNamespace

import numpy as np
import pytest

from dexgrasp_deploy.drivers.base import (
    ArmDriver,
    CameraSample,
    DriverContext,
    Intrinsics,
    JointSample,
)
from dexgrasp_deploy.drivers.first_sample import check_exposure, check_joints
from dexgrasp_deploy.drivers.mock import MockArm, MockHand
from dexgrasp_deploy.drivers.registry import chosen_config, entries
from dexgrasp_sim.config import ConfigError

NAN = float("nan")
KEYS = [
    pytest.param(entry.kind, entry.name, key, id=f"{entry.kind} {entry.name} {key.name}")
    for entry in entries()
    for key in entry.parameters
    if not key.name.startswith("camera.calibration.")
]
TOPICS = [each for each in KEYS if each.values[2].name.endswith((".topic", ".image", ".info"))]
TOPICS = [each for each in TOPICS if each.values[2].name != "camera.image"]


def wrong_values(default):
    """Values of the types that ROS parameters have, which are not those of a default."""
    if isinstance(default, bool):
        return ["maybe", 7]
    if isinstance(default, int | float):
        return ["fast", NAN, [1.0]]
    if isinstance(default, str):
        return [7, ["a"]]
    return ["a", 7, [NAN], [[1.0]]]


@pytest.mark.parametrize(("kind", "name", "key"), KEYS)
def test_a_parameter_of_another_type_is_refused_and_named(kind, name, key):
    parameter = key.name.removeprefix(f"{kind}.")
    for value in wrong_values(key.default):
        with pytest.raises(ConfigError) as caught:
            chosen_config(kind, name, {parameter: value})
        text = str(caught.value)
        assert parameter.rsplit(".", maxsplit=1)[-1] in text and "\n" not in text


@pytest.mark.parametrize(("kind", "name", "key"), TOPICS)
@pytest.mark.parametrize("topic", ["/a b", "/a//b", "/a/", "/1a", "a-b", "/ä"])
def test_what_is_no_name_of_a_topic_is_refused(kind, name, key, topic):
    with pytest.raises(ConfigError) as caught:
        chosen_config(kind, name, {key.name.removeprefix(f"{kind}."): topic})
    assert "\n" not in str(caught.value)


def test_the_walk_finds_many_parameters():
    assert len(KEYS) > 200 and len(TOPICS) > 20


def test_offsets_in_degrees_are_told():
    with pytest.raises(ConfigError, match=r"has -90\.0: more than a turn; give radians"):
        chosen_config("arm", "lbr", {"offset_rad": [0.0, -90.0, 0.0, 0.0, 0.0, 0.0, 0.0]})


class LabArm(ArmDriver):
    """A driver as a lab would write it."""

    def __init__(self, names, sample):
        self.joint_names, self._sample = names, sample

    def configure(self, context, parameters):
        """Does nothing."""

    def read(self):
        return self._sample

    def write(self, positions):
        raise AssertionError("nothing may move")


def sample_of(robot, **changes):
    names = robot.arm_joints
    values = {
        "names": names,
        "position": np.array(robot.postures["pregrasp"])[robot.arm],
        "velocity": np.zeros(len(names)),
        "stamp_s": 1.0,
    }
    return JointSample(**{**values, **changes})


def test_drivers_of_this_package_pass(robot, bundle, clock):
    for driver in (MockArm(), MockHand()):
        driver.configure(DriverContext(robot, clock, bundle.manifest), {})
        check_joints(driver, robot)
    check_joints(LabArm(robot.arm_joints, sample_of(robot)), robot)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": np.full(7, 90.0)}, "measures 90 rad.*is it in degrees"),
        ({"position": np.zeros(6)}, r"position of read\(\) is float64 \[6\], not float64 \[7\]"),
        ({"position": [0.0] * 7}, r"position of read\(\) is a list, not float64"),
        ({"velocity": np.zeros(7, int)}, r"velocity of read\(\) is int64 \[7\]"),
        ({"effort": np.zeros(1)}, r"effort of read\(\) is float64 \[1\]"),
        ({"position": np.full(7, NAN)}, "measures nan rad"),
        ({"names": ("a",) * 7}, r"read\(\) has the joints a, a"),
        ({"stamp_s": None}, "the stamp is None"),
    ],
)
def test_what_a_labs_driver_returns_is_judged_before_anything_moves(robot, changes, message):
    driver = LabArm(robot.arm_joints, sample_of(robot, **changes))
    with pytest.raises(ConfigError, match=message) as caught:
        check_joints(driver, robot)
    assert str(caught.value).startswith("arm") and "\n" not in str(caught.value)


def test_a_driver_that_returns_something_else_is_named(robot):
    with pytest.raises(ConfigError, match=r"LabArm: read\(\) returns a SimpleNamespace"):
        check_joints(LabArm(robot.arm_joints, SimpleNamespace()), robot)
    with pytest.raises(ConfigError, match="returns a SimpleNamespace, not a CameraSample"):
        check_exposure("camera", SimpleNamespace())  # type: ignore[arg-type]


DEPTH = np.zeros((24, 32), np.uint16)
PAIR = np.zeros((2, 24, 32, 3), np.uint8)
LENS = Intrinsics.centered(32, 24, 40.0)


def test_depth_and_pairs_pass():
    for image in (DEPTH, PAIR):
        check_exposure("camera", CameraSample(image, 1.0, LENS))
        check_exposure("camera", CameraSample(image, 1.0))


@pytest.mark.parametrize(
    ("image", "lens", "message"),
    [
        (DEPTH.astype(np.float32), LENS, r"float32 \[24, 32\]; depth is uint16"),
        (PAIR[0], LENS, r"uint8 \[24, 32, 3\]"),
        (PAIR.astype(np.uint16), LENS, "uint16"),
        (PAIR[:, :, :, :1], LENS, r"uint8 \[2, 24, 32, 1\]"),
        (np.zeros((0, 0), np.uint16), LENS, r"uint16 \[0, 0\]"),
        (DEPTH.T, LENS, "the image is 24x32, its intrinsics 32x24"),
    ],
)
def test_an_image_that_cannot_be_published_is_named(image, lens, message):
    with pytest.raises(ConfigError, match=message):
        check_exposure("camera", CameraSample(image, 1.0, lens))
