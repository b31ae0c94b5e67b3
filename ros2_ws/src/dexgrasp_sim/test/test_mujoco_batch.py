import dataclasses
import itertools
import time

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp_sim.config import parse_config, replace
from dexgrasp_sim.physics.mujoco.batch import MujocoBatch
from dexgrasp_sim.physics.mujoco.models import OBJECT
from dexgrasp_sim.physics.scene import PhysicsConfig
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
FINGERTIPS = ROBOT.fingertips
GRASP_CENTER = ROBOT.grasp_center
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
JOINT_NAMES = ROBOT.joint_names

CONFIG = GraspConfig()
TABLE_M = CONFIG.table.top_m
POSTURE = torch.tensor(ARM_PREGRASP + HAND_REST)
TENSORS = (
    "joint_position",
    "joint_velocity",
    "object_position",
    "object_quaternion",
    "object_rotation",
    "object_velocity",
    "fingertip_position",
    "grasp_center_position",
)


def make(object_of_env=(0, 1, 2), threads=1, **physics):
    scene = replace(CONFIG, physics=parse_config(PhysicsConfig, physics)).scene(1)
    return MujocoBatch(dataclasses.replace(scene, object_of_env=object_of_env), threads=threads)


def poses(num_envs, height_m=0.10, seed=0):
    """[N, 7]: different places and orientations above the table."""
    generator = np.random.default_rng(seed)
    pose = torch.zeros(num_envs, 7)
    pose[:, :3] = torch.tensor([-0.55, 0.10, TABLE_M + height_m])
    pose[:, :2] += torch.from_numpy(generator.uniform(-0.1, 0.1, (num_envs, 2)))
    turns = Rotation.random(num_envs, rng=generator).as_quat(scalar_first=True)
    pose[:, 3:] = torch.from_numpy(turns)
    return pose


def start(engine, seed=0, **kwargs):
    count = engine.num_envs
    engine.reset(torch.arange(count), POSTURE.expand(count, -1), poses(count, seed=seed, **kwargs))
    return engine


def snapshot(engine):
    return {name: getattr(engine, name).clone() for name in TENSORS} | engine.state_dict()


def assert_equal(one, other, row=None):
    for name, value in one.items():
        rows = slice(None) if row is None else row
        assert torch.equal(value[rows], other[name][rows]), name


def mujoco_data(engine, env):
    """One environment as plain MuJoCo sees it."""
    model, data = engine._batch.get_model(env), engine._batch.get_data(env)
    mujoco.mj_forward(model, data)
    return model, data


def wild_targets(engine, steps, seed=0):
    """[steps, N, 23]: the hand opens and shuts, the arm moves a little around the pregrasp."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps, engine.num_envs, 23, generator=generator)
    return POSTURE + noise * torch.tensor([0.1] * 7 + [0.6] * 16)


def test_joints_are_set_and_read_by_name():
    engine = make()
    generator = torch.Generator().manual_seed(0)
    position = POSTURE + 0.05 * torch.randn(3, 23, generator=generator)
    engine.reset(torch.arange(3), position, poses(3))
    assert torch.equal(engine.joint_position, position)
    for env in range(3):
        _, data = mujoco_data(engine, env)
        for column, name in enumerate(JOINT_NAMES):
            wanted = position[env, column].item()
            assert data.joint(name).qpos[0] == wanted
            assert data.actuator(name).ctrl[0] == wanted
    targets = position + 0.01
    engine.step(targets)
    for env in range(3):
        _, data = mujoco_data(engine, env)
        for column, name in enumerate(JOINT_NAMES):
            assert data.actuator(name).ctrl[0] == targets[env, column].item()
            read = engine.joint_position[env, column].item()
            assert read == pytest.approx(data.joint(name).qpos[0], abs=1e-6)
            speed = engine.joint_velocity[env, column].item()
            assert speed == pytest.approx(data.joint(name).qvel[0], abs=1e-5)


def test_joints_follow_their_targets():
    engine = start(make())
    target = (POSTURE + 0.05).expand(3, -1)
    for _ in range(30):
        engine.step(target)
    assert torch.allclose(engine.joint_position, target, atol=5e-3)
    assert engine.joint_velocity.abs().max() < 1e-2


def test_frames_are_current_after_reset_and_step():
    """Sites lag one substep behind unless they are computed again; the torch model tells."""
    engine = start(make())
    kinematics = Kinematics(ROBOT, (*FINGERTIPS, GRASP_CENTER))
    for targets in wild_targets(engine, 4):
        frames = kinematics.forward(engine.joint_position).position
        assert torch.allclose(engine.fingertip_position, frames[:, :4], atol=1e-5)
        assert torch.allclose(engine.grasp_center_position, frames[:, 4], atol=1e-5)
        matrix = Rotation.from_quat(engine.object_quaternion, scalar_first=True).as_matrix()
        np.testing.assert_allclose(engine.object_rotation, matrix, atol=1e-6)
        engine.step(targets)


def test_object_pose_and_velocity_are_mujocos_in_the_base_frame():
    engine = start(make())
    engine._qvel[:, engine._object_qvel] = np.random.default_rng(1).normal(size=(3, 6))
    engine.step(POSTURE.expand(3, -1))
    for env in range(3):
        model, data = mujoco_data(engine, env)
        body = model.body(OBJECT).id
        np.testing.assert_allclose(engine.object_position[env], data.xpos[body], atol=1e-6)
        np.testing.assert_allclose(engine.object_rotation[env].ravel(), data.xmat[body], atol=1e-6)
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, velocity, 0)
        wanted = np.concatenate((velocity[3:], velocity[:3]))  # MuJoCo: angular first
        np.testing.assert_allclose(engine.object_velocity[env], wanted, atol=1e-5)


def test_object_velocity_is_the_derivative_of_the_pose():
    """In free fall, against differences of position and orientation over one substep."""
    engine = MujocoBatch(replace(CONFIG, control_hz=120.0).scene(3))
    start(engine, height_m=0.4)
    engine._qvel[:, engine._object_qvel] = np.random.default_rng(2).normal(size=(3, 6))
    engine.step(POSTURE.expand(3, -1))
    position = engine.object_position.double()
    rotation = engine.object_rotation.double()
    engine.step(POSTURE.expand(3, -1))
    dt_s = 1 / 120
    linear = (engine.object_position.double() - position) / dt_s
    turn = Rotation.from_matrix(engine.object_rotation.double() @ rotation.transpose(1, 2))
    np.testing.assert_allclose(engine.object_velocity[:, :3], linear, atol=2e-4)
    np.testing.assert_allclose(engine.object_velocity[:, 3:], turn.as_rotvec() / dt_s, atol=0.03)


def test_an_object_falls_as_newton_says():
    engine = start(make(), height_m=0.4)
    before = engine.object_position[:, 2].clone()
    engine.step(POSTURE.expand(3, -1))
    substeps, dt_s = CONFIG.physics_steps, CONFIG.physics.timestep_s
    # velocity first, then position: g dt^2 (1 + 2 + ... + n)
    fallen = 9.81 * dt_s**2 * substeps * (substeps + 1) / 2
    assert torch.allclose(before - engine.object_position[:, 2], torch.tensor(fallen), atol=1e-5)
    assert engine.object_velocity[:, 2].tolist() == pytest.approx([-9.81 / 15] * 3, rel=1e-4)


@pytest.mark.parametrize(
    "physics", [{}, {"timestep_s": 1 / 60, "mujoco": {"integrator": "discrete"}}]
)
def test_an_object_left_alone_stays_within_a_millimetre(physics):
    engine = make(**physics)
    pose = torch.tensor([[-0.55, 0.10, TABLE_M, 1.0, 0.0, 0.0, 0.0]]).repeat(3, 1)
    pose[:, 2] += torch.tensor([item.extents_m[2] / 2 + 0.002 for item in CONFIG.objects])
    engine.reset(torch.arange(3), POSTURE.expand(3, -1), pose)
    for _ in range(8):
        engine.step(POSTURE.expand(3, -1))
    position, axis = engine.object_position.clone(), engine.object_rotation[:, :, 2].clone()
    for _ in range(60):
        engine.step(POSTURE.expand(3, -1))
        assert (engine.object_position - position).abs().max() < 1e-3
        assert engine.object_velocity[:, :3].abs().max() < 0.01
    assert torch.allclose(engine.object_rotation[:, :, 2], axis, atol=5e-3)


def test_reset_touches_only_the_given_environments():
    engine, other = start(make()), start(make())
    path = wild_targets(engine, 12)
    for targets in path[:6]:
        engine.step(targets)
        other.step(targets)
    before = snapshot(engine)
    new = poses(2, seed=9)
    engine.reset(torch.tensor([0, 2]), POSTURE.expand(2, -1), new)
    assert_equal(snapshot(engine), before, row=1)
    assert torch.equal(engine.object_position[[0, 2]], new[:, :3])
    assert torch.allclose(engine.object_quaternion[[0, 2]], new[:, 3:])
    for name in ("joint_velocity", "object_velocity"):
        assert not getattr(engine, name)[[0, 2]].any()
    for targets in path[6:]:
        engine.step(targets)
        other.step(targets)
    assert_equal(snapshot(engine), snapshot(other), row=1)
    assert not torch.equal(engine.object_position[0], other.object_position[0])


def test_nothing_of_the_past_survives_a_reset():
    used, fresh = make(), start(make())
    start(used, seed=4)
    for targets in wild_targets(used, 10, seed=1):
        used.step(targets)
    start(used)
    assert_equal(snapshot(used), snapshot(fresh))
    for targets in wild_targets(used, 10):
        used.step(targets)
        fresh.step(targets)
        assert_equal(snapshot(used), snapshot(fresh))


@pytest.mark.parametrize("integrator", ["implicitfast", "discrete"])
def test_a_restored_engine_continues_bit_exactly(integrator):
    """Saved in the middle of contacts, restored into the same engine and into a new one."""
    engine = start(make(mujoco={"integrator": integrator}), height_m=0.06)
    path = wild_targets(engine, 20)
    for targets in path[:10]:
        engine.step(targets)
    saved = snapshot(engine)
    assert any(mujoco_data(engine, env)[1].ncon for env in range(3))
    state = engine.state_dict()
    after = []
    for targets in path[10:]:
        engine.step(targets)
        after.append(snapshot(engine))
    for restored in (engine, start(make(mujoco={"integrator": integrator}), seed=5)):
        restored.load_state_dict(state)
        assert_equal(snapshot(restored), saved)
        for targets, wanted in zip(path[10:], after, strict=True):
            restored.step(targets)
            assert_equal(snapshot(restored), wanted)


def test_threads_change_nothing():
    engines = [start(make((0, 1, 2, 0, 1), threads)) for threads in (1, 2, 3)]
    for targets in wild_targets(engines[0], 12):
        for engine in engines:
            engine.step(targets)
        one, two, three = map(snapshot, engines)
        assert_equal(one, two)
        assert_equal(one, three)


def test_each_environment_has_its_own_object():
    engine = make((2, 0, 1, 2))
    count = engine.num_envs
    pose = poses(1).expand(count, -1)
    engine.reset(torch.arange(count), POSTURE.expand(count, -1), pose)
    kinds = [mujoco_data(engine, env)[0].geom(OBJECT).type[0] for env in range(count)]
    box, cylinder, sphere = (
        int(kind)
        for kind in (
            mujoco.mjtGeom.mjGEOM_BOX,
            mujoco.mjtGeom.mjGEOM_CYLINDER,
            mujoco.mjtGeom.mjGEOM_SPHERE,
        )
    )
    assert kinds == [sphere, box, cylinder, sphere]
    depth = torch.zeros(count, CONFIG.camera.height, CONFIG.camera.width, dtype=torch.int16)
    engine.render_depth(depth)
    assert torch.equal(depth[0], depth[3])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(depth[one], depth[other])
    alone = make((2,))
    alone.reset(torch.arange(1), POSTURE[None], pose[:1])
    for _ in range(10):
        engine.step(POSTURE.expand(count, -1))
        alone.step(POSTURE[None])
    assert torch.equal(engine.object_position[0], alone.object_position[0])
    assert torch.equal(engine.object_position[3], alone.object_position[0])


def test_stereo_is_the_left_and_the_right_camera():
    engine = start(make())
    camera = CONFIG.camera
    pair = torch.zeros(3, 2, 3, camera.height, camera.width, dtype=torch.uint8)
    engine.render_stereo_rgb(pair)
    for side, one in enumerate(camera.stereo_pair(CONFIG.stereo_baseline_m)):
        image = torch.zeros(3, 3, camera.height, camera.width, dtype=torch.uint8)
        engine.render_rgb(one, image)
        assert torch.equal(pair[:, side], image)
    assert not torch.equal(pair[:, 0], pair[:, 1])


def test_time_spent_is_counted_by_stage_and_closing_twice_is_allowed(monkeypatch):
    engine = make()
    # a second passes between two looks at the clock
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)
    assert engine.timings() == {"physics": 0.0, "render": 0.0}
    start(engine)
    assert engine.timings() == {"physics": 1.0, "render": 0.0}
    depth = torch.zeros(3, CONFIG.camera.height, CONFIG.camera.width, dtype=torch.int16)
    engine.render_depth(depth)
    assert engine.timings() == {"physics": 1.0, "render": 1.0}
    engine.close()
    engine.close()
