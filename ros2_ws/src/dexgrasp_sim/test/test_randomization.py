import math

import numpy as np
import pytest
import torch

from builders import SHORT, Play
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.robot.rotation import quaternion_to_matrix
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import GROUPS
from dexgrasp_sim.tasks.grasp.randomization import RandomizationConfig, draw_physics
from dexgrasp_sim.tasks.grasp.starts import tilted

RESULTS = ("reward", "terminated", "truncated")


def fixed(value):
    return {"initial": [value, value]}


def rising(low, high, start):
    return {"initial": [start, start], "final": [low, high]}


EVERYTHING = {
    **SHORT,
    "stagger_starts": True,
    "difficulty": 1.0,
    "observation_noise": {
        "joint_position_width_rad": rising(0.0, 0.08, 0.0),
        "joint_position_bias_rad": rising(0.0, 0.08, 0.0),
        "joint_velocity_width_rad_s": rising(0.0, 0.18, 0.0),
        "joint_velocity_bias_rad_s": rising(0.0, 0.08, 0.0),
        "object_position_width_m": rising(0.0, 0.03, 0.0),
        "object_position_bias_m": rising(0.0, 0.02, 0.0),
        "object_rotation_width_rad": rising(0.0, 0.1, 0.0),
        "object_rotation_bias_rad": rising(0.0, 0.08, 0.0),
    },
    "latency": {
        "action_delay_s": rising(0.0, 0.1, 0.0),
        "joint_age_steps": rising(0.0, 1.0, 0.0),
        "image_age_steps": rising(0.0, 2.0, 0.0),
    },
    "randomization": {
        "friction_scale": rising(0.5, 1.2, 1.0),
        "restitution": rising(0.0, 0.8, 0.0),
        "stiffness_scale": rising(0.5, 2.0, 1.0),
        "damping_scale": rising(0.5, 2.0, 1.0),
        "joint_friction_scale": rising(0.0, 5.0, 0.0),
        "object_mass_scale": rising(0.5, 3.0, 1.0),
        "object_acceleration_m_s2": rising(0.0, 10.0, 0.0),
        "push_period_s": 0.2,
        "push_reach_m": 1.0,
        "spawn_width_scale": rising(0.0, 1.0, 0.0),
        "spawn_yaw_scale": rising(0.0, 1.0, 0.0),
        "spawn_tilt_rad": rising(0.0, 1.0, 0.0),
        "joint_offset_rad": rising(0.0, 0.1, 0.0),
        "joint_speed_rad_s": rising(0.0, 1.0, 0.0),
    },
}
"""The published table at its end, but for starts that are milder."""


def actions(steps, num_envs):
    generator = torch.Generator().manual_seed(0)
    coarse = 3 * torch.rand(-(-steps // 4), num_envs, 7, generator=generator) - 1.5
    return coarse.repeat_interleave(4, dim=0)[:steps]


def assert_equal(one, other, names):
    for name in names:
        assert torch.equal(one[name], other[name]), name


def test_parameters_are_drawn_from_their_intervals_and_per_joint():
    config = parse_config(RandomizationConfig, EVERYTHING["randomization"])
    ids = torch.arange(300)
    drawn = draw_physics(config, 0.5, RandomStreams(0, ids), ids, torch.ones_like(ids), 23)
    limits = {
        "friction_scale": (0.75, 1.1),
        "restitution": (0.0, 0.4),
        "stiffness_scale": (0.75, 1.5),
        "damping_scale": (0.75, 1.5),
        "joint_friction_scale": (0.0, 2.5),
        "object_mass_scale": (0.75, 2.0),
    }
    for name, (low, high) in limits.items():
        values = getattr(drawn, name)
        assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6, name
        assert values.mean().item() == pytest.approx((low + high) / 2, rel=0.1), name
    assert (torch.corrcoef(drawn.stiffness_scale.T) - torch.eye(23)).abs().max() < 0.3


def test_starts_are_within_the_width_and_the_tilt_of_the_difficulty():
    task = {**SHORT, "randomization": {"spawn_width_scale": rising(0.5, 0.5, 0.0)}}
    for difficulty, width in ((0.0, 0.0), (1.0, 0.05)):
        play = Play(40, {**task, "difficulty": difficulty}, groups=())
        offset = play.env.engine.object_position - play.env.origin
        reached = offset[:, :2].abs().amax(dim=0)
        assert (reached <= width + 1e-6).all() and (reached >= 0.8 * width - 1e-6).all()
    tilt = {**SHORT, "randomization": {"spawn_tilt_rad": fixed(1.0)}}
    play = Play(40, tilt, groups=())
    assert play.env.engine.object_rotation[:, 2, 2].min() < 0.8
    for _ in range(12):
        play.step()
        assert not play.out["terminated"].any(), "nothing is thrown by a start inside the table"


def test_tilts_turn_about_x_and_then_y_of_the_base():
    a, b, yaw = 0.4, -0.7, 0.9
    upright = torch.tensor([[math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]])
    (quaternion,) = tilted(upright.double(), torch.tensor([[a, b]]).double())
    about_x = [[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]]
    about_y = [[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]]
    about_z = [[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]]
    wanted = np.array(about_y) @ np.array(about_x) @ np.array(about_z)
    assert np.allclose(quaternion_to_matrix(quaternion), wanted, atol=1e-7)


def test_joints_start_away_from_the_posture_but_inside_their_limits():
    task = {"joint_offset_rad": fixed(0.35), "joint_speed_rad_s": fixed(1.0)}
    env = Play(60, {**SHORT, "randomization": task}, groups=()).env
    offset = env.engine.joint_position - env.decoder.start_position
    assert offset.abs().max() <= 0.35 + 1e-6 and offset.std() > 0.1
    robot = load_robot()
    low, high = torch.from_numpy(robot.lower).float(), torch.from_numpy(robot.upper).float()
    assert (env.engine.joint_position >= low - 1e-6).all()
    assert (env.engine.joint_position <= high + 1e-6).all()
    speed = env.engine.joint_velocity
    assert speed.abs().max() <= 1.0 and speed.std().item() == pytest.approx(3**-0.5, rel=0.1)


def test_objects_are_pushed_only_near_the_hand_and_anew_each_period():
    for reach_m, pushed in ((0.01, False), (2.0, True)):
        task = {"object_acceleration_m_s2": fixed(10.0), "push_reach_m": reach_m}
        play = Play(30, {**SHORT, "randomization": {**task, "push_period_s": 0.2}}, groups=())
        forces = []
        for _ in range(9):
            play.step()
            forces.append(play.env.engine._xfrc_applied[:, play.env.engine._object_body].copy())
        size = np.linalg.norm(forces[0][:, :3], axis=1) / play.env.engine.object_mass.numpy()
        assert (size > 0).all() == pushed and size.max() <= 10.0 + 1e-5
        if pushed:
            assert np.array_equal(forces[0], forces[2]) and not np.array_equal(*forces[2:4])
            direction = forces[0][:, :3] / np.linalg.norm(forces[0][:, :3], axis=1)[:, None]
            assert np.abs(direction.mean(axis=0)).max() < 0.35, "every way"
            lever = np.linalg.norm(forces[0][:, 3:], axis=1)
            assert np.allclose(lever, 0.01 * np.linalg.norm(forces[0][:, :3], axis=1))


def test_with_everything_on_a_split_and_threads_change_nothing():
    whole = Play(6, EVERYTHING)
    parts = [Play(2, EVERYTHING, threads=2), Play(4, EVERYTHING, env_offset=2)]
    for action in actions(20, 6):
        together = whole.step(action)
        first, second = parts[0].step(action[:2]), parts[1].step(action[2:])
        for name, value in together.items():
            assert torch.equal(value, torch.cat((first[name], second[name]))), name
            assert torch.isfinite(value.float()).all(), name


def test_with_everything_on_a_restored_environment_continues_bit_exactly():
    play = Play(4, EVERYTHING)
    steps = actions(30, 4)
    for action in steps[:10]:
        play.step(action)
    before = play.snapshot()
    state = play.env.state_dict()
    after = [play.step(action) for action in steps[10:]]
    assert any(out["truncated"].any() for out in after)
    for other in (play, Play(4, EVERYTHING)):
        other.env.load_state_dict(state, other.out)
        assert_equal(other.out, before, GROUPS)
        for action, wanted in zip(steps[10:], after, strict=True):
            assert_equal(other.step(action), wanted, (*GROUPS, *RESULTS))


def test_at_difficulty_zero_everything_is_as_without():
    plain, ready = Play(3, SHORT), Play(3, {**EVERYTHING, "stagger_starts": False})
    ready.env.set_difficulty(0.0)
    ready.env.reset(ready.out)
    assert SHORT["physics"] == EVERYTHING["physics"]
    width = ready.env.engine.object_position[:, :2] - ready.env.origin[:2]
    assert width.abs().max() < 1e-6, "the spawn begins with a point"
    assert torch.equal(ready.env.engine.joint_position, plain.env.engine.joint_position)
    plain.env.engine.reset(
        torch.arange(3),
        plain.env.decoder.start_position.expand(3, -1),
        torch.cat((ready.env.engine.object_position, ready.env.engine.object_quaternion), dim=1),
    )
    for action in actions(8, 3):
        one, other = plain.step(action), ready.step(action)
        assert torch.allclose(one["proprio"], other["proprio"], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "schedule", "reason"),
    [
        ("object_mass_scale", fixed(0.0), "not above 0"),
        ("restitution", fixed(1.0), "from 0 to below 1"),
        ("spawn_width_scale", fixed(1.5), "widen `spawn` itself"),
        ("friction_scale", {"initial": [1.2, 0.5]}, r"\[1.2, 0.5\] has its lower end above"),
    ],
)
def test_senseless_ranges_are_refused(name, schedule, reason):
    with pytest.raises(ConfigError, match=f"randomization.{name}.*{reason}"):
        parse_config(GraspConfig, {"randomization": {name: schedule}})
