"""Worlds whose state is no longer finite, and the files that MuJoCo would leave about them."""

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp_sim.physics.mujoco.batch import MujocoBatch
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]

CONFIG = GraspConfig()
POSTURE = torch.tensor(ARM_PREGRASP + HAND_REST)
POSE = torch.tensor([-0.55, 0.10, CONFIG.table.top_m + 0.1, 1.0, 0.0, 0.0, 0.0])


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = mujoco.MjLogConfig.get()
    log.logto_file = True  # MuJoCo's default, whatever another test has left
    log.set()
    engine = MujocoBatch(CONFIG.scene(4), threads=2)
    reset(engine, range(4))
    yield engine
    engine.close()
    assert list(tmp_path.iterdir()) == [], "MuJoCo must leave no log in the working folder"


def reset(engine, ids):
    ids = torch.tensor([*ids])
    engine.reset(ids, POSTURE.expand(len(ids), -1), POSE.expand(len(ids), -1))


def is_finite(engine):
    names = ("joint_position", "joint_velocity", "object_position", "object_velocity")
    return all(torch.isfinite(getattr(engine, name)).all() for name in names)


def spoil_velocity(engine, env, value):
    engine._qvel[env, engine._object_qvel] = value


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e11])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_state_that_is_not_finite_is_reported_until_the_reset(engine, value, steps_before):
    for _ in range(steps_before):
        engine.step(POSTURE.expand(4, -1))
    assert not engine.diverged.any()
    spoil_velocity(engine, 2, value)
    for _ in range(3):
        engine.step(POSTURE.expand(4, -1))
        assert engine.diverged.tolist() == [False, False, True, False]
        assert is_finite(engine)
    reset(engine, [0, 1])
    assert engine.diverged.tolist() == [False, False, True, False]
    reset(engine, [2])
    assert not engine.diverged.any()
    engine.step(POSTURE.expand(4, -1))
    assert not engine.diverged.any()


def test_it_is_found_where_targets_change_within_a_period(engine):
    spoil_velocity(engine, 1, np.nan)
    engine.step(POSTURE.expand(2, 4, -1))
    assert engine.diverged.tolist() == [False, True, False, False]


def test_the_others_do_not_notice(engine):
    other = MujocoBatch(CONFIG.scene(4))
    reset(other, range(4))
    spoil_velocity(engine, 2, np.nan)
    for _ in range(5):
        for one in (engine, other):
            one.step(POSTURE.expand(4, -1))
    for env in (0, 1, 3):
        assert torch.equal(engine.object_position[env], other.object_position[env])
        assert torch.equal(engine.joint_position[env], other.joint_position[env])


def test_a_restored_state_is_a_good_one(engine):
    state = engine.state_dict()
    spoil_velocity(engine, 0, np.nan)
    engine.step(POSTURE.expand(4, -1))
    assert engine.diverged[0]
    engine.load_state_dict(state)
    engine.step(POSTURE.expand(4, -1))
    assert not engine.diverged.any()
