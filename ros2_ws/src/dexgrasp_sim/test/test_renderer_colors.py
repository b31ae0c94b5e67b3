import mujoco
import numpy as np
import pytest

from dexgrasp_sim.physics.cpu_render.arrays import CHECKER, NOISE, PLAIN
from dexgrasp_sim.physics.cpu_render.renderer import BatchRenderer
from dexgrasp_sim.vision.camera import CameraConfig

SIZES = {
    "plane": (0.2, 0.1, 0.1),
    "sphere": (0.08, 0.0, 0.0),
    "capsule": (0.05, 0.09, 0.0),
    "ellipsoid": (0.05, 0.08, 0.11),
    "cylinder": (0.07, 0.05, 0.0),
    "box": (0.05, 0.08, 0.11),
    "mesh": (0.0, 0.0, 0.0),
}
# looks straight down from 1 m, x of the base frame to the right
DOWN = CameraConfig(
    width=41,
    height=31,
    fovy_deg=45.0,
    position_m=(0.0, 0.0, 1.0),
    look_at_m=(0.0, 0.0, 0.0),
    up=(0.0, 1.0, 0.0),
)


def make_model(kind, **fields):
    """A model of one static geom."""
    spec = mujoco.MjSpec()
    if kind == "mesh":
        points = np.random.default_rng(5).normal(size=(30, 3))
        points *= 0.1 / np.linalg.norm(points, axis=1, keepdims=True)
        spec.add_mesh(name="mesh", uservert=points.ravel())
        fields["meshname"] = "mesh"
    fields.setdefault("size", SIZES[kind])
    spec.worldbody.add_geom(type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"), **fields)
    return spec.compile()


def geom_poses(model):
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data.geom_xpos[None], data.geom_xmat[None]


def render_rgb(renderer, model, camera=DOWN):
    out = np.zeros((1, 3, camera.height, camera.width), dtype=np.uint8)
    renderer.rgb(*geom_poses(model), out)
    return out[0]


def test_colour_by_hand():
    model = make_model("plane", rgba=(0.5, 0.25, 1.0, 1.0))
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


def normals_from_depth(depth, camera):
    """Normals and directions to the camera of all inner pixels, each [H-2, W-2, 3]."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(camera.intrinsics).T
    rays = rays @ camera.rotation_ros.T
    points = depth[..., None] * rays
    down, right = points[2:, 1:-1] - points[:-2, 1:-1], points[1:-1, 2:] - points[1:-1, :-2]
    normals = np.cross(down, right)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    to_camera = -rays[1:-1, 1:-1] / np.linalg.norm(rays[1:-1, 1:-1], axis=-1, keepdims=True)
    return normals, to_camera


@pytest.mark.parametrize("kind", SIZES)
def test_shading_follows_the_surface_in_the_depth_image(kind):
    camera = CameraConfig(
        width=96,
        height=72,
        fovy_deg=40.0,
        position_m=(0.45, -0.15, 0.35),
        look_at_m=(0.0, 0.0, 0.0),
    )
    model = make_model(kind, quat=(0.9, 0.2, -0.3, 0.1))
    renderer = BatchRenderer([model], [0], camera)
    look = renderer.look
    look.pattern[:], look.color[:], look.ambient[:] = PLAIN, 0.8, 0.4
    depth, seen = renderer.render_float(*geom_poses(model))
    image = render_rgb(renderer, model, camera)[0, 1:-1, 1:-1].astype(float)

    normals, to_camera = normals_from_depth(depth[0], camera)
    lit = np.maximum(0.0, normals @ -look.light_direction[0])
    brightness = 0.4 * (0.75 + 0.25 * normals[..., 2]) + 0.6 * 0.75 * lit
    brightness += 0.25 * (normals * to_camera).sum(-1)
    error = np.abs(image - np.minimum(255.0, 255 * 0.8 * brightness))

    hit = seen[0] == 0
    inner = hit[1:-1, 2:] & hit[1:-1, :-2] & hit[2:, 1:-1] & hit[:-2, 1:-1]
    assert inner.sum() > 200
    # pixels on edges between faces have no one normal, and a mesh has many edges
    assert np.mean(error[inner] < 4.0) > (0.5 if kind == "mesh" else 0.85)
    assert np.median(error[inner]) < 3.0


def test_checker_by_hand():
    model = make_model("plane")
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
    model = make_model("plane", size=(0.0, 0.0, 0.1))
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
    model = make_model("plane", size=(0.0, 0.0, 0.1))
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
    model = make_model("plane", size=(0.0, 0.0, 0.1))
    renderer = BatchRenderer([model], [0] * 40, DOWN)
    renderer.look.pattern[:] = PLAIN
    levels = np.linspace(0.05, 0.7, 40, dtype=np.float32)
    renderer.look.color[:] = levels[:, None, None]
    out = np.zeros((40, 3, 31, 41), dtype=np.uint8)
    xpos, xmat = geom_poses(model)
    renderer.rgb(np.repeat(xpos, 40, axis=0), np.repeat(xmat, 40, axis=0), out)
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
