import mujoco
import numpy as np
import pytest
import torch
from dexgrasp_sim.physics.render_arrays import CHECKER, NOISE, PLAIN
from dexgrasp_sim.physics.render_kernels import draw
from dexgrasp_sim.physics.renderer import BatchRenderer
from dexgrasp_sim.physics.vector_kernels import SOURCES, source_hash
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.preprocess import metres_to_millimetres
from hypothesis import given, settings
from hypothesis import strategies as st
from mujoco.batch import Batch

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
        position = rng.uniform(-0.25, 0.25, size=3) + [0.0, 0.0, 0.1]
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
    assert np.array_equal(*depths)


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


def test_a_type_that_cannot_be_drawn_is_refused():
    spec = mujoco.MjSpec()
    spec.add_hfield(name="hills", nrow=2, ncol=2, size=(1.0, 1.0, 0.1, 0.1), userdata=[0.0] * 4)
    hills = {"type": mujoco.mjtGeom.mjGEOM_HFIELD, "hfieldname": "hills"}
    geom = spec.worldbody.add_geom(name="ground", **hills)
    with pytest.raises(ValueError, match="'ground' is of type mjGEOM_HFIELD.*hide it in group 3"):
        BatchRenderer([spec.compile()], [0], DOWN)
    geom.group = 3
    BatchRenderer([spec.compile()], [0], DOWN)


def test_models_with_other_geoms_are_refused():
    models = [make_model({"kind": "box"}), make_model({"kind": "box"}, {"kind": "box"})]
    with pytest.raises(ValueError, match="model 1 has geoms .* give all models the same geoms"):
        BatchRenderer(models, [0, 1], DOWN)


@pytest.mark.parametrize(("model_of_env", "threads"), [([0, 1], 1), ([-1], 1), ([], 1), ([0], 0)])
def test_wrong_numbers_are_refused(model_of_env, threads):
    with pytest.raises(ValueError, match=f"threads {threads} must be at least 1"):
        BatchRenderer([make_model({"kind": "box"})], model_of_env, DOWN, threads)


def test_wrong_arrays_are_refused():
    model = make_model({"kind": "box"})
    xpos, xmat = geom_poses([make_data(model)])
    renderer = BatchRenderer([model], [0], DOWN)
    with pytest.raises(ValueError, match=r"out is float32 \(1, 31, 41\); it must be int16"):
        renderer.depth(xpos, xmat, np.zeros((1, 31, 41), dtype=np.float32))
    with pytest.raises(ValueError, match=r"segmentation is int16 \(1, 31, 40\)"):
        image = np.zeros((1, 31, 41), dtype=np.int16)
        renderer.depth(xpos, xmat, image, segmentation=image[..., 1:])
    with pytest.raises(ValueError, match=r"it must be uint8 \(1, 3, 31, 41\)"):
        renderer.rgb(xpos, xmat, np.zeros((1, 31, 41, 3), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"geom_xpos \(2, 1, 3\) and geom_xmat \(1, 1, 9\) must be"
    ):
        renderer.render_float(np.tile(xpos, (2, 1, 1)), xmat)


def render_rgb(renderer, model):
    out = np.zeros((1, 3, CAMERA.height, CAMERA.width), dtype=np.uint8)
    out = out if renderer._camera is CAMERA else np.zeros((1, 3, 31, 41), dtype=np.uint8)
    renderer.rgb(*geom_poses([make_data(model)]), out)
    return out[0]


def test_colour_by_hand():
    model = make_model({"kind": "plane", "rgba": (0.5, 0.25, 1.0, 1.0), "size": (0.1, 0.1, 0.1)})
    renderer = BatchRenderer([model], [0], DOWN)
    look = renderer.look
    look.pattern[:], look.ambient[:], look.background[:] = PLAIN, 0.4, (0.2, 0.0, 1.0)
    # lamp at 60 degrees from the vertical: 0.4 ambient + 0.6 * 0.75 * 0.5 lamp + 0.25 headlight
    look.light_direction[:] = (np.sqrt(0.75), 0.0, -0.5)
    image = render_rgb(renderer, model)
    brightness = 0.4 + 0.6 * 0.75 * 0.5 + 0.25
    assert image[:, 15, 20].tolist() == [round(255 * brightness * c) for c in (0.5, 0.25, 1.0)]
    assert image[:, 0, 0].tolist() == [51, 0, 255]
    look.light_direction[:] = (0.0, 0.0, 1.0)  # from below: only ambient and headlight are left
    darker = render_rgb(renderer, model)
    assert darker[:, 15, 20].tolist() == [round(255 * 0.65 * c) for c in (0.5, 0.25, 1.0)]
    look.color[:], look.ambient[:] = 1.0, 1.0  # brighter than white is white
    assert render_rgb(renderer, model)[:, 15, 20].tolist() == [255] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_shading_follows_the_surface_in_the_depth_image(kind):
    geom = {"kind": kind, "quat": (0.9, 0.2, -0.3, 0.1), "size": 1.5 * np.array(SIZES[kind])}
    model = make_model(geom)
    renderer = BatchRenderer([model], [0], CAMERA)
    renderer.look.pattern[:] = PLAIN
    renderer.look.color[:] = 0.8
    depth, seen = renderer.render_float(*geom_poses([make_data(model)]))
    image = render_rgb(renderer, model)[0].astype(float)
    assert (seen == 0).sum() > 200

    # normals from neighbouring points of the depth image
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(CAMERA.intrinsics).T
    points = depth[0, ..., None] * rays @ CAMERA.rotation_ros.T
    across, along = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(along, across)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    to_camera = -(rays @ CAMERA.rotation_ros.T)[1:-1, 1:-1]
    facing = (normal * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=-1)
    lit = np.maximum(0.0, normal @ -renderer.look.light_direction[0])
    ambient = renderer.look.ambient[0]
    brightness = ambient * (0.75 + 0.25 * normal[..., 2]) + (1 - ambient) * 0.75 * lit
    expected = np.minimum(255.0, 255 * 0.8 * (brightness + 0.25 * facing))

    hit = seen[0] == 0
    inner = hit[1:-1, 2:] & hit[1:-1, :-2] & hit[2:, 1:-1] & hit[:-2, 1:-1]
    error = np.abs(image[1:-1, 1:-1] - expected)[inner]
    # pixels on edges between faces have no one normal; a mesh has many edges
    assert np.mean(error < 4.0) > (0.6 if kind == "mesh" else 0.85)
    assert np.median(error) < 2.0


def test_checker_by_hand():
    model = make_model({"kind": "plane"})
    renderer = BatchRenderer([model], [0], DOWN)
    look = renderer.look
    assert look.pattern[0, 0] == CHECKER
    look.cell_m[:], look.color[:], look.accent[:] = 0.1, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    image = render_rgb(renderer, model)
    # focal length 37.4 px at 1 m: a cell of 0.1 m has 3.7 px; the z cell below the surface is -1
    for column, row, is_color in [
        (22, 13, False),
        (18, 13, True),
        (22, 17, True),
        (18, 17, False),
    ]:
        assert (image[0, row, column] > 0) == is_color
        assert (image[2, row, column] > 0) != is_color


def test_a_pattern_too_fine_for_the_pixels_fades():
    model = make_model({"kind": "plane", "size": (0.0, 0.0, 0.1)})
    renderer = BatchRenderer([model], [0], DOWN)
    renderer.look.color[:], renderer.look.accent[:] = 0.8, 0.2
    contrasts = []
    for cell_m in (0.1, 0.01, 1e-4):
        renderer.look.cell_m[:] = cell_m
        contrasts.append(np.ptp(render_rgb(renderer, model)[0, 13:18, 18:23].astype(int)))
    assert contrasts[0] > 100
    assert contrasts[0] > contrasts[1] > contrasts[2]
    assert contrasts[2] <= 1


def test_noise_mixes_both_colours_smoothly():
    model = make_model({"kind": "plane", "size": (0.0, 0.0, 0.1)})
    renderer = BatchRenderer([model], [0], DOWN)
    look = renderer.look
    look.pattern[:], look.cell_m[:], look.ambient[:] = NOISE, 0.2, 1.0
    look.color[:], look.accent[:] = (0.6, 0.0, 0.0), (0.0, 0.6, 0.0)
    red, green, blue = render_rgb(renderer, model).astype(int)
    assert blue.max() == 0
    assert np.ptp(red) > 60
    assert np.ptp(green) > 60
    assert np.abs(np.diff(red, axis=0)).max() < 60
    np.testing.assert_array_equal(red, render_rgb(renderer, model)[0])


def test_environments_look_as_their_arrays_say():
    model = make_model({"kind": "plane", "size": (0.0, 0.0, 0.1)})
    renderer = BatchRenderer([model], [0] * 40, DOWN)
    renderer.look.pattern[:] = PLAIN
    levels = np.linspace(0.05, 0.7, 40, dtype=np.float32)
    renderer.look.color[:] = levels[:, None, None]
    out = np.zeros((40, 3, 31, 41), dtype=np.uint8)
    renderer.rgb(*geom_poses([make_data(model)] * 40), out)
    np.testing.assert_allclose(out[:, 0, 15, 20] / out[-1, 0, 15, 20], levels / 0.7, atol=0.01)


def test_colours_and_patterns_of_the_model():
    spec = mujoco.MjSpec()
    spec.add_material(name="blue", rgba=(0.0, 0.0, 1.0, 1.0))
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.0, 1.0, 0.1))
    sphere = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": (0.1, 0.0, 0.0)}
    spec.worldbody.add_geom(name="table", material="blue", **sphere)
    thing = spec.worldbody.add_body(pos=(0.0, 0.0, 1.0))
    thing.add_freejoint()
    thing.add_geom(name="thing", material="blue", rgba=(1.0, 0.0, 0.0, 1.0), **sphere)
    arm = spec.worldbody.add_body()
    arm.add_joint()
    arm.add_geom(name="arm", **sphere)
    look = BatchRenderer([spec.compile()], [0], DOWN).look
    np.testing.assert_array_equal(look.color[0], [[0.5] * 3, [0, 0, 1], [1, 0, 0], [0.5] * 3])
    assert look.pattern[0].tolist() == [CHECKER, NOISE, CHECKER, PLAIN]


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
