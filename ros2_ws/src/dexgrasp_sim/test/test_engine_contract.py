"""What every physics backend must do, through `make_engine` and `PhysicsEngine` alone.

Where an engine is `exact`, its results must be equal to the last bit, else nearly so.
"""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from builders import robot_with_fingers
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.robot.kinematics import Kinematics
from engine_lab import (
    CONFIG,
    GRAVITY,
    PREGRASP,
    ROBOT,
    STATE,
    TABLE_M,
    assert_same,
    on,
    poses,
    put,
    rest,
    snapshot,
    start,
    upright,
    wild_targets,
)


def test_tensors_have_the_shapes_that_the_interface_says(lab):
    engine = start(lab.engine(count=5))
    shapes = [(23,), (23,), (3,), (4,), (3, 3), (6,), (len(ROBOT.fingers), 3), (3,)]
    for name, shape in zip((*STATE, "object_mass", "velocity_lead_s"), [*shapes, (), (23,)]):
        value = getattr(engine, name)
        assert (value.shape, value.dtype) == ((5, *shape), torch.float32), name
        assert value.device == engine.device, name
    assert engine.diverged.dtype == torch.bool and engine.diverged.tolist() == [False] * 5
    assert (engine.num_envs, engine.scene.num_envs) == (5, 5)
    masses = [CONFIG.objects[index].total_mass_kg for index in (0, 1, 2, 0, 1)]
    assert engine.object_mass.tolist() == pytest.approx(masses)
    gains = ROBOT.gains[CONFIG.physics.actuator_gains]
    leads = [damping / stiffness for damping, stiffness in zip(gains.damping, gains.stiffness)]
    assert engine.velocity_lead_s[4].tolist() == pytest.approx(leads)


def test_a_reset_puts_robot_and_object_where_it_says(lab):
    engine, pose = lab.engine(), poses(3)
    generator = torch.Generator().manual_seed(0)
    posture = PREGRASP + 0.05 * torch.randn(3, 23, generator=generator)
    put(engine, pose, posture)
    assert torch.allclose(engine.joint_position, on(engine, posture), atol=1e-6)
    assert torch.allclose(engine.object_position, on(engine, pose[:, :3]), atol=1e-6)
    assert torch.allclose(engine.object_quaternion, on(engine, pose[:, 3:]), atol=1e-6)
    assert not engine.joint_velocity.any() and not engine.object_velocity.any()
    velocity = on(engine, 0.1 * torch.randn(1, 23, generator=generator))
    where = on(engine, posture[:1]), on(engine, pose[:1])
    engine.reset(on(engine, [1]), *where, velocity)
    assert torch.allclose(engine.joint_velocity[1], velocity[0], atol=1e-6)
    assert not engine.joint_velocity[[0, 2]].any()


def test_frames_are_current_after_reset_and_step(lab):
    engine = start(lab.engine())
    kinematics = Kinematics(ROBOT, (*ROBOT.fingertips, ROBOT.grasp_center), engine.device)
    for targets in wild_targets(engine, 4):
        frames = kinematics.forward(engine.joint_position).position
        assert torch.allclose(engine.fingertip_position, frames[:, :4], atol=1e-5)
        assert torch.allclose(engine.grasp_center_position, frames[:, 4], atol=1e-5)
        turn = Rotation.from_quat(engine.object_quaternion.cpu(), scalar_first=True)
        np.testing.assert_allclose(engine.object_rotation.cpu(), turn.as_matrix(), atol=1e-5)
        engine.step(targets)


def test_joints_and_tips_are_taken_by_name(lab, tmp_path):
    """A robot whose fingers stand in another order does the same in its own order."""
    robot = robot_with_fingers(tmp_path, ("thumb", "ring", "index", "middle"))
    columns = robot.joint_indices(ROBOT.joint_names)
    tips = [robot.fingertips.index(tip) for tip in ROBOT.fingertips]
    own = [ROBOT.joint_names.index(name) for name in robot.joint_names]
    plain, other = lab.engine(), lab.engine(robot=robot)
    put(plain, upright(0.3, 3))
    put(other, upright(0.3, 3), PREGRASP[own])
    for targets in wild_targets(plain, 5):
        plain.step(targets)
        other.step(targets[:, own])
        for name in ("joint_position", "joint_velocity"):
            found, wanted = getattr(other, name)[:, columns], getattr(plain, name)
            assert torch.allclose(found, wanted, atol=1e-3), name
        tip_position = other.fingertip_position[:, tips]
        assert torch.allclose(tip_position, plain.fingertip_position, atol=1e-4)


def test_joints_follow_their_targets(lab):
    engine = start(lab.engine())
    target = on(engine, (PREGRASP + 0.05).repeat(3, 1))
    for _ in range(30):
        engine.step(target)
    assert torch.allclose(engine.joint_position, target, atol=5e-3)
    assert engine.joint_velocity.abs().max() < 1e-2


def test_targets_that_lead_by_a_velocity_are_followed_without_a_lag(lab):
    fast = dataclasses.replace(CONFIG, control_hz=120.0)
    lags = []
    for leads in (True, False):
        engine = lab.engine(fast)
        velocity = on(engine, torch.full((3, 23), 0.2))
        engine.reset(
            on(engine, torch.arange(3)),
            on(engine, PREGRASP.repeat(3, 1)),
            on(engine, upright(0.3, 3)),
            velocity,
        )
        for step in range(1, 31):
            reference = on(engine, PREGRASP) + step / 120 * velocity
            engine.step(reference + leads * engine.velocity_lead_s * velocity)
        lags.append((reference - engine.joint_position).abs()[:, ROBOT.arm].max().item())
    assert lags[0] < 0.2 * lags[1]


def test_an_object_falls_as_newton_says(lab):
    engine = rest(start(lab.engine(), height_m=0.4))
    time_s = CONFIG.control_dt_s
    fallen = TABLE_M + 0.4 - engine.object_position[:, 2]
    # by half a physics step's velocity more, if the integrator takes the new one
    assert fallen.tolist() == pytest.approx([GRAVITY * time_s**2 / 2] * 3, rel=0.15)
    assert engine.object_velocity[:, 2].tolist() == pytest.approx(
        [-GRAVITY * time_s] * 3, rel=1e-2
    )


def test_object_velocity_is_the_derivative_of_the_pose_in_the_base_frame(lab):
    """In free fall after a push, against differences of the pose over one physics step."""
    engine = start(lab.engine(dataclasses.replace(CONFIG, control_hz=120.0)), height_m=0.4)
    force = on(engine, [[0.3, -0.2, 1.0]] * 3)
    engine.push_objects(force, on(engine, [[1e-3, -2e-3, 1.5e-3]] * 3))
    rest(engine, 10)
    engine.push_objects(0 * force, 0 * force)
    rest(engine)
    before, turned = engine.object_position.double().cpu(), engine.object_rotation.double().cpu()
    rest(engine)
    linear = (engine.object_position.double().cpu() - before) * 120
    turn = Rotation.from_matrix(engine.object_rotation.double().cpu() @ turned.mT)
    angular = turn.as_rotvec() * 120
    assert np.linalg.norm(angular, axis=1).min() > 0.3
    np.testing.assert_allclose(engine.object_velocity[:, :3].cpu(), linear, atol=5e-3)
    np.testing.assert_allclose(engine.object_velocity[:, 3:].cpu(), angular, atol=0.03)


def test_objects_of_all_kinds_rest_on_the_table(lab, tmp_path):
    path = tmp_path / "wedge.stl"
    corners = [[x, y, z] for x in (-0.03, 0.03) for y, z in ((-0.03, 0), (0.03, 0), (0, 0.05))]
    trimesh.convex.convex_hull(np.array(corners)).export(path)
    objects = (*CONFIG.objects, ObjectConfig("wedge", "mesh", path=path))
    assert [item.shape for item in objects] == ["box", "cylinder", "sphere", "mesh"]
    engine = lab.engine(dataclasses.replace(CONFIG, objects=objects), count=4)
    heights = torch.tensor([item.solid.rest_height_m for item in objects])
    pose = upright(0.002, 4)
    pose[:, 2] += heights
    rest(put(engine, pose), 8)
    position, axis = engine.object_position.clone(), engine.object_rotation[:, :, 2].clone()
    for _ in range(30):
        rest(engine)
        assert (engine.object_position - position).abs().max() < 1e-3
        assert engine.object_velocity[:, :3].abs().max() < 0.01
    assert torch.allclose(engine.object_position[:, 2].cpu(), TABLE_M + heights, atol=1e-3)
    assert torch.allclose(engine.object_rotation[:, :, 2], axis, atol=5e-3)


def test_a_reset_leaves_the_other_environments_alone(lab):
    """Also in what they do next. Where sums differ in their last bits from run to run, as on a
    GPU, a wild hand in contact makes that 0.1 m/s within a step: there, its hand keeps still."""
    engine, other = start(lab.engine()), start(lab.engine())
    path = wild_targets(engine, 12)
    if not engine.exact:
        path[:, 1] = on(engine, PREGRASP)
        for each in (engine, other):
            put(each, upright(0.002 + CONFIG.objects[1].solid.rest_height_m), ids=[1])
    for targets in path[:6]:
        engine.step(targets)
        other.step(targets)
    before, new = snapshot(engine), poses(2, seed=9)
    put(engine, new, ids=[0, 2])
    for name, value in snapshot(engine).items():
        assert torch.equal(value[1], before[name][1]), name
    assert torch.allclose(engine.object_position[[0, 2]].cpu(), new[:, :3], atol=1e-6)
    for targets in path[6:]:
        engine.step(targets)
        other.step(targets)
        assert_same(engine, snapshot(engine), snapshot(other), rows=1, atol=1e-3)
    assert not torch.allclose(engine.object_position[0], other.object_position[0], atol=1e-3)


def test_nothing_of_the_past_survives_a_reset(lab):
    used, fresh = start(lab.engine(), seed=4), start(lab.engine())
    for targets in wild_targets(used, 10, seed=1):
        used.step(targets)
    start(used)
    assert_same(used, snapshot(used), snapshot(fresh))
    for targets in wild_targets(used, 3):
        used.step(targets)
        fresh.step(targets)
        assert_same(used, snapshot(used), snapshot(fresh), atol=0.05)


def test_a_restored_engine_continues(lab):
    """Saved in the middle of contacts, restored into the same engine and into a new one."""
    engine = start(lab.engine(), height_m=0.06)
    path = wild_targets(engine, 16)
    for targets in path[:8]:
        engine.step(targets)
    saved, state, after = snapshot(engine), engine.state_dict(), []
    for targets in path[8:]:
        engine.step(targets)
        after.append(snapshot(engine))
    for restored in (engine, start(lab.engine(), seed=5)):
        restored.load_state_dict(state)
        assert_same(restored, snapshot(restored), saved)
        for targets, wanted in zip(path[8:], after if engine.exact else [], strict=False):
            restored.step(targets)
            assert_same(restored, snapshot(restored), wanted)


def test_neither_threads_nor_a_split_change_an_exact_engine(lab):
    whole = start(lab.engine(count=5))
    if not whole.exact:
        pytest.skip("the engine is not exact")
    threaded = [start(lab.engine(count=5, threads=threads)) for threads in (1, 2, 3)]
    parts = [lab.engine(count=2), lab.engine(count=3, offset=2)]
    for part, pose in zip(parts, poses(5).split([2, 3]), strict=True):
        put(part, pose)
    for targets in wild_targets(whole, 12):
        for engine in (whole, *threaded):
            engine.step(targets)
        for part, own in zip(parts, targets.split([2, 3]), strict=True):
            part.step(own)
        wanted, split = snapshot(whole), [snapshot(part) for part in parts]
        for engine in threaded:
            assert_same(engine, snapshot(engine), wanted)
        joined = {name: torch.cat([part[name] for part in split]) for name in wanted}
        assert_same(whole, joined, wanted)


def test_equal_targets_of_the_parts_of_a_period_are_those_of_all_of_it(lab):
    once, parted = start(lab.engine()), start(lab.engine())
    for targets, parts in zip(wild_targets(once, 3), (2, 4, CONFIG.physics_steps), strict=True):
        once.step(targets)
        parted.step(targets.expand(parts, -1, -1))
        assert_same(once, snapshot(once), snapshot(parted), atol=0.05)


def test_the_targets_of_each_part_of_a_period_take_effect_in_turn(lab):
    """A period in two halves is two periods of half the length."""
    halves, whole = dataclasses.replace(CONFIG, control_hz=2 * CONFIG.control_hz), CONFIG
    stepped, parted = start(lab.engine(halves)), start(lab.engine(whole))
    assert 2 * stepped.scene.substeps == parted.scene.substeps
    for pair in wild_targets(parted, 6).unflatten(0, (3, 2)):
        parted.step(pair)
        for targets in pair:
            stepped.step(targets)
        assert_same(parted, snapshot(parted), snapshot(stepped), atol=0.05)


def test_parts_of_a_period_that_are_no_whole_physics_steps_are_refused(lab):
    engine = start(lab.engine())
    targets = wild_targets(engine, CONFIG.physics_steps + 1)
    before = snapshot(engine)
    for wrong in (targets, targets[:0]):
        with pytest.raises(ValueError, match="give a number that divides them"):
            engine.step(wrong)
    assert_same(engine, snapshot(engine), before)


def test_a_world_that_breaks_down_is_reported_until_its_reset(lab):
    """By a force that no solver survives; the other worlds do not notice."""
    engine, other = start(lab.engine(count=4)), start(lab.engine(count=4))
    force = on(engine, torch.zeros(4, 3))
    force[2] = 1e30
    engine.push_objects(force, torch.zeros_like(force))
    for each in (engine, other):
        rest(each)
    for _ in range(2):
        assert engine.diverged.tolist() == [False, False, True, False]
        assert all(torch.isfinite(value).all() for value in snapshot(engine).values())
        engine.push_objects(torch.zeros_like(force), torch.zeros_like(force))
        for each in (engine, other):
            rest(each)
    assert_same(engine, snapshot(engine), snapshot(other), rows=[0, 1, 3], atol=1e-2)
    put(engine, poses(2), ids=[0, 3])
    assert engine.diverged.tolist() == [False, False, True, False]
    put(engine, poses(1), ids=[2])
    assert not rest(engine).diverged.any()
