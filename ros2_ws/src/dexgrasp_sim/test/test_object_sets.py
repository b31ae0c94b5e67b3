"""Sets of objects: their names in a config, their sizes and masses, and the task with them."""

import json
import math

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp_sim.config import ConfigError, parse_config, replace, to_dict
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.objects.config import SHAPE_CLASSES, ObjectConfig, PartConfig
from dexgrasp_sim.objects.sets import OBJECT_SETS, PRIMITIVES, object_set
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import RESULT_SPECS
from dexgrasp_sim.tasks.grasp.observations import observation_spec

TETRAHEDRON = ((0.0, 0.0, 0.0), (0.06, 0.0, 0.0), (0.0, 0.09, 0.0), (0.0, 0.0, 0.12))
SLAB = PartConfig("box", (0.08, 0.06, 0.02), (0.0, 0.0, 0.01))
POST = PartConfig("box", (0.02, 0.06, 0.06), (0.03, 0.0, 0.05))
ANGLE = ObjectConfig("angle", "compound", parts=(SLAB, POST))


def test_the_config_takes_the_name_of_a_set_and_writes_it():
    for name in OBJECT_SETS:
        config = parse_config(GraspConfig, {"objects": name})
        assert config.objects == object_set(name)
        assert to_dict(config)["objects"] == name
        assert parse_config(GraspConfig, json.loads(json.dumps(to_dict(config)))) == config
    some = replace(GraspConfig(), objects=object_set("train")[40:43])
    assert [item["name"] for item in to_dict(some)["objects"]] == [i.name for i in some.objects]
    assert parse_config(GraspConfig, json.loads(json.dumps(to_dict(some)))) == some


@pytest.mark.parametrize("value", ["trian", ""])
def test_an_unknown_set_is_refused_with_the_names_that_exist(value):
    with pytest.raises(ConfigError, match=r"laptop, primitives, train, held_out or a list"):
        parse_config(GraspConfig, {"objects": value})


def test_the_published_primitives():
    sizes = {
        (0.12, 0.12, 0.05),
        (0.05, 0.05, 0.12),
        (0.08, 0.08, 0.08),
        (0.06, 0.06, 0.025),
        (0.025, 0.025, 0.06),
        (0.04, 0.04, 0.04),
    }
    for shape in ("box", "cylinder"):
        found = [item for item in PRIMITIVES if item.shape == shape]
        assert {item.extents_m for item in found} == sizes and len(found) == 6
    by_name = {item.name: item for item in PRIMITIVES}
    assert by_name["cube_box"].total_mass_kg == pytest.approx(500 * 0.08**3)
    can = by_name["flat_cylinder"].total_mass_kg
    assert can == pytest.approx(500 * math.pi * 0.06**2 * 0.05)


def ellipsoid_inertia(mass, x, y, z):
    return mass / 20 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])


@pytest.mark.parametrize(
    ("fields", "extents_m", "volume_m3", "unit_inertia_m2"),
    [
        (
            {"shape": "ellipsoid", "size_m": (0.06, 0.08, 0.10)},
            (0.06, 0.08, 0.10),
            math.pi / 6 * 0.06 * 0.08 * 0.10,
            np.diag(ellipsoid_inertia(1.0, 0.06, 0.08, 0.10)),
        ),
        (
            # tetrahedron with corners 0, a ex, b ey, c ez: volume abc/6; about the centroid
            # Ixx = 3/80 (b² + c²), and the product of inertia int xy = -ab/80
            {"shape": "hull", "points_m": TETRAHEDRON},
            (0.06, 0.09, 0.12),
            0.06 * 0.09 * 0.12 / 6,
            np.array(
                [
                    [3 * (0.09**2 + 0.12**2), 0.06 * 0.09, 0.06 * 0.12],
                    [0.06 * 0.09, 3 * (0.06**2 + 0.12**2), 0.09 * 0.12],
                    [0.06 * 0.12, 0.09 * 0.12, 3 * (0.06**2 + 0.09**2)],
                ]
            )
            / 80,
        ),
    ],
    ids=["ellipsoid", "tetrahedron"],
)
def test_volume_and_inertia_by_formula(fields, extents_m, volume_m3, unit_inertia_m2):
    item = ObjectConfig("thing", **fields)
    assert item.extents_m == pytest.approx(extents_m)
    assert item.solid.volume_m3 == pytest.approx(volume_m3)
    assert item.total_mass_kg == pytest.approx(500 * volume_m3)
    assert item.solid.unit_inertia_m2 == pytest.approx(unit_inertia_m2, rel=1e-9, abs=1e-12)


def test_a_capsule_lies_along_x():
    diameter, length = 0.06, 0.14
    item = ObjectConfig("pill", "capsule", (diameter, length), density_kg_m3=1000.0)
    assert item.extents_m == pytest.approx((length, diameter, diameter))
    radius, tube = diameter / 2, length - diameter
    volume = math.pi * radius**2 * tube + 4 / 3 * math.pi * radius**3
    assert item.total_mass_kg == pytest.approx(1000 * volume)
    # against MuJoCo's own inertia of a capsule
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body()
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[radius, tube / 2, 0], mass=1, euler=[0, 90, 0]
    )
    model = spec.compile()
    assert sorted(model.body_inertia[1]) == pytest.approx(
        sorted(np.diag(item.solid.unit_inertia_m2)), rel=1e-6
    )
    assert item.solid.unit_inertia_m2[0, 0] == pytest.approx(model.body_inertia[1].min())


def test_parts_that_touch_are_summed_exactly():
    """Slab 80 x 60 x 20 mm, on one end a post 20 x 60 x 60 mm: 96 and 72 cm³."""
    slab, post = 96e-6, 72e-6
    volume = slab + post
    solid = ANGLE.solid
    assert solid.volume_m3 == pytest.approx(volume)
    centroid = np.array([0.03 * post, 0.0, 0.01 * slab + 0.05 * post]) / volume
    assert solid.low_m == pytest.approx(np.array([-0.04, -0.03, 0.0]) - centroid)
    assert solid.high_m == pytest.approx(np.array([0.04, 0.03, 0.08]) - centroid)
    assert ANGLE.extents_m == pytest.approx((0.08, 0.06, 0.08))
    assert solid.rest_height_m == pytest.approx(centroid[2])
    # Steiner: Iyy = sum of m (a² + c²) / 12 + m (dx² + dz²)
    by_hand = 0.0
    for share, size, at in ((slab, (0.08, 0.02), (0.0, 0.01)), (post, (0.02, 0.06), (0.03, 0.05))):
        offset = np.array(at) - centroid[[0, 2]]
        by_hand += share / volume * (np.square(size).sum() / 12 + offset @ offset)
    assert solid.unit_inertia_m2[1, 1] == pytest.approx(by_hand)


def test_overlaps_count_once():
    inner = PartConfig("sphere", (0.05,), (0.01, 0.0, 0.0))
    outer = PartConfig("box", (0.08, 0.06, 0.07))
    alone = ObjectConfig("a", "compound", parts=(outer,)).solid
    both = ObjectConfig("b", "compound", parts=(outer, inner)).solid
    assert both.volume_m3 == pytest.approx(alone.volume_m3, rel=1e-3)
    assert both.unit_inertia_m2 == pytest.approx(alone.unit_inertia_m2, rel=2e-3, abs=1e-6)
    assert both.low_m == pytest.approx(alone.low_m, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "size_m"),
    [
        ("box", (0.06, 0.08, 0.1)),
        ("cylinder", (0.06, 0.1)),
        ("sphere", (0.07,)),
        ("capsule", (0.05, 0.12)),
        ("ellipsoid", (0.06, 0.08, 0.1)),
    ],
)
def test_triangles_enclose_the_body(shape, size_m):
    item = ObjectConfig("thing", shape, size_m)
    corners = item.solid.triangles()
    # the divergence theorem: a sixth of the sum of det(a, b, c) is the volume enclosed
    assert np.linalg.det(corners).sum() / 6 == pytest.approx(item.solid.volume_m3, rel=0.06)
    # every edge is there once in each direction
    edges = [
        tuple(map(tuple, np.stack(edge).round(9)))
        for edge in zip(
            corners.reshape(-1, 3), np.roll(corners, -1, axis=1).reshape(-1, 3), strict=True
        )
    ]
    assert len(set(edges)) == len(edges)
    assert {(second, first) for first, second in edges} == set(edges)
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    np.testing.assert_allclose(high - low, item.extents_m, rtol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mug_00", "bottle_01", "bowl_02", "lamp_03", "cross_04"])
def test_unions_against_random_points(name):
    (item,) = (item for item in object_set("train") if item.name == name)
    solid = item.solid
    random = np.random.default_rng(0)
    points = random.uniform(solid.low_m, solid.high_m, (400_000, 3))
    inside = np.any([piece.contains(points) for piece in solid.pieces], axis=0)
    box_m3 = np.prod(solid.high_m - solid.low_m)
    assert solid.volume_m3 == pytest.approx(inside.mean() * box_m3, rel=0.015)
    points = points[inside]
    assert np.abs(points.mean(axis=0)).max() < 2e-4
    second = points.T @ points / len(points)
    inertia = np.trace(second) * np.eye(3) - second
    np.testing.assert_allclose(
        solid.unit_inertia_m2, inertia, atol=0.015 * np.trace(inertia), rtol=0
    )


@pytest.mark.parametrize("name", list(OBJECT_SETS))
def test_every_object_is_a_possible_body(name):
    objects = object_set(name)
    assert len({item.name for item in objects}) == len(objects)
    for item in objects:
        moments = np.linalg.eigvalsh(item.solid.unit_inertia_m2)
        assert moments[0] > 0 and moments[2] <= moments[0] + moments[1] + 1e-12, item.name
        assert 0.01 < item.total_mass_kg < 1.0, item.name
        box_m3 = math.prod(item.extents_m)
        assert 0.1 * box_m3 < item.solid.volume_m3 <= box_m3 * (1 + 1e-9), item.name
        assert (item.solid.low_m < 0).all() and (item.solid.high_m > 0).all(), item.name
        assert item.shape_class in SHAPE_CLASSES


def test_the_task_starts_every_object_standing_and_tells_its_shape():
    config = parse_config(GraspConfig, {"objects": "held_out", "stagger_starts": False})
    count = len(config.objects)
    env = make_grasp_env(config, count, 0, 1, ("state",))
    out = {spec.name: spec.empty(count) for spec in (*env.observation_specs, *RESULT_SPECS)}
    env.reset(out)
    rest_m = torch.tensor([item.solid.rest_height_m for item in config.objects])
    assert torch.allclose(env.engine.object_position[:, 2], config.table.top_m + rest_m + 0.002)
    assert torch.allclose(env.start_height, config.table.top_m + rest_m)
    terms = {}
    column = 0
    for term in observation_spec(config, "state").terms:
        terms[term.name] = out["state"][:, column : column + term.size]
        column += term.size
    extents = torch.tensor([item.extents_m for item in config.objects])
    assert torch.equal(terms["object_extents"], extents)
    shapes = [SHAPE_CLASSES[index] for index in terms["object_shape"].argmax(dim=1)]
    assert shapes == [item.shape_class for item in config.objects]
    assert (terms["object_shape"].sum(dim=1) == 1).all()
    for _ in range(15):
        env.step(torch.zeros(count, env.action_dim), out)
    assert not out["terminated"].any()
    lifted = env.engine.object_position[:, 2] - env.start_height
    assert lifted.abs().max() < 2e-3
    env.close()


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ({"shape": "capsule", "size_m": [0.06, 0.05]}, "length 0.05 must exceed its diameter"),
        ({"shape": "superquadric", "size_m": [0.1, 0.1, 0.1]}, "needs `exponents`"),
        (
            {"shape": "superquadric", "size_m": [0.1] * 3, "exponents": [1.0, 2.5]},
            "less than or equal to 2",
        ),
        ({"shape": "hull", "points_m": [[0.0, 0.0, 0.0]] * 3}, "at least 4 points"),
        (
            {"shape": "hull", "points_m": [[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0.1, 0.1, 0]]},
            "not in one plane",
        ),
        ({"shape": "compound"}, "needs `parts`"),
        ({"shape": "compound", "size_m": [0.1], "parts": []}, "needs 0 numbers"),
        ({"shape": "mesh"}, "needs `path`"),
        ({"shape": "sphere", "size_m": [0.1], "path": "a.obj"}, "`path` is for a mesh"),
        (
            {"shape": "sphere", "size_m": [0.1], "scale": 0.001},
            "`scale`, `hull` and `rpy_rad` are for",
        ),
        (
            {"shape": "compound", "parts": [{"shape": "hull", "size_m": []}]},
            "`parts.0.shape` = 'hull'",
        ),
        ({"shape": "sphere", "size_m": [0.1], "density_kg_m3": 0}, "`density_kg_m3` = 0"),
    ],
)
def test_an_impossible_shape_is_refused(values, needle):
    with pytest.raises(ConfigError, match=needle):
        parse_config(ObjectConfig, {"name": "thing", **values})
