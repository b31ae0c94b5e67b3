from dataclasses import replace

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.objects.config import LAPTOP_OBJECTS, SHAPES, ObjectConfig
from dexgrasp_sim.physics.mujoco.models import OBJECT, build_models
from dexgrasp_sim.physics.scene import PhysicsConfig, TableConfig
from dexgrasp_sim.tasks.grasp.config import GraspConfig

BOX = ObjectConfig("box", "box", (0.04, 0.06, 0.10), mass_kg=0.3, rgb=(1.0, 0.5, 0.0))
CYLINDER = ObjectConfig("can", "cylinder", (0.06, 0.12), mass_kg=0.2)
SPHERE = ObjectConfig("ball", "sphere", (0.08,), mass_kg=0.05)
OBJECTS = (BOX, CYLINDER, SPHERE)
PHYSICS = PhysicsConfig(friction=0.7)
SCENE = GraspConfig(physics=PHYSICS).scene(1)
MODELS = dict(zip(OBJECTS, build_models(SCENE, OBJECTS), strict=True))


def test_extents_are_full_lengths_along_the_axes():
    assert BOX.extents_m == pytest.approx((0.04, 0.06, 0.10))
    assert CYLINDER.extents_m == pytest.approx((0.06, 0.06, 0.12))
    assert SPHERE.extents_m == pytest.approx((0.08, 0.08, 0.08))
    assert SHAPES[:3] == ("box", "cylinder", "sphere")


def compound(*positions_m):
    part = {"shape": "box", "size_m": [0.04, 0.04, 0.04]}
    parts = [{**part, "position_m": list(position)} for position in positions_m]
    return {"shape": "compound", "size_m": [], "parts": parts}


def hull(thick_m, turned=False):
    """A plate as a hull; turned, so that no axis shows how thin it is."""
    corners = np.array([[x, y, z * thick_m] for x in (0, 0.1) for y in (0, 0.1) for z in (0, 1)])
    turn = Rotation.from_euler("xyz", [0.5, 0.6, 0.7]).as_matrix() if turned else np.eye(3)
    return {"shape": "hull", "size_m": [], "points_m": (corners @ turn.T).tolist()}


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"shape": "box", "size_m": [0.1]}, "a box needs 3 numbers"),
        ({"shape": "cylinder", "size_m": [0.1, 0.1, 0.1]}, "a cylinder needs 2 numbers"),
        ({"shape": "sphere", "size_m": []}, "a sphere needs 1 numbers"),
        ({"shape": "cone"}, "`shape` = 'cone': Input should be 'box', 'cylinder'"),
        ({"shape": "sphere", "size_m": [0.0]}, "greater than 0"),
        (
            {"size_m": [1e-9, 1e-9, 1e-9]},
            r"`size_m\.0` = 1e-09: lengths are at least 0\.001 m",
        ),
        ({"size_m": [0.1, 0.1, 1e-7]}, r"`size_m\.2` = 1e-07: lengths are at least 0\.001 m"),
        ({"size_m": [0.01, 0.01, 0.01]}, r"longest extent is 0\.01 m, 0\.02 to 0\.3 m can be gra"),
        ({"size_m": [0.1, 0.1, 0.45]}, r"longest extent is 0\.45 m"),
        ({"mass_kg": 1e-9}, r"`mass_kg` = 1e-09: the magnitude is 0 or at least 1e-06 kg"),
        ({"shape": "sphere", "size_m": [0.6]}, "less than or equal to 0.5"),
        ({"mass_kg": 0}, "`mass_kg` = 0"),
        ({"rgb": [204, 56, 46]}, "`rgb.0` = 204"),
        ({"colour": [0, 0, 0]}, "unknown key `colour`"),
        (compound((0, 0, 0), (5, 0, 0)), r"longest extent is 5\.04 m"),
        (compound((0, 0, 0), (0.1, 0, 0)), r"part 2 of 2 is more than 0\.02 m from the others"),
        (compound((0, 0, 0), (0.04, 0, 0), (0.2, 0, 0)), "part 3 of 3 is more than"),
        (hull(1e-6), r"it is 1e-06 m thick, at least 0\.001 m is needed"),
        (hull(1e-6, turned=True), r"it is 1e-06 m thick"),
    ],
)
def test_an_impossible_object_is_refused(changes, needle):
    values = {"name": "thing", "shape": "box", "size_m": [0.1, 0.1, 0.1], **changes}
    with pytest.raises(ConfigError, match=needle):
        parse_config(ObjectConfig, values)


def test_parts_may_be_joined_by_others_and_leave_narrow_gaps():
    chain = [(0.1, 0, 0), (0, 0, 0), (0.05, 0, 0)]  # gaps of 1 cm, the first two by the third
    item = parse_config(ObjectConfig, {"name": "chain", **compound(*chain)})
    assert item.extents_m == pytest.approx((0.14, 0.04, 0.04))


def test_a_plate_of_the_least_thickness_is_an_object():
    for turned in (False, True):
        item = parse_config(ObjectConfig, {"name": "plate", **hull(0.00101, turned)})
        assert item.solid.volume_m3 == pytest.approx(0.1 * 0.1 * 0.00101)


def test_objects_of_the_laptop_preset_fit_the_hand_and_stand():
    assert [item.name for item in LAPTOP_OBJECTS] == ["box", "cylinder", "sphere"]
    for item in LAPTOP_OBJECTS:
        assert 0.05 <= max(item.extents_m[:2]) <= 0.08, "6 to 8 cm wide, what the hand spans"


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.name)
def test_the_compiled_object_has_the_configured_size_mass_and_colour(item):
    model = MODELS[item]
    body, geom = model.body(OBJECT), model.geom(OBJECT)
    assert body.mass[0] == pytest.approx(item.mass_kg)
    assert model.geom_aabb[geom.id, 3:] == pytest.approx(np.array(item.extents_m) / 2)
    assert geom.rgba == pytest.approx([*item.rgb, 1.0])
    x, y, z = item.extents_m
    # homogeneous solids: box m (a^2 + b^2) / 12, cylinder m r^2 / 2 and m (3 r^2 + h^2) / 12,
    # sphere 2 m r^2 / 5
    inertia = {
        "box": np.array([y * y + z * z, x * x + z * z, x * x + y * y]) / 12,
        "cylinder": np.array([3 * x * x / 4 + z * z] * 2 + [1.5 * x * x]) / 12,
        "sphere": np.full(3, x * x / 10),
    }[item.shape]
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, body.iquat)
    axes = rotation.reshape(3, 3)
    about_axes = np.diag(axes @ np.diag(body.inertia) @ axes.T)
    assert about_axes == pytest.approx(item.mass_kg * inertia, rel=1e-6)


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.name)
def test_all_models_share_the_layout(item):
    model, first = MODELS[item], MODELS[BOX]
    assert (model.nq, model.nv, model.nu, model.ngeom) == (30, 29, 23, first.ngeom)
    for joint in (*SCENE.robot.joint_names, OBJECT):
        assert model.joint(joint).qposadr == first.joint(joint).qposadr
    assert [model.geom(i).name for i in range(model.ngeom)] == [
        first.geom(i).name for i in range(first.ngeom)
    ]
    assert model.body_gravcomp[model.body(OBJECT).id] == 0


def test_every_contact_has_the_configured_friction():
    model = MODELS[BOX]
    assert np.unique(model.geom_friction[:, 0]) == pytest.approx([0.7])
    assert np.unique(model.geom_condim).tolist() == [4]
    assert model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
    assert model.opt.timestep == PHYSICS.timestep_s


def test_the_table_stands_where_the_config_says():
    table = TableConfig(center_m=(-0.5, 0.1, 0.2), size_m=(0.6, 0.8, 0.04))
    assert table.top_m == pytest.approx(0.22)
    (model,) = build_models(replace(SCENE, table=table), (BOX,))
    geom = model.geom("table")
    assert geom.pos.tolist() == [-0.5, 0.1, 0.2]
    assert (2 * geom.size).tolist() == pytest.approx([0.6, 0.8, 0.04])


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.name)
def test_an_object_falls_on_the_table_and_stays_on_it(item):
    model = MODELS[item]
    data = mujoco.MjData(model)
    top, half_height = TableConfig().top_m, item.extents_m[2] / 2
    data.joint(OBJECT).qpos[:3] = [-0.55, 0.10, top + half_height + 0.03]
    mujoco.mj_step(model, data, nstep=180)
    position = data.joint(OBJECT).qpos[:3]
    np.testing.assert_allclose(position, [-0.55, 0.10, top + half_height], atol=1e-3)
    assert np.abs(data.joint(OBJECT).qvel).max() < 0.02
