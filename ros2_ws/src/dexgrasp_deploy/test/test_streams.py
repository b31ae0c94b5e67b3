"""Every stream is judged by stamp, by arrival, by its values and by whether they change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.sensing.robot_in_view import RobotInView
from dexgrasp_deploy.control.sensing.streams import FreshnessConfig, ImageMonitor, JointMonitor
from dexgrasp_deploy.drivers.base import CameraSample, JointSample
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT, CAMERA = load_robot(), GraspConfig().camera
NAMES = ROBOT.joint_names
HOME = np.array(ROBOT.postures["pregrasp"])
ARM, HAND = NAMES[:7], NAMES[7:]
NOW_S = 50.0


def sample(names=NAMES, position=HOME, stamp_s=NOW_S, **others):
    values = np.array([position[NAMES.index(name)] if name in NAMES else 0.0 for name in names])
    return JointSample(tuple(names), values, 0.1 * values, stamp_s, **others)


def judge(*samples, now_s=NOW_S):
    return JointMonitor(ROBOT, FreshnessConfig()).judge(samples, now_s)


def refusal(*samples, now_s=NOW_S):
    with pytest.raises(UnfitInput) as caught:
        judge(*samples, now_s=now_s)
    return caught.value.reason, str(caught.value)


@given(st.permutations([*NAMES, "lift_joint"]))
def test_joints_are_taken_by_name(names):
    measured = judge(sample(names))
    np.testing.assert_array_equal(measured.position, HOME)
    np.testing.assert_array_equal(measured.velocity, 0.1 * HOME)
    assert np.isnan(measured.effort).all()


def test_arm_and_hand_may_come_in_separate_messages():
    torque = np.arange(7.0)
    measured = judge(sample(HAND, stamp_s=NOW_S - 0.1), sample(ARM, effort=torque))
    np.testing.assert_array_equal(measured.position, HOME)
    np.testing.assert_array_equal(measured.effort[:7], torque)
    assert np.isnan(measured.effort[7:]).all()
    assert measured.stamp_s == NOW_S - 0.1


def test_newest_sample_of_a_joint_counts():
    old = sample(ARM, 0 * HOME, NOW_S - 0.1)
    measured = judge(sample(), old)
    np.testing.assert_array_equal(measured.position, HOME)


@pytest.mark.parametrize(
    ("samples", "reason", "message"),
    [
        ((), Reason.STALE_JOINTS, "none arrived"),
        ((sample(stamp_s=NOW_S - 0.21),), Reason.STALE_JOINTS, "last arrival 0.210 s ago"),
        (
            (sample(ARM), sample(HAND, stamp_s=NOW_S - 0.21, arrival_s=NOW_S)),
            Reason.STALE_JOINTS,
            "hand: 0.210 s old, allowed 0.2 s",
        ),
        (
            (sample(ARM, stamp_s=NOW_S + 30, arrival_s=NOW_S), sample(HAND)),
            Reason.STAMP_AHEAD,
            "arm: stamp 30.000 s ahead of now",
        ),
        (
            (sample(ARM, stamp_s=NOW_S + 30, arrival_s=NOW_S - 1), sample(HAND)),
            Reason.STALE_JOINTS,
            "arm: last arrival 1.000 s ago",
        ),
        ((sample(HAND),), Reason.BAD_MEASUREMENT, "iiwa7_joint_7 not measured"),
        ((sample(["lift", *HAND]),), Reason.BAD_MEASUREMENT, "measured are also lift"),
    ],
)
def test_unfit_streams_are_named(samples, reason, message):
    found, text = refusal(*samples)
    assert found is reason
    assert message in text


@pytest.mark.parametrize("stamp_s", [float("nan"), float("inf"), -float("inf")])
def test_stamp_that_is_no_time_is_refused(stamp_s):
    assert refusal(sample(stamp_s=stamp_s, arrival_s=NOW_S))[0] in (
        Reason.STAMP_AHEAD,
        Reason.STALE_JOINTS,
    )


def test_lengths_that_differ_are_refused():
    short = JointSample(NAMES, HOME[:-1], HOME, NOW_S)
    assert "23 names, 22 positions and 23 velocities" in refusal(short)[1]


@pytest.mark.parametrize("field", ["position", "velocity"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_value_that_is_not_finite_names_its_joint(field, bad):
    broken = sample()
    getattr(broken, field)[[4, 20]] = bad
    reason, text = refusal(broken)
    assert reason is Reason.BAD_MEASUREMENT
    assert f"{field} of {NAMES[4]}, {NAMES[20]} is not finite" in text


def test_degrees_are_refused_and_the_joint_is_named():
    position = HOME.copy()
    position[7:] = np.rad2deg(position[7:])
    reason, text = refusal(sample(position=position))
    assert reason is Reason.OUT_OF_LIMITS
    assert "thumb_joint_0 measures 83.08 rad" in text and "degrees" in text


def test_joint_a_little_beyond_its_limit_is_a_posture():
    position = HOME.copy()
    position[0] = ROBOT.upper[0] + 0.05
    assert judge(sample(position=position)).position[0] == position[0]
    position[0] = ROBOT.upper[0] + 0.11
    assert refusal(sample(position=position))[0] is Reason.OUT_OF_LIMITS


def watch(monitor, part, travel, duration_s=1.0):
    """Judges repeated values while the command of one part of the robot moves away."""
    for now_s in NOW_S + np.arange(0, duration_s, 0.05):
        command = HOME.copy()
        command[part] += travel * (now_s - NOW_S) / duration_s
        monitor.judge([sample(stamp_s=now_s)], now_s)
        monitor.commanded(command)


@pytest.mark.parametrize(
    ("part", "name"), [(ROBOT.arm, "arm"), (ROBOT.hand, "hand")], ids=["arm", "hand"]
)
def test_device_that_repeats_its_values_while_it_should_move_is_frozen(part, name):
    with pytest.raises(UnfitInput, match=f"{name}: joints unchanged") as caught:
        watch(JointMonitor(ROBOT, FreshnessConfig()), part, travel=0.8)
    assert caught.value.reason is Reason.FROZEN


def test_device_at_rest_may_repeat_its_values():
    watch(JointMonitor(ROBOT, FreshnessConfig()), ROBOT.arm, travel=0.0, duration_s=5.0)
    watch(JointMonitor(ROBOT, FreshnessConfig()), ROBOT.arm, travel=0.05, duration_s=5.0)


def test_changing_values_are_not_frozen():
    monitor = JointMonitor(ROBOT, FreshnessConfig())
    for step in range(100):
        now_s, position = NOW_S + 0.05 * step, HOME + 1e-6 * step
        monitor.judge([sample(position=position, stamp_s=now_s)], now_s)
        monitor.commanded(HOME + 0.01 * step)


def look(monitor, image, step, arm_travel=0.0):
    now_s = NOW_S + 0.05 * step
    return monitor.judge(CameraSample(image, now_s), HOME + arm_travel, now_s)


def test_camera_that_repeats_an_image_while_the_arm_moves_is_frozen():
    image, monitor = np.ones((4, 6), np.uint16), ImageMonitor(ROBOT, FreshnessConfig(), CAMERA)
    with pytest.raises(UnfitInput, match="the camera repeats one") as caught:
        for step in range(40):
            look(monitor, image, step, arm_travel=0.01 * step)
    assert caught.value.reason is Reason.FROZEN


def test_images_of_a_still_robot_and_changing_images_are_not_frozen():
    image, monitor = np.ones((4, 6), np.uint16), ImageMonitor(ROBOT, FreshnessConfig(), CAMERA)
    for step in range(40):
        assert look(monitor, image, step).image is image
    for step in range(40, 80):
        look(monitor, image + step, step, arm_travel=0.01 * step)


def test_image_without_the_hand_in_it_may_stay_the_same():
    # turned about the base's axis by 2 rad the hand is behind the camera
    image, monitor = np.ones((4, 6), np.uint16), ImageMonitor(ROBOT, FreshnessConfig(), CAMERA)
    for step in range(40):
        assert look(monitor, image, step, arm_travel=2.0 + 0.01 * step).image is image


def test_motion_of_the_hand_in_the_image_by_hand():
    view, turned = RobotInView(ROBOT, CAMERA), HOME.copy()
    turned[0] += 0.02
    assert view.moved_px(HOME, HOME) == 0.0
    # 0.02 rad about the base's axis move what is 0.53 m away by 11 mm; at about 0.6 m and a
    # focal length of 36.9 px that is up to 0.7 px
    assert 0.3 < view.moved_px(HOME, turned) < 0.75
    away, further = HOME.copy(), HOME.copy()
    away[0], further[0] = HOME[0] + 2.0, HOME[0] + 2.2
    assert view.moved_px(HOME, away) > 10, "it leaves the image"
    assert view.moved_px(away, further) == 0.0, "it is not in the image"


@given(
    stamp_s=st.floats(allow_nan=True, allow_infinity=True),
    arrival_s=st.floats(allow_nan=True, allow_infinity=True),
)
def test_no_sample_passes_that_is_old_or_from_the_future(stamp_s, arrival_s):
    exposure = CameraSample(np.ones((2, 2), np.uint16), stamp_s, None, arrival_s)
    config = FreshnessConfig()
    try:
        ImageMonitor(ROBOT, config, CAMERA).judge(exposure, HOME, NOW_S)
    except UnfitInput:
        return
    assert NOW_S - config.max_image_age_s <= stamp_s <= NOW_S + config.max_ahead_s
    assert arrival_s >= NOW_S - config.max_image_age_s
