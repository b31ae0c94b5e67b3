"""Mesh files of users: what is taken, into which pieces, and what is refused with which remedy."""

import re
import shlex

import numpy as np
import pytest
import trimesh

from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.objects.meshes import MAX_PIECES
from dexgrasp_sim.objects.sets import object_set
from dexgrasp_sim.physics.mujoco.models import OBJECT, build_models
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import grasp_specs

BOX_M = (0.05, 0.06, 0.08)


def box(extents=BOX_M, at=(0.0, 0.0, 0.0)):
    mesh = trimesh.creation.box(extents)
    mesh.apply_translation(at)
    return mesh


def angle():
    """An L profile: one part that is not convex."""
    outline = np.array([[0, 0], [100, 0], [100, 30], [30, 30], [30, 100], [0, 100]]) / 1000
    count = len(outline)
    vertices = np.vstack([np.c_[outline, np.zeros(count)], np.c_[outline, np.full(count, 0.04)]])
    lid = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]])
    here, following = np.arange(count), np.roll(np.arange(count), -1)
    walls = np.concatenate(
        [
            np.stack([here, following, following + count], axis=1),
            np.stack([here, following + count, here + count], axis=1),
        ]
    )
    return trimesh.Trimesh(vertices, np.concatenate([lid[:, ::-1], lid + count, walls]))


def save(folder, mesh, name="thing.obj"):
    path = folder / name
    mesh.export(path)
    return path


def save_parts(folder, parts, name="parts.obj"):
    """An OBJ file with one `o` for each part, as decomposition tools write it."""
    scene = trimesh.Scene()
    for index, part in enumerate(parts):
        scene.add_geometry(part, geom_name=f"part_{index}", node_name=f"part_{index}")
    path = folder / name
    scene.export(path)
    return path


def thing(path, **fields):
    return ObjectConfig("thing", "mesh", path=path, **fields)


@pytest.mark.parametrize("name", ["box.obj", "box.stl", "BOX.STL"])
def test_a_convex_mesh_is_one_piece(tmp_path, name):
    item = thing(save(tmp_path, box(at=(0.3, 0.2, 0.1)), name))
    assert item.extents_m == pytest.approx(BOX_M)
    assert item.solid.volume_m3 == pytest.approx(np.prod(BOX_M))
    assert item.total_mass_kg == pytest.approx(500 * np.prod(BOX_M))
    assert item.solid.low_m == pytest.approx(-np.array(BOX_M) / 2)
    x, y, z = np.square(BOX_M)
    assert np.diag(item.solid.unit_inertia_m2) == pytest.approx(
        np.array([y + z, x + z, x + y]) / 12
    )
    assert len(item.solid.pieces) == 1 and item.shape_class == "convex"


def test_the_file_is_scaled_turned_and_may_be_ascii(tmp_path):
    """A file in millimetres with y up, as design programs write it."""
    path = tmp_path / "part.stl"
    path.write_text(trimesh.exchange.stl.export_stl_ascii(box((50.0, 80.0, 60.0))))
    item = thing(path, scale=0.001, rpy_rad=(np.pi / 2, 0.0, 0.0), mass_kg=0.25)
    assert item.extents_m == pytest.approx((0.05, 0.06, 0.08))
    assert item.total_mass_kg == 0.25


def test_parts_become_pieces(tmp_path):
    slab, post = box((0.08, 0.06, 0.02), (0, 0, 0.01)), box((0.02, 0.06, 0.06), (0.03, 0, 0.05))
    whole = thing(save_parts(tmp_path, [slab, post]))
    apart = thing(save(tmp_path, slab + box((0.02, 0.06, 0.06), (0.03, 0, 0.06)), "apart.stl"))
    for item in (whole, apart):
        assert len(item.solid.pieces) == 2 and item.shape_class == "compound"
        assert item.solid.volume_m3 == pytest.approx(96e-6 + 72e-6)
    assert whole.extents_m == pytest.approx((0.08, 0.06, 0.08))
    assert whole.solid.rest_height_m == pytest.approx((0.01 * 96 + 0.05 * 72) / 168)


def test_many_corners_are_thinned(tmp_path):
    item = thing(save(tmp_path, trimesh.creation.icosphere(subdivisions=4, radius=0.05)))
    (piece,) = item.solid.pieces
    assert len(piece.vertices) <= 128
    assert item.extents_m == pytest.approx((0.1,) * 3, rel=0.02)


def hole(mesh):
    mesh.update_faces(np.arange(len(mesh.faces)) != 3)
    return mesh


def flipped(mesh):
    mesh.faces[3] = mesh.faces[3][::-1]
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def beads():
    row = [box((0.01, 0.01, 0.01), (0.013 * index, 0, 0)) for index in range(MAX_PIECES + 1)]
    return trimesh.util.concatenate(row)


@pytest.mark.parametrize(
    ("mesh", "needles"),
    [
        (lambda: hole(box()), ["not closed, 3 edges", "fill the holes", "`hull: true`"]),
        (lambda: flipped(box()), ["do not all face outwards", "normals"]),
        (lambda: box((50.0, 60.0, 80.0)), ["80 m long", "millimetres (`scale: 0.001`, 0.08 m)"]),
        (
            lambda: box((5.0, 6.0, 8.0)),
            ["centimetres (`scale: 0.01`, 0.08 m) or inches (`scale"],
        ),
        (lambda: box((2.5, 2.0, 1.5)), ["2.5 m long", "inches (`scale: 0.0254`, 0.0635 m)"]),
        (lambda: box(np.array(BOX_M) / 1000), ["8e-05 m long", "as millimetres (`scale: 1000`"]),
        (lambda: box((0.4, 0.4, 0.4)), ["0.4 m long", "0.02 to 0.3 m", "choose `scale`"]),
        (angle, ["part 1 of 1 is not convex", "empty, allowed is 2%", "coacd -i /", "48% larger"]),
        (lambda: box((0.1, 0.1, 0.0005)), ["0.0005 m thick", "at least 0.001 m"]),
        (lambda: box() + box(at=(0.15, 0, 0)), ["part 2 of 2 is more than 0.02 m from the other"]),
        (beads, ["17 separate parts", "at most 16", "coacd"]),
    ],
)
def test_a_bad_mesh_is_refused_with_the_remedy(tmp_path, mesh, needles):
    path = save(tmp_path, mesh())
    with pytest.raises(ConfigError) as error:
        _ = thing(path).solid
    message = str(error.value)
    assert "\n" not in message
    for needle in (str(path), *needles):
        assert needle in message


@pytest.mark.parametrize(
    ("name", "content", "needles"),
    [
        ("thing.obj", "", ["is empty; export it again"]),
        ("thing.obj", "v 0 0 0\nv 1 0 0\n", ["holds no triangles"]),
        ("thing.stl", "", ["is empty; export it again"]),
        ("thing.stl", "what a mess", ["is no STL file, neither binary nor text"]),
        ("thing.stl", "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0", ["is cut off"]),
        ("thing.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", ["no valid mesh file"]),
        ("thing.obj", "v 0 0 0\nv .1 0 0\nf 1 2 2\n", ["no triangle has an area"]),
        (
            "thing.obj",
            "o cup\nv 0 0 0\no lid\nv 1 0 0\no cup\nv 0 1 0\n",
            ["2 parts have the name 'cup'", "a name of its own"],
        ),
        ("thing.obj", "v 0 0 zero\nf 1 1 1\n", ["no valid mesh file"]),
        ("thing.dae", "<COLLADA/>", [".obj or .stl", "convert"]),
        (None, "", ["no such file", "`path`"]),
        (
            "thing.obj",
            "v 0 0 0\nv .1 0 0\nv 0 .1 0\nf 1 2 3\nf 1 3 2\n",
            ["part 1 of 1 is flat"],
        ),
        (
            "thing.obj",
            "v nan 0 0\nv .1 0 0\nv 0 .1 0\nf 1 2 3\n",
            ["the first is nan 0 0"],
        ),
        ("thing.obj", "v 0 0 0\nv .1 inf 0\nv 0 .1 0\nf 1 2 3\n", ["1 of 3 vertices are not f"]),
    ],
)
def test_a_file_that_is_no_mesh_is_refused(tmp_path, name, content, needles):
    path = tmp_path / (name or "missing.obj")
    if name:
        path.write_text(content)
    with pytest.raises(ConfigError) as error:
        _ = thing(path).solid
    for needle in (str(path), *needles):
        assert needle in str(error.value)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_binary_stl_that_is_cut_off_says_how_much_is_there(tmp_path, kept):
    path = save(tmp_path, trimesh.creation.icosphere(radius=0.05), "ball.stl")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ConfigError, match=r"ball\.stl: is cut off: it holds \d+ of 1280 tri"):
        _ = thing(path).solid


def test_a_binary_stl_whose_header_says_solid_is_binary(tmp_path):
    path = save(tmp_path, box(), "box.stl")
    content = path.read_bytes()
    path.write_bytes(b"solid facet".ljust(80) + content[80:])
    assert thing(path).extents_m == pytest.approx(BOX_M)


def test_useless_triangles_are_dropped_with_a_note(tmp_path, caplog):
    mesh = box()
    faces = np.concatenate([mesh.faces, mesh.faces[:2], [[0, 0, 1], [3, 5, 3]]])
    faces[-4] = np.roll(faces[-4], 1)  # the same triangle, beginning with another corner
    path = save(tmp_path, trimesh.Trimesh(mesh.vertices, faces, process=False))
    assert thing(path).solid.volume_m3 == pytest.approx(np.prod(BOX_M))
    assert "4 triangles without an area or given twice are left out" in caplog.text
    assert str(path) in caplog.text


def scan():
    """A box as scanners see it: one side is pressed in a little."""
    mesh = box().subdivide().subdivide()
    middle = np.isclose(mesh.vertices[:, 2], BOX_M[2] / 2) & (
        np.abs(mesh.vertices[:, :2]) < [0.02, 0.025]
    ).all(axis=1)
    mesh.vertices[middle, 2] -= 0.012
    return mesh


def test_the_convex_hull_of_a_scan_is_used_where_the_config_says_so(tmp_path):
    hollow = scan()
    path = save(tmp_path, hollow)
    with pytest.raises(ConfigError, match=r"not convex \([3-9]\.\d% .* `hull: true` to use"):
        _ = thing(path).solid
    holed = save(tmp_path, hole(hollow), "holed.obj")
    for file in (path, holed):
        item = thing(file, hull=True)
        assert len(item.solid.pieces) == 1 and item.shape_class == "convex"
        assert item.solid.volume_m3 == pytest.approx(np.prod(BOX_M))
        assert parse_config(ObjectConfig, to_dict(item)) == item
    parts = save_parts(tmp_path, [box((0.08, 0.06, 0.02), (0, 0, 0.01)), box((0.02,) * 3)])
    assert len(thing(parts, hull=True).solid.pieces) == 1
    with pytest.raises(ConfigError, match="`hull` and `rpy_rad` are for a mesh, not for a sphere"):
        parse_config(
            ObjectConfig, {"name": "a", "shape": "sphere", "size_m": [0.05], "hull": True}
        )


def test_the_advised_command_is_one_that_a_shell_and_coacd_take(tmp_path):
    """Options as in python/package/bin/coacd of github.com/SarahWeiii/CoACD."""
    folder = tmp_path / "my scans; it's"
    folder.mkdir()
    path = save(folder, angle(), "an angle.obj")
    with pytest.raises(ConfigError) as error:
        _ = thing(path).solid
    install, command = re.findall(r"`((?:pip|coacd) .*?)`", str(error.value))
    assert install == "pip install coacd trimesh"  # the command imports trimesh
    wanted = folder / "an angle_parts.obj"
    assert shlex.split(command) == [
        *("coacd", "-i", str(path), "-o", str(wanted), "-c", str(MAX_PIECES))
    ]
    assert f"give {wanted} as `path`" in str(error.value)


def test_a_run_refuses_a_bad_file_before_it_starts_workers(tmp_path):
    values = {"objects": [{"name": "my_mug", "shape": "mesh", "path": str(tmp_path / "mug.obj")}]}
    config = parse_config(GraspConfig, values)  # on the robot the file need not exist
    with pytest.raises(ConfigError, match=r"object 'my_mug': .*mug\.obj: no such file"):
        grasp_specs(to_dict(config), ("state",))


def test_a_relative_path_is_kept_as_an_absolute_one(tmp_path, monkeypatch):
    save(tmp_path, box(), "box.obj")
    monkeypatch.chdir(tmp_path)
    item = thing("box.obj")
    monkeypatch.chdir("/")
    assert item.path == tmp_path / "box.obj"
    assert item.extents_m == pytest.approx(BOX_M)
    assert parse_config(ObjectConfig, to_dict(item)) == item


def test_meshes_of_users_mix_with_other_objects(tmp_path):
    parts = [box((0.08, 0.06, 0.02), (0, 0, 0.01)), box((0.02, 0.06, 0.06), (0.03, 0, 0.05))]
    mine = thing(save_parts(tmp_path, parts))
    objects = (*object_set("laptop"), mine, object_set("train")[20])
    models = build_models(GraspConfig().scene(1), objects)
    assert len({(model.ngeom, model.nbvh, model.nmesh, model.nC) for model in models}) == 1
    assert models[3].body(OBJECT).mass[0] == pytest.approx(mine.total_mass_kg)
