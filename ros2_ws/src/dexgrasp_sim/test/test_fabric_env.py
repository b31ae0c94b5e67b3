"""The grasp task with the fabric between policy and joints."""

import mujoco
import numpy as np
import pytest
import torch

from builders import Play
from dexgrasp_sim.config import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")
GROUPS = ("proprio", "state", "critic")
FABRIC = {
    "control_hz": 60.0,
    "episode_s": 0.5,
    "stagger_starts": False,
    "action": {
        "kind": "fabric",
        "damping_per_s": {"initial": 10, "final": 20},
        "velocity_target_factor": {"initial": 1, "final": 0},
    },
}
RANDOM = {
    **FABRIC,
    "difficulty": 0.5,
    "latency": {"action_delay_s": {"initial": [0.0, 0.05]}},
    "randomization": {
        "joint_offset_rad": {"initial": [0.0, 0.35]},
        "joint_speed_rad_s": {"initial": [0.0, 1.0]},
        "stiffness_scale": {"initial": [0.5, 2.0]},
        "damping_scale": {"initial": [0.5, 2.0]},
    },
}


def play(task, count, offset=0, groups=GROUPS):
    return Play(count, task, groups, seed=0, env_offset=offset)


def random_actions(steps, count):
    return 2 * torch.rand(steps, count, 11, generator=torch.Generator().manual_seed(0)) - 1


def test_the_policy_sees_the_fabric_and_acts_through_it():
    playing = play(FABRIC, 2)
    assert playing.env.action_dim == 11
    names = [term.name for term in playing.env.observation_specs[0].terms]
    assert "joint_target" in names and "palm_goal_axes_x_y" in names
    for action in random_actions(20, 2):
        out = playing.step(action)
        assert all(torch.isfinite(out[name]).all() for name in GROUPS)
    lag = playing.env.decoder.target - playing.env.engine.joint_position
    moved = playing.env.decoder.target - playing.env.decoder.start_position
    assert moved.norm(dim=1).min() > 0.2 and lag.abs().max() < 0.1


def test_a_split_over_workers_changes_nothing():
    """Seven environments are three and four, bit for bit, with everything random."""
    whole, parts = play(RANDOM, 7), [play(RANDOM, 3), play(RANDOM, 4, offset=3)]
    for action in random_actions(40, 7):
        together = whole.step(action)
        split = [part.step(own) for part, own in zip(parts, action.split([3, 4]), strict=True)]
        for name, value in together.items():
            assert torch.equal(value, torch.cat([part[name] for part in split])), name


def test_a_restored_environment_continues_bit_exactly():
    """Over the end of an episode, into a used environment and into a new one."""
    playing = play(RANDOM, 4)
    actions = random_actions(45, 4)
    for action in actions[:20]:
        playing.step(action)
    playing.env.set_difficulty(1.0)
    before = {name: playing.out[name].clone() for name in GROUPS}
    state = playing.env.state_dict()
    after = [playing.step(action) for action in actions[20:]]
    assert any(out["truncated"].any() for out in after)
    for other in (playing, play(RANDOM, 4)):
        other.env.set_difficulty(1.0)
        other.env.load_state_dict(state, other.out)
        for name, wanted in before.items():
            assert torch.equal(other.out[name], wanted), name
        for action, wanted in zip(actions[20:], after, strict=True):
            found = other.step(action)
            assert all(torch.equal(found[name], wanted[name]) for name in (*GROUPS, "reward"))


def test_random_starts_are_where_the_fabric_may_be_and_it_begins_there():
    task = {**RANDOM, "randomization": {"joint_offset_rad": {"initial": [0.8, 0.8]}}}
    env = play(task, 64).env
    offset = env.engine.joint_position - env.decoder.start_position
    assert (env.decoder.gap(env.engine.joint_position) >= 0.0).all()
    assert torch.equal(env.decoder.target, env.engine.joint_position)
    largest = offset.abs().amax(dim=1)
    shrunk = largest < 0.4
    assert shrunk.any() and not shrunk.all(), "some were refused, and went half the way back"
    assert (largest > 0.0).all()


def test_damping_and_velocity_targets_follow_the_difficulty():
    playing = play(FABRIC, 2)
    still = torch.zeros(2, 11)
    assert playing.env.decoder.damping.tolist() == [10.0, 10.0]
    assert playing.env.decoder.velocity_path is not None
    playing.env.set_difficulty(1.0)
    assert playing.env.decoder.velocity_path is None
    for _ in range(30):
        assert playing.env.decoder.damping.tolist() == [10.0, 10.0], (
            "the episode keeps its damping"
        )
        out = playing.step(still)
    assert out["truncated"].all() and playing.env.decoder.damping.tolist() == [20.0, 20.0]


def test_a_lead_of_the_joint_targets_is_a_velocity_target_of_the_servos():
    """Against MuJoCo's own actuator forces, in environments with gains of their own."""
    env = play(RANDOM, 3).env
    engine = env.engine
    velocity = torch.linspace(-0.3, 0.3, 23).repeat(3, 1)
    for index, model in enumerate(engine._own_models().models):
        data = mujoco.MjData(model)
        data.qpos[engine._qpos_columns] = env.decoder.start_position.numpy()
        data.qvel[engine._qvel_columns] = velocity[index].numpy()
        data.ctrl[engine._ctrl_columns] = (
            env.decoder.start_position + engine.velocity_lead_s[index] * velocity[index]
        ).numpy()
        mujoco.mj_forward(model, data)
        # at the target's position and speed the servo has nothing to do
        rows = engine._ctrl_columns
        stiffness = model.actuator_gainprm[rows, 0]
        assert np.abs(data.actuator_force[rows] / stiffness).max() < 1e-6
    assert engine.velocity_lead_s.std(dim=0).min() > 0.0, "each environment has its own gains"


def test_an_object_drops_from_the_height_that_the_config_names():
    playing = play({**FABRIC, "spawn": {"height_m": 0.5}}, 3)
    assert torch.allclose(playing.env.engine.object_position[:, 2], torch.tensor(0.5))
    for _ in range(29):
        playing.step()
    assert (playing.env.engine.object_position[:, 2] < 0.32).all()
    with pytest.raises(ConfigError, match=r"height_m 0.29 .* raise it to 0\.302 m"):
        play({**FABRIC, "spawn": {"height_m": 0.29}}, 3)


@pytest.mark.parametrize(
    ("position", "inside"),
    [
        ((-0.79, 0.49, 0.21), True),
        ((-0.81, 0.10, 0.40), False),
        ((-0.29, 0.10, 0.40), False),
        ((-0.55, -0.31, 0.40), False),
        ((-0.55, 0.51, 0.40), False),
        ((-0.55, 0.10, 0.19), False),
        ((-0.55, 0.10, float("nan")), False),
    ],
)
def test_the_workspace_can_be_any_box(position, inside):
    box = [[-0.8, -0.3, 0.2], [-0.3, 0.5, 2.0]]
    env = play({**FABRIC, "workspace_box_m": box}, 2, groups=()).env
    env.engine.object_position[1] = torch.tensor(position)
    assert env._out_of_workspace(env.engine.object_position).tolist() == [False, not inside]
