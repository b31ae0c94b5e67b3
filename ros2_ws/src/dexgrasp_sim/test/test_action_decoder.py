import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import robot_with_fingers
from dexgrasp_sim.config import replace
from dexgrasp_sim.control.palm_velocity.decoder import (
    ActionConfig,
    ActionDecoder,
    rotation_about_z,
)
from dexgrasp_sim.robot.kinematics import Chain
from dexgrasp_sim.robot.robot import load_robot

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
GRASP_CENTER = ROBOT.grasp_center
JOINT_NAMES = ROBOT.joint_names

CHAIN = Chain(ROBOT, GRASP_CENTER)
CONFIG = ActionConfig()
DT_S = 0.1
NAMES = CONFIG.action_names(ROBOT)
FINGER_SHUT, THUMB_SHUT = [0.0, 1.0, 0.9, 0.8], [1.45, 0.2, 0.4, 1.2]
FINGER_OPEN, THUMB_OPEN = [0.0, 0.2, 0.45, 0.45], [1.45, 0.3, -0.2, 0.9]
INDEX = {name: JOINT_NAMES.index(name) for name in JOINT_NAMES}


def make(num_envs=1, robot=ROBOT, **changes):
    return ActionDecoder(replace(CONFIG, **changes), robot, num_envs, DT_S)


def act(**values):
    """[1, 7] zeros with some dimensions set by name."""
    actions = torch.zeros(1, len(NAMES))
    for name, value in values.items():
        actions[0, NAMES.index(name)] = value
    return actions


def finger(target, name):
    return target[0, INDEX[f"{name}_joint_0"] : INDEX[f"{name}_joint_0"] + 4].tolist()


def test_an_episode_starts_in_the_pregrasp_with_the_hand_open():
    decoder = make()
    start = decoder.start_position.tolist()
    assert start[:7] == pytest.approx(ARM_PREGRASP)
    assert start[7:] == pytest.approx(FINGER_OPEN * 3 + THUMB_OPEN)
    assert torch.equal(decoder.target[0], decoder.start_position)
    assert decoder.palm_position[0].tolist() == pytest.approx([-0.55, 0.10, 0.42], abs=1e-4)
    for _ in range(5):
        target = decoder.decode(torch.zeros(1, 7))
    assert torch.allclose(target[0], decoder.start_position, atol=1e-5)


@pytest.mark.parametrize(("axis", "name"), enumerate(("palm_x", "palm_y", "palm_z")))
def test_a_palm_action_is_a_velocity_along_its_axis(axis, name):
    decoder = make()
    home = decoder.palm_position.clone()
    decoder.decode(act(**{name: 0.5}))
    moved = decoder.palm_position - home
    # 0.5 * 0.3 m/s * 0.1 s
    assert moved[0, axis].item() == pytest.approx(0.015, abs=1e-6)
    assert moved.abs().sum().item() == pytest.approx(0.015, abs=1e-6)
    decoder.decode(act(**{name: -7.0}))  # counts as -1
    assert (decoder.palm_position - home)[0, axis].item() == pytest.approx(-0.015, abs=1e-6)


def test_the_arm_goes_where_the_palm_target_is():
    decoder = make()
    for _ in range(3):
        decoder.decode(act(palm_x=-0.5, palm_z=1.0, palm_yaw=-0.5))
    for _ in range(10):
        target = decoder.decode(act())
    frame = CHAIN.forward(target)
    assert torch.allclose(frame.position, decoder.palm_position, atol=1e-3)
    assert decoder.palm_yaw.item() == pytest.approx(-0.27, abs=1e-6)  # 3 * 0.5 * 1.8 * 0.1
    home = CHAIN.forward(decoder.start_position[None]).rotation
    assert torch.allclose(frame.rotation, rotation_about_z(decoder.palm_yaw) @ home, atol=2e-3)


def test_yaw_and_synergies_integrate_at_their_rates():
    decoder = make()
    for _ in range(2):
        target = decoder.decode(
            act(palm_yaw=-1.0, finger_closure=1.0, thumb_closure=0.25, finger_spread=-0.5)
        )
    assert decoder.palm_yaw.item() == pytest.approx(-0.36)
    assert decoder.synergies[0].tolist() == pytest.approx([0.36, 0.09, -0.3])
    # open + 0.36 * (shut - open), by hand
    assert finger(target, "middle") == pytest.approx([0.0, 0.488, 0.612, 0.576], abs=1e-6)
    # joint 0: -/+ 0.3 rad * spread
    assert finger(target, "index") == pytest.approx([0.09, 0.488, 0.612, 0.576], abs=1e-6)
    assert finger(target, "ring") == pytest.approx([-0.09, 0.488, 0.612, 0.576], abs=1e-6)
    # open + 0.09 * (shut - open)
    assert finger(target, "thumb") == pytest.approx([1.45, 0.291, -0.146, 0.927], abs=1e-6)


def test_everything_stays_in_its_range():
    decoder = make()
    for sign in (1.0, -1.0):
        for _ in range(40):
            target = decoder.decode(torch.full((1, 7), sign))
        corner = (-0.35, 0.30, 0.61) if sign > 0 else (-0.75, -0.10, 0.27)
        assert decoder.palm_position[0].tolist() == pytest.approx(corner)
        assert decoder.palm_yaw.item() == pytest.approx(sign * 0.8)
        assert decoder.synergies[0].tolist() == [max(sign, 0.0), max(sign, 0.0), sign]
        posture = FINGER_SHUT if sign > 0 else FINGER_OPEN
        assert finger(target, "middle") == pytest.approx(posture)
        assert finger(target, "thumb") == pytest.approx(THUMB_SHUT if sign > 0 else THUMB_OPEN)


numbers = st.one_of(
    st.floats(-3.0, 3.0), st.sampled_from([math.nan, math.inf, -math.inf, 1e38, -1e38])
)
sequences = st.lists(st.lists(numbers, min_size=7, max_size=7), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(sequences, st.integers(1, 12))
def test_no_sequence_of_actions_leaves_the_limits(actions, repeats):
    decoder = make()
    lower, upper = (torch.tensor(limit).float() for limit in (ROBOT.lower, ROBOT.upper))
    limit = torch.tensor(ROBOT.velocity_limit).float() * DT_S * (1 + 1e-4)
    before = decoder.target.clone()
    for action in actions:
        for _ in range(repeats):
            after = decoder.decode(torch.tensor([action]))
            assert torch.isfinite(after).all()
            assert (after >= lower).all() and (after <= upper).all()
            assert ((after - before).abs() <= limit).all(), "faster than the joints may move"
            before = after.clone()
    for value in (decoder.palm_position, decoder.palm_yaw, decoder.synergies):
        assert torch.isfinite(value).all()


def test_nan_counts_as_standing_still_and_infinity_as_full_speed():
    decoder, other = make(), make()
    decoder.decode(torch.tensor([[math.nan, math.inf, -math.inf, math.nan, 0.0, 0.0, 0.0]]))
    other.decode(torch.tensor([[0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0]]))
    assert torch.equal(decoder.target, other.target)


def test_a_subset_of_dimensions_pins_the_others():
    subset = ("finger_closure", "palm_z")
    small, full = make(dimensions=subset), make()
    assert (small.action_names, small.action_dim) == (subset, 2)
    for _ in range(6):
        target = small.decode(torch.tensor([[0.7, -0.4]]))
        assert torch.equal(target, full.decode(act(finger_closure=0.7, palm_z=-0.4)))
    home = make()
    assert torch.equal(small.palm_position[:, :2], home.palm_position[:, :2])
    assert not small.palm_yaw.any() and not small.synergies[0, 1:].any()
    assert finger(target, "thumb") == pytest.approx(THUMB_OPEN)


def test_a_batch_is_its_rows():
    generator = torch.Generator().manual_seed(0)
    batch, singles = make(9), [make() for _ in range(9)]
    for _ in range(25):
        actions = 3 * torch.randn(9, 7, generator=generator)
        targets = batch.decode(actions)
        for row, single in enumerate(singles):
            assert torch.equal(single.decode(actions[row : row + 1])[0], targets[row])


def test_a_restored_decoder_continues_as_the_first():
    generator = torch.Generator().manual_seed(1)
    first, second = make(3), make(3)
    actions = 2 * torch.rand(20, 3, 7, generator=generator) - 1
    for action in actions[:10]:
        first.decode(action)
    state = first.state_dict()
    kept = {name: value.clone() for name, value in state.items()}
    second.decode(actions[0])
    second.load_state_dict(state)
    assert torch.equal(second.target, first.target)
    for action in actions[10:]:
        assert torch.equal(first.decode(action), second.decode(action))
    for name, value in kept.items():
        assert torch.equal(state[name], value), f"{name} changed after it was handed out"


def test_reset_touches_the_given_environments_only():
    decoder, fresh = make(4), make(4)
    for _ in range(8):
        decoder.decode(torch.full((4, 7), 0.6))
    before = decoder.state_dict()
    decoder.reset(torch.tensor([2, 0]))
    for name, value in decoder.state_dict().items():
        assert torch.equal(value[[0, 2]], fresh.state_dict()[name][[0, 2]]), name
        assert torch.equal(value[[1, 3]], before[name][[1, 3]]), name
    decoder.reset()
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_joints_are_taken_by_name(tmp_path):
    robot = robot_with_fingers(tmp_path, ("ring", "thumb", "index", "middle"))
    permuted, plain = make(2, robot=robot), make(2)
    columns = robot.joint_indices(JOINT_NAMES)
    assert columns != sorted(columns)
    generator = torch.Generator().manual_seed(2)
    assert torch.equal(permuted.start_position[columns], plain.start_position)
    for _ in range(15):
        actions = 2 * torch.rand(2, 7, generator=generator) - 1
        by_name = permuted.decode(actions)[:, columns]
        assert torch.equal(by_name, plain.decode(actions))


def test_rotation_about_z_turns_x_toward_y():
    turned = rotation_about_z(torch.tensor([math.pi / 2])) @ torch.tensor([1.0, 0.0, 0.0])
    np.testing.assert_allclose(turned[0], [0.0, 1.0, 0.0], atol=1e-6)
