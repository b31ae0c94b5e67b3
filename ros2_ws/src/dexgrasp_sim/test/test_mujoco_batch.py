"""What concerns MuJoCo alone; `test_engine_contract.py` has what all backends must do."""

import dataclasses
import itertools
import math
import time

import mujoco
import numpy as np
import pytest
import torch

from builders import FAST
from dexgrasp_sim.config import parse_config, replace
from dexgrasp_sim.physics.engine import PhysicsParameters
from dexgrasp_sim.physics.mujoco.batch import MujocoBatch
from dexgrasp_sim.physics.mujoco.models import OBJECT
from dexgrasp_sim.physics.mujoco.parameters import damping_ratio
from dexgrasp_sim.physics.scene import PhysicsConfig
from engine_lab import (
    CONFIG,
    PREGRASP,
    ROBOT,
    TABLE_M,
    poses,
    put,
    rest,
    snapshot,
    start,
    upright,
    wild_targets,
)


def make(object_of_env=(0, 1, 2), **physics):
    scene = replace(CONFIG, physics=parse_config(PhysicsConfig, physics)).scene(1)
    return MujocoBatch(dataclasses.replace(scene, object_of_env=object_of_env))


def assert_equal(one, other):
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def mujoco_data(engine, env):
    """One environment as plain MuJoCo sees it."""
    model, data = engine._batch.get_model(env), engine._batch.get_data(env)
    mujoco.mj_forward(model, data)
    return model, data


def test_joints_are_set_and_read_by_name():
    engine = make()
    generator = torch.Generator().manual_seed(0)
    position = PREGRASP + 0.05 * torch.randn(3, 23, generator=generator)
    engine.reset(torch.arange(3), position, poses(3))
    assert torch.equal(engine.joint_position, position)
    for env in range(3):
        _, data = mujoco_data(engine, env)
        for column, name in enumerate(ROBOT.joint_names):
            wanted = position[env, column].item()
            assert data.joint(name).qpos[0] == wanted
            assert data.actuator(name).ctrl[0] == wanted
    targets = position + 0.01
    engine.step(targets)
    for env in range(3):
        _, data = mujoco_data(engine, env)
        for column, name in enumerate(ROBOT.joint_names):
            assert data.actuator(name).ctrl[0] == targets[env, column].item()
            read = engine.joint_position[env, column].item()
            assert read == pytest.approx(data.joint(name).qpos[0], abs=1e-6)
            speed = engine.joint_velocity[env, column].item()
            assert speed == pytest.approx(data.joint(name).qvel[0], abs=1e-5)


def test_object_pose_and_velocity_are_mujocos_in_the_base_frame():
    engine = start(make())
    engine._qvel[:, engine._object_qvel] = np.random.default_rng(1).normal(size=(3, 6))
    rest(engine)
    for env in range(3):
        model, data = mujoco_data(engine, env)
        body = model.body(OBJECT).id
        np.testing.assert_allclose(engine.object_position[env], data.xpos[body], atol=1e-6)
        np.testing.assert_allclose(engine.object_rotation[env].ravel(), data.xmat[body], atol=1e-6)
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, velocity, 0)
        wanted = np.concatenate((velocity[3:], velocity[:3]))  # MuJoCo: angular first
        np.testing.assert_allclose(engine.object_velocity[env], wanted, atol=1e-5)


def test_an_object_falls_by_semi_implicit_steps():
    engine = start(make(), height_m=0.4)
    before = engine.object_position[:, 2].clone()
    rest(engine)
    substeps, dt_s = CONFIG.physics_steps, CONFIG.physics.timestep_s
    # velocity first, then position: g dt^2 (1 + 2 + ... + n)
    fallen = 9.81 * dt_s**2 * substeps * (substeps + 1) / 2
    assert torch.allclose(before - engine.object_position[:, 2], torch.tensor(fallen), atol=1e-5)
    assert engine.object_velocity[:, 2].tolist() == pytest.approx([-9.81 / 15] * 3, rel=1e-4)


@pytest.mark.parametrize("physics", [{}, FAST["physics"]])
def test_an_object_left_alone_stays_within_a_millimetre(physics):
    engine, pose = make(**physics), upright(0.002, 3)
    pose[:, 2] += torch.tensor([item.extents_m[2] / 2 for item in CONFIG.objects])
    rest(put(engine, pose), 8)
    position, axis = engine.object_position.clone(), engine.object_rotation[:, :, 2].clone()
    for _ in range(60):
        rest(engine)
        assert (engine.object_position - position).abs().max() < 1e-3
        assert engine.object_velocity[:, :3].abs().max() < 0.01
    assert torch.allclose(engine.object_rotation[:, :, 2], axis, atol=5e-3)


@pytest.mark.parametrize("integrator", ["implicitfast", "discrete"])
def test_a_restored_engine_continues_bit_exactly(integrator):
    """Saved in the middle of contacts, restored into the same engine and into a new one."""
    engine = start(make(mujoco={"integrator": integrator}), height_m=0.06)
    path = wild_targets(engine, 20)
    for targets in path[:10]:
        engine.step(targets)
    saved, state = snapshot(engine), engine.state_dict()
    assert any(mujoco_data(engine, env)[1].ncon for env in range(3))
    after = []
    for targets in path[10:]:
        engine.step(targets)
        after.append(snapshot(engine))
    for restored in (engine, start(make(mujoco={"integrator": integrator}), seed=5)):
        restored.load_state_dict(state)
        assert_equal(snapshot(restored) | restored.state_dict(), saved | state)
        for targets, wanted in zip(path[10:], after, strict=True):
            restored.step(targets)
            assert_equal(snapshot(restored), wanted)


def test_each_environment_has_the_geom_of_its_object():
    engine = make((2, 0, 1, 2))
    kinds = [mujoco_data(engine, env)[0].geom(OBJECT).type[0] for env in range(4)]
    box, cylinder, sphere = (
        mujoco.mjtGeom.mjGEOM_BOX,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
        mujoco.mjtGeom.mjGEOM_SPHERE,
    )
    assert kinds == [sphere, box, cylinder, sphere]


def test_time_spent_is_counted_by_stage(monkeypatch):
    engine = make()
    # a second passes between two looks at the clock
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)
    assert engine.timings() == {"physics": 0.0, "render": 0.0}
    start(engine)
    assert engine.timings() == {"physics": 1.0, "render": 0.0}
    depth = torch.zeros(3, CONFIG.camera.height, CONFIG.camera.width, dtype=torch.int16)
    engine.render_depth(depth)
    assert engine.timings() == {"physics": 1.0, "render": 1.0}


def test_restitution_makes_a_dropped_object_bounce():
    """From 0.1 m; at the reference integrator's 1/120 s, since longer steps take speed away."""
    highest = []
    for restitution in (0.5, 0.9):
        engine = make((0, 0))
        values = PhysicsParameters.nominal(1, 23)
        values.restitution.fill_(restitution)
        engine.set_parameters(torch.tensor([1]), values)
        put(engine, upright(0.15, 2))
        clearance = []
        for _ in range(8):
            height = rest(engine).object_position[:, 2] - TABLE_M - 0.05
            clearance.append(height.tolist())
        dull, bouncy = (max(column[3:]) for column in zip(*clearance, strict=True))
        assert dull < 0.002
        highest.append(bouncy)
    assert 0.01 < highest[0] < 0.04 < highest[1] < 0.1


def test_damping_ratios_are_those_of_a_spring_and_damper():
    assert damping_ratio(0.0) == 1.0
    assert damping_ratio(1.0) == 0.0
    ratio = damping_ratio(0.5)
    assert math.exp(-math.pi * ratio / math.sqrt(1 - ratio**2)) == pytest.approx(0.5)


def test_pixels_of_an_object_are_those_that_nothing_hides():
    engine = make()
    start(engine)
    camera = replace(CONFIG.camera, width=64, height=48)
    seen, alone = engine.object_pixels(camera), engine.object_pixels(camera, alone=True)
    assert (seen > 0).all() and (seen <= alone).all()
    behind_the_table = replace(
        camera, position_m=(-0.55, 0.1, 0.05), look_at_m=(-0.55, 0.1001, 1.0)
    )
    assert engine.object_pixels(behind_the_table).tolist() == [0, 0, 0]
    assert (engine.object_pixels(behind_the_table, alone=True) > 0).all()
