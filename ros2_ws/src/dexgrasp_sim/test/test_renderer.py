import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mujoco.batch import Batch

from dexgrasp_sim.kernels import source_hash
from dexgrasp_sim.physics.cpu_render.draw_kernels import draw
from dexgrasp_sim.physics.cpu_render.renderer import BatchRenderer
from dexgrasp_sim.physics.cpu_render.vector_kernels import SOURCES
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.preprocess import metres_to_millimetres

SIZES = {
    "plane": (0.2, 0.1, 0.1),
    "sphere": (0.08, 0.0, 0.0),
    "capsule": (0.05, 0.09, 0.0),
    "ellipsoid": (0.05, 0.08, 0.11),
    "cylinder": (0.07, 0.05, 0.0),
    "box": (0.05, 0.08, 0.11),
    "mesh": (0.0, 0.0, 0.0),
}
KINDS = list(SIZES)
VISIBLE_GROUPS = np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)
CAMERA = CameraConfig(
    width=96, height=72, fovy_deg=50.0, position_m=(0.9, -0.3, 0.6), look_at_m=(0.0, 0.0, 0.1)
)
# looks straight down from 1 m, x of the base frame to the right
DOWN = CameraConfig(
    width=41,
    height=31,
    fovy_deg=45.0,
    position_m=(0.0, 0.0, 1.0),
    look_at_m=(0.0, 0.0, 0.0),
    up=(0.0, 1.0, 0.0),
    near_m=0.2,
    far_m=3.0,
)


def add_mesh(spec, rng, name="mesh", scale=0.1):
    points = rng.normal(size=(40, 3)) * [1.0, 0.7, 1.4]
    points *= scale / np.linalg.norm(points, axis=1, keepdims=True)
    spec.add_mesh(
        name=name, uservert=points.ravel(), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    )


def make_model(*geoms):
    """A model of static geoms, each a dict of MjsGeom fields with `kind` for the type."""
    spec = mujoco.MjSpec()
    add_mesh(spec, np.random.default_rng(5))
    for index, geom in enumerate(geoms):
        fields = dict(geom)
        kind = fields.pop("kind")
        fields.setdefault("size", SIZES[kind])
        if kind == "mesh":
            fields["meshname"] = "mesh"
        spec.worldbody.add_geom(
            name=f"geom{index}", type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"), **fields
        )
    return spec.compile()


def make_data(model):
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


def random_geoms(rng, kinds):
    """One geom of each kind about the origin, over a floor and in front of nothing."""
    geoms = [{"kind": "plane", "pos": [0.0, 0.0, -0.2], "size": (0.0, 0.0, 0.1)}]
    for kind in kinds:
        quaternion = rng.normal(size=4)
        size = np.array(SIZES[kind]) * rng.uniform(0.6, 1.4)
        position = rng.uniform((-0.25, -0.25, -0.15), (0.25, 0.25, 0.35))
        geoms.append({"kind": kind, "pos": position, "quat": quaternion, "size": size})
    return geoms


def geom_poses(datas):
    xpos = np.array([data.geom_xpos for data in datas])
    return xpos, np.array([data.geom_xmat for data in datas])


def render_float(models, camera, threads=1):
    """One environment per model, as MuJoCo poses it."""
    renderer = BatchRenderer(models, np.arange(len(models)), camera, threads)
    depth, seen = renderer.render_float(*geom_poses([make_data(model) for model in models]))
    renderer.close()
    return depth, seen


def ray_cast(model, camera):
    """Depth and geom of every pixel by MuJoCo's rays: [H, W] m (0 = none) and [H, W]."""
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3)
    rays = pixels @ np.linalg.inv(camera.intrinsics).T @ camera.rotation_ros.T
    lengths = np.linalg.norm(rays, axis=1)
    distance, seen = np.zeros(len(rays)), np.zeros(len(rays), dtype=np.int32)
    mujoco.mj_multiRay(
        model,
        make_data(model),
        camera.position,
        (rays / lengths[:, None]).ravel(),
        VISIBLE_GROUPS,
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


def assert_matches_rays(models, camera):
    depth, seen = render_float(models, camera)
    rays = [ray_cast(model, camera) for model in models]
    ray_depth, ray_seen = np.array([ray[0] for ray in rays]), np.array([ray[1] for ray in rays])
    assert (seen == ray_seen).mean() >= 0.998
    assert np.quantile(np.abs(depth - ray_depth), 0.999) < 1e-5
    return ray_depth, ray_seen


@pytest.mark.parametrize("kind", KINDS)
def test_matches_rays(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    models = [make_model(*random_geoms(rng, [kind] * 4)) for _ in range(8)]
    ray_depth, ray_seen = assert_matches_rays(models, CAMERA)
    assert (ray_seen > 0).mean() > 0.02  # the objects, not only the floor, were compared
    millimetres = np.zeros(ray_depth.shape, dtype=np.int16)
    poses = geom_poses([make_data(model) for model in models])
    BatchRenderer(models, np.arange(8), CAMERA).depth(*poses, millimetres)
    in_range = (ray_depth > CAMERA.near_m + 1e-3) & (ray_depth < CAMERA.far_m - 1e-3)
    error = np.abs(millimetres - 1000 * ray_depth)[in_range]
    assert np.quantile(error, 0.999) < 1.0


def test_matches_rays_from_close_by():
    # boxes and triangles cross the plane through the camera, where nothing can be projected
    camera = CameraConfig(
        width=96, height=72, fovy_deg=100.0, position_m=(0.0, 0.0, 0.2), look_at_m=(1.0, 0.3, 0.0)
    )
    spec = mujoco.MjSpec()
    add_mesh(spec, np.random.default_rng(2), scale=1.0)
    mesh = {"type": mujoco.mjtGeom.mjGEOM_MESH, "meshname": "mesh", "pos": [0.3, 0.0, -1.1]}
    spec.worldbody.add_geom(name="geom0", **mesh)
    models = [
        spec.compile(),
        make_model({"kind": "box", "size": (2.0, 2.0, 0.1)}),
        make_model({"kind": "cylinder", "size": (2.0, 0.1, 0.0)}),
        make_model({"kind": "ellipsoid", "size": (2.0, 1.0, 0.1)}),
        make_model({"kind": "capsule", "size": (0.1, 2.0, 0.0), "quat": (1.0, 0.0, 1.0, 0.0)}),
    ]
    _, ray_seen = assert_matches_rays(models, camera)
    assert ((ray_seen == 0).mean(axis=(1, 2)) > 0.05).all()


def test_geoms_behind_the_camera_are_not_seen():
    behind = CAMERA.position + CAMERA.rotation @ [0.0, 0.0, 0.3]
    models = [make_model({"kind": kind, "pos": behind}) for kind in KINDS if kind != "plane"]
    _, seen = render_float(models, CAMERA)
    assert (seen == -1).all()


@pytest.mark.parametrize(
    ("kind", "expected_m"),
    [
        ("plane", 1.0),
        ("sphere", 1.0 - 0.08),
        ("capsule", 1.0 - 0.05 - 0.09),
        ("ellipsoid", 1.0 - 0.11),
        ("cylinder", 1.0 - 0.05),
        ("box", 1.0 - 0.11),
    ],
)
def test_depth_at_the_centre_by_hand(kind, expected_m):
    depth, seen = render_float([make_model({"kind": kind})], DOWN)
    assert depth[0, 15, 20] == pytest.approx(expected_m, abs=1e-6)
    assert seen[0, 15, 20] == 0
    assert depth[0, 0, 0] == 0.0  # past the object there is nothing
    assert seen[0, 0, 0] == -1


def test_depth_is_along_the_viewing_axis():
    depth, _ = render_float([make_model({"kind": "plane", "size": (0.0, 0.0, 0.1)})], DOWN)
    np.testing.assert_allclose(depth, 1.0, atol=1e-6)


def test_image_directions_by_hand():
    # x of the base frame to the right, y to the top
    right = {"kind": "sphere", "pos": [0.2, 0.0, 0.0]}
    top = {"kind": "box", "pos": [0.0, 0.2, 0.0]}
    _, seen = render_float([make_model(right, top)], DOWN)
    rows, columns = np.nonzero(seen[0] == 0)
    assert rows.mean() == pytest.approx(15.0)
    assert columns.min() > 22
    rows, columns = np.nonzero(seen[0] == 1)
    assert columns.mean() == pytest.approx(20.0)
    assert rows.max() < 13


def test_out_of_range_is_zero_millimetres():
    heights = (0.9, 0.85, 0.5, -1.9, -2.5)  # near_m is 0.2 and far_m 3.0
    models = [make_model({"kind": "plane", "pos": [0.0, 0.0, z]}) for z in heights]
    out = np.full((5, 31, 41), -7, dtype=np.int16)
    segmentation = np.full_like(out, -7)
    poses = geom_poses([make_data(model) for model in models])
    BatchRenderer(models, np.arange(5), DOWN).depth(*poses, out, segmentation=segmentation)
    assert out[:, 15, 20].tolist() == [0, 0, 500, 2900, 0]
    assert segmentation[:, 15, 20].tolist() == [0] * 5
    assert out[2, 0, 0] == 0
    assert segmentation[2, 15, 20] == 0


def test_what_is_too_near_still_hides_what_is_behind():
    near = {"kind": "sphere", "pos": [0.0, 0.0, 0.9], "size": (0.05, 0.0, 0.0)}
    model = make_model({"kind": "plane"}, near)
    out = np.zeros((1, 31, 41), dtype=np.int16)
    BatchRenderer([model], [0], DOWN).depth(*geom_poses([make_data(model)]), out)
    assert out[0, 15, 20] == 0


def mixed_batch(num_envs, seed=3):
    """Models whose geom 1 differs in type and size, and random poses of N environments."""
    rng = np.random.default_rng(seed)
    models = [make_model(*random_geoms(rng, [kind, "box"])) for kind in KINDS]
    model_of_env = np.arange(num_envs) % len(models)
    datas = [make_data(models[index]) for index in model_of_env]
    return models, model_of_env, geom_poses(datas)


def test_different_objects_in_one_batch():
    models, model_of_env, (xpos, xmat) = mixed_batch(14)
    depth, seen = BatchRenderer(models, model_of_env, CAMERA).render_float(xpos, xmat)
    for env, index in enumerate(model_of_env):
        alone = BatchRenderer([models[index]], [0], CAMERA)
        own_depth, own_seen = alone.render_float(xpos[env, None], xmat[env, None])
        assert np.array_equal(depth[env], own_depth[0])
        assert np.array_equal(seen[env], own_seen[0])


@pytest.mark.parametrize("threads", [2, 3, 50])
def test_threads_change_no_bit(threads):
    models, model_of_env, poses = mixed_batch(45)
    images = []
    for count in (1, threads):
        renderer = BatchRenderer(models, model_of_env, CAMERA, count)
        depth = np.zeros((45, 72, 96), dtype=np.int16)
        color = np.zeros((45, 3, 72, 96), dtype=np.uint8)
        renderer.depth(*poses, depth)
        renderer.rgb(*poses, color)
        renderer.close()
        renderer.close()
        images.append((depth, color))
    assert np.array_equal(images[0][0], images[1][0])
    assert np.array_equal(images[0][1], images[1][1])


def test_same_scene_gives_every_environment_the_same_image():
    model = make_model(*random_geoms(np.random.default_rng(1), KINDS))
    xpos, xmat = geom_poses([make_data(model)] * 35)
    renderer = BatchRenderer([model], np.zeros(35, dtype=int), CAMERA, 2)
    depth, seen = renderer.render_float(xpos, xmat)
    color = np.zeros((35, 3, 72, 96), dtype=np.uint8)
    renderer.rgb(xpos, xmat, color)
    renderer.close()
    for images in (depth, seen, color):
        assert (images == images[:1]).all()


def test_batch_views_shared_memory_and_strided_outputs():
    model = make_model(*random_geoms(np.random.default_rng(1), KINDS))
    batch = Batch(model, nsim=3, nthread=1)
    batch.forward()
    xpos, xmat = batch.bind("geom_xpos"), batch.bind("geom_xmat")
    stereo = torch.zeros(4, 3, 2, 3, 72, 96, dtype=torch.uint8).share_memory_()
    renderer = BatchRenderer([model], [0, 0, 0], CAMERA)
    renderer.rgb(xpos, xmat, stereo[2].numpy()[:, 1])
    expected = np.zeros((3, 3, 72, 96), dtype=np.uint8)
    renderer.rgb(xpos.astype(np.float32), xmat.reshape(3, -1, 3, 3), expected)
    assert expected.any()
    written = stereo[2, :, 1].numpy()
    assert np.abs(written.astype(int) - expected).mean() < 0.1  # float32 poses moved edges
    stereo[2, :, 1] = 0
    assert not stereo.any()  # nothing else was written
    depths = [np.zeros((3, 72, 96), dtype=np.int16) for _ in range(2)]
    read_only = xpos.copy()
    read_only.flags.writeable = False
    renderer.depth(read_only, xmat, depths[0])
    renderer.depth(xpos, xmat, depths[1])
    assert np.array_equal(depths[0], depths[1])


@settings(max_examples=25)
@given(
    st.tuples(*[st.floats(-1.0, 1.0)] * 4),
    st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    st.integers(0, 20),
)
def test_moving_scene_and_camera_together_changes_nothing(quaternion, shift, seed):
    if np.linalg.norm(quaternion) < 0.1:
        quaternion = (1.0, 0.0, 0.0, 0.0)
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.array(quaternion) / np.linalg.norm(quaternion))
    rotation = rotation.reshape(3, 3)
    model = make_model(*random_geoms(np.random.default_rng(seed), KINDS))
    xpos, xmat = geom_poses([make_data(model)])
    renderer = BatchRenderer([model], [0], CAMERA)
    depth, seen = renderer.render_float(xpos, xmat)
    moved_depth, moved_seen = renderer.render_float(
        xpos @ rotation.T + shift,
        rotation @ xmat.reshape(1, -1, 3, 3),
        rotation @ CAMERA.position + shift,
        rotation @ CAMERA.rotation,
    )
    assert (moved_seen == seen).mean() > 0.999
    same = moved_seen == seen
    np.testing.assert_allclose(moved_depth[same], depth[same], atol=1e-5, rtol=1e-5)


def test_a_camera_for_each_environment():
    model = make_model(*random_geoms(np.random.default_rng(4), KINDS))
    xpos, xmat = geom_poses([make_data(model)] * 2)
    pair = CAMERA.stereo_pair(0.1)
    together, _ = BatchRenderer([model], [0, 0], CAMERA).render_float(
        xpos,
        xmat,
        np.array([camera.position for camera in pair]),
        np.array([camera.rotation for camera in pair]),
    )
    for env, camera in enumerate(pair):
        alone, _ = BatchRenderer([model], [0], camera).render_float(xpos[:1], xmat[:1])
        np.testing.assert_allclose(together[env], alone[0], atol=1e-6)
    assert not np.array_equal(together[0], together[1])


def test_float_depth_and_millimetres_agree_with_the_preprocessing_of_the_robot():
    models, model_of_env, poses = mixed_batch(7)
    renderer = BatchRenderer(models, model_of_env, CAMERA)
    depth, _ = renderer.render_float(*poses)
    out = np.zeros(depth.shape, dtype=np.int16)
    renderer.depth(*poses, out)
    in_range = (depth >= CAMERA.near_m) & (depth <= CAMERA.far_m)
    expected = metres_to_millimetres(torch.from_numpy(np.where(in_range, depth, 0.0)))
    assert np.array_equal(out, expected.numpy())


def test_hidden_geoms_are_not_seen():
    hidden_group = {"kind": "box", "group": 3}
    transparent = {"kind": "sphere", "rgba": (1.0, 0.0, 0.0, 0.0), "size": (0.2, 0.0, 0.0)}
    model = make_model({"kind": "plane", "group": 2}, hidden_group, transparent)
    depth, seen = render_float([model], DOWN)
    assert depth[0, 15, 20] == pytest.approx(1.0)
    assert set(np.unique(seen)) == {-1, 0}


def test_a_pose_that_is_not_finite_is_left_out():
    model = make_model({"kind": "plane"}, *[{"kind": kind} for kind in KINDS[1:]])
    xpos, xmat = geom_poses([make_data(model)] * 2)
    xpos[0, 1:], xmat[0, 3:] = np.nan, np.inf
    renderer = BatchRenderer([model], [0, 0], DOWN)
    depth, seen = renderer.render_float(xpos, xmat)
    assert set(np.unique(seen[0])) == {-1, 0}
    np.testing.assert_allclose(depth[0][seen[0] == 0], 1.0, atol=1e-6)
    assert set(np.unique(seen[1])) > {-1, 0}
    renderer.rgb(xpos, xmat, np.zeros((2, 3, 31, 41), dtype=np.uint8))


def test_machine_code_belongs_to_its_sources(tmp_path):
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for file in files:
        file.write_text("x = 1\n")
    before = source_hash(files)
    assert source_hash(files) == before
    files[1].write_text("x = 2\n")
    assert source_hash(files) != before
    render_float([make_model({"kind": "box"})], DOWN)
    assert all(str(SOURCES) in str(signature) for signature in draw.signatures)
    assert len(draw.signatures) == 1  # all calls above share one compiled kernel
