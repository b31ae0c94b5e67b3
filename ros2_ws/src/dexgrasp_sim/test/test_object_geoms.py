"""Objects in the physics: one layout for all, at rest and thrown, and each seen as its own."""

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch
from mujoco.batch import Batch
from scipy.spatial.transform import Rotation

from dexgrasp_sim.objects.sets import OBJECT_SETS, object_set
from dexgrasp_sim.physics.cpu_render.renderer import BatchRenderer
from dexgrasp_sim.physics.mujoco.batch import MujocoBatch
from dexgrasp_sim.physics.mujoco.models import OBJECT, build_models
from dexgrasp_sim.physics.mujoco.object_geoms import common_layout
from dexgrasp_sim.physics.scene import MujocoConfig, PhysicsConfig
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
CONFIG = GraspConfig()
TABLE = CONFIG.table

ALL = [item for name in OBJECT_SETS for item in object_set(name)]
CAMERA = CameraConfig(
    width=120, height=90, fovy_deg=24.0, position_m=(-0.7, 0.6, 0.55), look_at_m=(-0.55, 0.1, 0.29)
)
"""Sees the object on the table and none of the robot."""


def one_of_each_class(objects):
    return list({item.name.rstrip("0123456789_"): item for item in reversed(objects)}.values())


def models_of(objects, physics=CONFIG.physics):
    return build_models(replace(CONFIG.scene(1), physics=physics), objects)


def put(model, item, clearance_m=0.0, rotation=None):
    """The object over the table, its lowest point `clearance_m` above it; the robot is away."""
    data = mujoco.MjData(model)
    data.qpos[:23] = data.ctrl[:] = ARM_PREGRASP + HAND_REST
    rest_m = -np.min([piece.bounds()[0][2] for piece in item.solid.pieces])
    quaternion = [1.0, 0.0, 0.0, 0.0]
    if rotation is not None:
        rest_m, quaternion = 0.1, rotation.as_quat(scalar_first=True)
    data.joint(OBJECT).qpos[:3] = [-0.55, 0.10, TABLE.top_m + rest_m + clearance_m]
    data.joint(OBJECT).qpos[3:] = quaternion
    mujoco.mj_forward(model, data)
    return data


def lowest_m(model, data):
    """Of the object's colliding geoms over the table, from MuJoCo's bounding boxes."""
    lows = []
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] == model.body(OBJECT).id and model.geom_conaffinity[geom]:
            rotation = data.geom_xmat[geom].reshape(3, 3)
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
                mesh = model.mesh(model.geom_dataid[geom])
                start, count = mesh.vertadr[0], mesh.vertnum[0]
                corners = model.mesh_vert[start : start + count]
            else:
                corners = surface_points(model.geom_type[geom], model.geom_size[geom])
            lows.append((data.geom_xpos[geom] + corners @ rotation.T)[:, 2].min())
    return min(lows) - TABLE.top_m


def surface_points(kind, size):
    turn = np.linspace(0.0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=1)
    tilt = np.linspace(-np.pi / 2, np.pi / 2, 37)[:, None, None]
    ball = (np.cos(tilt) * circle + np.sin(tilt) * np.array([0.0, 0.0, 1.0])).reshape(-1, 3)
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return size * np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    ends = np.array([[[0.0, 0.0, size[1]]], [[0.0, 0.0, -size[1]]]])
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return (size[0] * circle + ends).reshape(-1, 3)
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return (size[0] * ball + ends).reshape(-1, 3)
    return ball * (size if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID else size[0])


@pytest.mark.slow
def test_all_objects_compile_into_one_layout():
    models = models_of(ALL)
    batch = Batch(models[0], nsim=len(models), nthread=1)
    batch.set_models(models)  # raises where layouts differ
    for item, model in zip(ALL, models, strict=True):
        body = model.body(OBJECT)
        assert body.mass[0] == pytest.approx(item.total_mass_kg)
        axes = Rotation.from_quat(body.iquat, scalar_first=True).as_matrix()
        np.testing.assert_allclose(
            axes @ np.diag(body.inertia) @ axes.T,
            item.total_mass_kg * item.solid.unit_inertia_m2,
            rtol=1e-6,
            atol=1e-6 * body.inertia.max(),
        )
        slots = [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] == body.id]
        used = [geom for geom in slots if model.geom_conaffinity[geom]]
        assert len(slots) == common_layout(ALL).geoms == 7
        assert len(used) == len(item.solid.pieces)
        for geom in set(slots) - set(used):
            assert model.geom_rgba[geom, 3] == 0 and model.geom_group[geom] >= 3
        for geom in used:
            assert model.geom_rgba[geom] == pytest.approx([*item.rgb, 1.0])


def test_the_laptop_objects_get_no_slots_and_no_meshes():
    (model, *_) = models_of(object_set("laptop"))
    assert model.nmesh == 0
    assert [model.geom(geom).name for geom in range(model.ngeom)][-1] == OBJECT


def test_results_do_not_depend_on_the_other_objects_of_a_batch():
    train = object_set("train")
    config = GraspConfig(objects=(*train[60:62], *train[112:114]))
    together, alone = MujocoBatch(config.scene(4)), MujocoBatch(config.scene(1, env_offset=2))
    posture = torch.tensor([ARM_PREGRASP + HAND_REST])
    pose = torch.tensor([[-0.55, 0.1, TABLE.top_m + 0.1, 0.9, 0.1, 0.2, 0.3]])
    pose[:, 3:] /= pose[:, 3:].norm()
    for engine in (together, alone):
        count = engine.num_envs
        engine.reset(torch.arange(count), posture.expand(count, -1), pose.expand(count, -1))
        for _ in range(10):
            engine.step(posture.expand(count, -1))
    assert torch.equal(together.object_position[2], alone.object_position[0])
    assert torch.equal(together.object_quaternion[2], alone.object_quaternion[0])


@pytest.mark.parametrize("integrator", ["implicitfast", "discrete"])
def test_objects_rest_where_they_start(integrator):
    dt_s = {"implicitfast": 1 / 120, "discrete": 1 / 60}[integrator]
    objects = one_of_each_class(ALL)
    assert len(objects) > 25
    physics = PhysicsConfig(timestep_s=dt_s, mujoco=MujocoConfig(integrator=integrator))
    for item, model in zip(objects, models_of(objects, physics), strict=True):
        data = put(model, item, clearance_m=0.002)
        assert lowest_m(model, data) == pytest.approx(0.002, abs=3e-4), item.name
        started = data.joint(OBJECT).qpos[2]
        highest = 0.0
        for _ in range(round(1.0 / dt_s)):
            mujoco.mj_step(model, data)
            highest = max(highest, data.joint(OBJECT).qpos[2] - started)
        rotation = data.body(OBJECT).xmat.reshape(3, 3)
        assert -0.002 < lowest_m(model, data) < 0.001, item.name
        assert highest < 1e-3, item.name
        assert math.degrees(math.acos(min(1.0, rotation[2, 2]))) < 3.0, item.name
        assert data.joint(OBJECT).qpos[2] == pytest.approx(
            TABLE.top_m + item.solid.rest_height_m, abs=1e-3
        ), item.name
        assert np.linalg.norm(data.joint(OBJECT).qvel[:3]) < 0.02, item.name


def test_thrown_objects_come_to_lie_on_the_table():
    objects = one_of_each_class(object_set("train"))
    turns = Rotation.random(len(objects), rng=np.random.default_rng(0))
    for item, model, turn in zip(objects, models_of(objects), turns, strict=True):
        data = put(model, item, clearance_m=0.02, rotation=turn)
        top_speed = 0.0
        for _ in range(240):
            mujoco.mj_step(model, data)
            top_speed = max(top_speed, np.linalg.norm(data.joint(OBJECT).qvel[:3]))
        assert top_speed < 2.0, item.name
        assert -0.002 < lowest_m(model, data) < 0.003, item.name
        assert data.joint(OBJECT).qpos[2] < TABLE.top_m + 0.1, item.name


def ray_cast(model, data):
    """Depth [H, W] m, 0 where nothing is hit, and geom of every pixel by MuJoCo's own rays."""
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3)
    rays = pixels @ np.linalg.inv(CAMERA.intrinsics).T @ CAMERA.rotation_ros.T
    lengths = np.linalg.norm(rays, axis=1)
    distance, seen = np.zeros(len(rays)), np.zeros(len(rays), dtype=np.int32)
    mujoco.mj_multiRay(
        model,
        data,
        CAMERA.position,
        (rays / lengths[:, None]).ravel(),
        np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8),
        True,
        -1,
        seen,
        distance,
        None,
        len(rays),
        1e9,
    )
    depth = np.where(seen >= 0, distance / lengths, 0.0)
    return depth.reshape(v.shape), seen.reshape(v.shape)


def test_each_environment_shows_its_own_object():
    """Three meshes and a union, in an order that is not the models'."""
    names = ("superquadric_03", "hull_05", "hull_11", "mug_00")
    objects = [item for item in ALL if item.name in names]
    models = models_of(objects)
    order = [2, 0, 3, 1, 2]
    datas = [put(models[index], objects[index]) for index in order]
    renderer = BatchRenderer(models, order, CAMERA)
    xpos = np.array([data.geom_xpos for data in datas])
    xmat = np.array([data.geom_xmat for data in datas])
    depth, seen = renderer.render_float(xpos, xmat)
    body = models[0].body(OBJECT).id
    slots = np.flatnonzero(models[0].geom_bodyid == body)
    for env, index in enumerate(order):
        ray_depth, ray_seen = ray_cast(models[index], datas[env])
        assert (seen[env] == ray_seen).mean() >= 0.998
        assert np.quantile(np.abs(depth[env] - ray_depth), 0.999) < 1e-5
        pieces = len(objects[index].solid.pieces)
        shown = np.unique(seen[env][np.isin(seen[env], slots)])
        assert shown.tolist() == slots[:pieces].tolist(), "hidden slots are not drawn"
        assert np.isin(seen[env], slots).mean() > 0.05
    assert not np.array_equal(depth[0], depth[1])
    np.testing.assert_array_equal(depth[0], depth[4])
    images = np.zeros((len(order), 3, CAMERA.height, CAMERA.width), dtype=np.uint8)
    renderer.rgb(xpos, xmat, images)
    for env, index in enumerate(order):
        pixels = images[env][:, np.isin(seen[env], slots)].mean(axis=1)
        colour = np.array(objects[index].rgb)
        assert np.corrcoef(pixels, colour)[0, 1] > 0.98, objects[index].name
