"""Joints of another driver by name, sign and offset."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.drivers.joint_config import JointTopicsConfig
from dexgrasp_deploy.drivers.joint_map import JointMap, JointStateError
from dexgrasp_sim.config import ConfigError

OURS = ("a", "b", "c")


def make_map(**values):
    values = {"joint_names": ("x", "y", "z"), "urdf_names": ("c", "a", "b"), **values}
    return JointMap(JointTopicsConfig(**values), OURS, "arm")


def sample_of(joint_map, names, position, velocity=(), effort=(), stamp_s=1.0, before=None):
    return joint_map.sample(names, position, velocity, effort, stamp_s, stamp_s, before)


def test_measurement_and_command_by_hand():
    joints = make_map(sign=(1, -1, 1), offset_rad=(0.0, 0.5, -1.0))
    sample = sample_of(
        joints, ["z", "other", "y", "x"], [3, 9, 2, 1], [30, 90, 20, 10], [7, 8, 9, 10]
    )
    assert sample.names == OURS
    # a is y: -2 + 0.5; b is z: 3 - 1; c is x
    assert sample.position.tolist() == [-1.5, 2.0, 1.0]
    assert sample.velocity.tolist() == [-20.0, 30.0, 10.0]
    assert sample.effort.tolist() == [-9.0, 7.0, 10.0]
    assert joints.command({"a": -1.5, "b": 2.0, "c": 1.0}) == [1.0, 2.0, 3.0]


@given(
    st.permutations(range(5)),
    st.lists(st.sampled_from([-1, 1]), min_size=5, max_size=5),
    st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    st.permutations(range(5)),
)
def test_a_command_that_is_obeyed_is_measured(order, sign, offset, target, sent):
    ours = tuple("abcde")
    config = JointTopicsConfig(
        joint_names=tuple("vwxyz"),
        urdf_names=tuple(ours[i] for i in order),
        sign=tuple(sign),
        offset_rad=tuple(offset),
    )
    joints = JointMap(config, ours, "hand")
    reached = dict(zip("vwxyz", joints.command(dict(zip(ours, target)))))
    names = ["vwxyz"[i] for i in sent]
    sample = sample_of(joints, names, [reached[name] for name in names])
    np.testing.assert_allclose(sample.position, target, atol=1e-12)


def test_velocities_that_are_not_given_are_differences():
    joints = make_map(sign=(1, -1, 1))
    first = sample_of(joints, "xyz", [0.0, 0.0, 0.0])
    assert first.velocity.tolist() == [0, 0, 0]
    second = sample_of(joints, "xyz", [0.5, 0.25, 0.0], stamp_s=1.5, before=first)
    assert second.velocity.tolist() == [-0.5, 0.0, 1.0]
    repeated = sample_of(joints, "xyz", [0.5, 0.25, 0.0], stamp_s=1.5, before=second)
    assert repeated.velocity.tolist() == [-0.5, 0.0, 1.0]


@pytest.mark.parametrize(
    ("names", "position", "velocity", "message"),
    [
        ("xy", [0, 0], [], "z missing; it has x, y"),
        ("", [0, 0, 0], [], "x, y, z missing; it has no names"),
        ("xyz", [0, 0], [], "3 names and 2 values of position"),
        ("xyz", [0, 0, 0], [0], "3 names and 1 values of velocity"),
    ],
)
def test_a_message_that_cannot_be_used_says_why(names, position, velocity, message):
    with pytest.raises(JointStateError, match=message):
        sample_of(make_map(), names, position, velocity)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"urdf_names": ("a", "b", "d")}, "differ in c, d; the robot has a, b, c"),
        ({"joint_names": (), "urdf_names": ()}, "arm.joint_names is empty"),
        ({"joint_names": ("x", "x", "z")}, "joint_names has x twice"),
        ({"sign": (1,)}, "sign has 1 entries and joint_names 3"),
    ],
)
def test_wrong_names_are_refused(values, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        make_map(**values)
