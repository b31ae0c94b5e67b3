import math

import pytest
import torch

from builders import FAST, Play
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.robot.rotation import rotation_vector
from dexgrasp_sim.tasks.grasp.observation_noise import (
    Measured,
    ObservationNoise,
    ObservationNoiseConfig,
    rotation_from_vector,
)

GROUPS = ("proprio", "state", "critic", "object")
ENVS = 400
EVERYWHERE = torch.arange(ENVS)
FIRST = torch.ones(ENVS, dtype=torch.int64)
IDENTITY = torch.eye(3).expand(ENVS, 3, 3)


def fixed(value):
    return {"initial": [value, value]}


def noise(**schedules):
    """Begun episodes of many environments."""
    config = parse_config(ObservationNoiseConfig, schedules)
    made = ObservationNoise(config, RandomStreams(0, EVERYWHERE), 23)
    made.begin(EVERYWHERE, FIRST, difficulty=0.0)
    return made


def measured(made, step):
    """What is measured of a robot at zero and an object at the origin."""
    joints, origin = torch.zeros(ENVS, 23), torch.zeros(ENVS, 3)
    true = Measured(joints, joints, origin, IDENTITY)
    return made.measure(true, FIRST, torch.full((ENVS,), step))


def joint_errors(made, step):
    return measured(made, step)[:2]


def play(num_envs=3, **noise_config):
    playing = Play(num_envs, {**FAST, "observation_noise": noise_config}, GROUPS)
    for _ in range(3):
        playing.step(torch.full((num_envs, 7), 0.5))
    return playing.env, playing.out


def columns(env, group, term):
    (spec,) = (spec for spec in env.observation_specs if spec.name == group)
    index = [candidate.name for candidate in spec.terms].index(term)
    offset = sum(before.size for before in spec.terms[:index])
    return slice(offset, offset + spec.terms[index].size)


def test_joint_noise_is_uniform_and_new_in_each_step():
    made = noise(joint_position_width_rad=fixed(0.08))
    first, second = joint_errors(made, 1)[0], joint_errors(made, 2)[0]
    assert torch.equal(first, joint_errors(made, 1)[0])
    for error in (first, second):
        assert error.abs().max() <= 0.08 and error.mean().abs() < 0.002
        assert error.std().item() == pytest.approx(0.08 / math.sqrt(3), rel=0.03)
    both = torch.stack((first.flatten(), second.flatten()))
    assert torch.corrcoef(both)[0, 1].abs() < 0.05
    assert not joint_errors(made, 1)[1].any(), "velocities were not asked for"


def test_every_joint_has_a_bias_of_its_own_that_lasts():
    made = noise(joint_position_bias_rad=fixed(0.1), joint_velocity_bias_rad_s=fixed(0.3))
    position, velocity = joint_errors(made, 1)
    later = joint_errors(made, 50)
    assert torch.equal(position, later[0]) and torch.equal(velocity, later[1])
    for bias, limit in ((position, 0.1), (velocity, 0.3)):
        assert bias.abs().max() <= limit
        assert bias.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)
        correlation = torch.corrcoef(bias.T) - torch.eye(23)
        assert correlation.abs().max() < 0.25, "joints are independent"


def test_the_width_is_drawn_per_episode_from_the_interval_of_the_difficulty():
    schedule = {"initial": [0.0, 0.0], "final": [0.02, 0.06]}
    config = parse_config(ObservationNoiseConfig, {"joint_position_width_rad": schedule})
    made = ObservationNoise(config, RandomStreams(0, EVERYWHERE), 23)
    for difficulty, low, high in ((0.0, 0.0, 0.0), (0.5, 0.01, 0.03), (1.0, 0.02, 0.06)):
        made.begin(EVERYWHERE, FIRST, difficulty)
        width = made.width[:, 0]
        assert width.min() >= low - 1e-7 and width.max() <= high + 1e-7
        assert width.mean().item() == pytest.approx((low + high) / 2, abs=0.002)


def test_rotation_noise_is_a_small_proper_rotation():
    made = noise(object_rotation_width_rad=fixed(0.1), object_rotation_bias_rad=fixed(0.08))
    _, _, position, rotation = measured(made, 1)
    assert not position.any()
    assert torch.allclose(rotation @ rotation.mT, IDENTITY, atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(ENVS), atol=1e-5)
    vector = rotation_vector(rotation)
    assert vector.abs().max() <= 0.18 + 1e-5
    variance = (0.1**2 + 0.08**2) / 3
    assert vector.var().item() == pytest.approx(variance, rel=0.1)
    given = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.1], [0.0, 0.0, 1e-6]])
    assert torch.allclose(rotation_vector(rotation_from_vector(given)), given, atol=1e-6)


def test_the_policy_sees_errors_and_the_critic_the_truth():
    env, out = play(
        joint_position_bias_rad=fixed(0.05),
        object_position_bias_m=fixed(0.02),
        object_rotation_bias_rad=fixed(0.05),
    )
    engine = env.engine
    seen = out["proprio"][:, columns(env, "proprio", "joint_position")]
    error = seen - engine.joint_position
    assert (error.abs() <= 0.05 + 1e-6).all() and error.std() > 0.01
    tips = out["proprio"][:, columns(env, "proprio", "fingertip_position")].view(3, 4, 3)
    assert not torch.allclose(tips, engine.fingertip_position, atol=1e-3), "follow from the joints"

    def critic(term):
        return out["critic"][:, columns(env, "critic", term)]

    assert torch.equal(critic("true_joint_position"), engine.joint_position)
    assert torch.equal(critic("true_object_position"), engine.object_position - env.origin)
    assert torch.equal(critic("true_object_x_axis"), engine.object_rotation[:, :, 0])
    center = critic("true_grasp_center_from_object") + engine.object_position
    assert torch.allclose(center, engine.grasp_center_position, atol=1e-6)
    measured = out["state"][:, columns(env, "state", "object_position")]
    off = measured - out["object"][:, :3]
    assert (off.abs() <= 0.02 + 1e-6).all() and (off.abs() > 1e-4).any()
    assert not torch.equal(
        out["state"][:, columns(env, "state", "object_x_axis")], engine.object_rotation[:, :, 0]
    )


def test_velocities_can_be_switched_off_and_are_seen_otherwise():
    for config, seen in (({"joint_velocities": False}, False), ({}, True)):
        env, out = play(**config)
        velocity = out["proprio"][:, columns(env, "proprio", "arm_joint_velocity")]
        assert velocity.any() == seen
        assert out["critic"][:, columns(env, "critic", "joint_velocity")].any()


def test_without_noise_the_critic_group_is_as_it_was():
    env, _ = play()
    assert env.config.measures_exactly
    (spec,) = (spec for spec in env.observation_specs if spec.name == "critic")
    assert [term.name for term in spec.terms] == [
        "object_linear_velocity",
        "object_angular_velocity",
        "joint_velocity",
    ]


def test_a_negative_width_is_refused():
    with pytest.raises(ConfigError, match=r"object_position_width_m.*-0.1 is below 0"):
        play(object_position_width_m=fixed(-0.1))
