"""Our renderer against MuJoCo's own OpenGL renderer: who covers which pixel, in which colour."""

from contextlib import contextmanager

import mujoco
import numpy as np
import pytest
import trimesh

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.objects.sets import held_out_objects, object_set, train_objects
from dexgrasp_sim.physics.cpu_render.arrays import PLAIN
from dexgrasp_sim.physics.cpu_render.renderer import BatchRenderer
from dexgrasp_sim.physics.mujoco.models import OBJECT, build_models
from dexgrasp_sim.physics.mujoco.object_geoms import add_object, common_layout
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
JOINT_NAMES = ROBOT.joint_names

CONFIG = GraspConfig()
PLACE_M = np.array([-0.55, 0.10, CONFIG.table.top_m + 0.08])
TURNED = np.array([0.9, 0.2, -0.3, 0.25]) / np.linalg.norm([0.9, 0.2, -0.3, 0.25])
CLOSE = CameraConfig(
    width=320,
    height=240,
    fovy_deg=30.0,
    position_m=(-0.75, 0.35, 0.52),
    look_at_m=tuple(PLACE_M.tolist()),
)
WIDE = CameraConfig(
    width=320, height=240, fovy_deg=50.0, position_m=(-1.5, 1.1, 1.2), look_at_m=(-0.35, 0.05, 0.4)
)
# rays nearly parallel, as MuJoCo's lamp at the camera has them
NARROW = CameraConfig(
    width=320,
    height=240,
    fovy_deg=3.0,
    position_m=(-2.3, 1.9, 1.9),
    look_at_m=tuple(PLACE_M.tolist()),
)
SMOOTH = 100
"""OpenGL draws round shapes as polygons with so many corners."""


def generated_objects():
    """One of each kind of the generated objects."""
    kinds = {}
    for item in (*train_objects(), *held_out_objects()):
        kind = item.name.removeprefix("held_out_").rstrip("0123456789")
        kinds.setdefault(kind, item)
    return list(kinds.values())


def object_configs(folder):
    known = [*object_set("primitives"), *object_set("laptop"), *generated_objects()]
    path = folder / "thing.obj"
    trimesh.creation.icosphere(subdivisions=2, radius=0.05).export(path)
    named = {item.name: item for item in known}
    assert {item.shape for item in named.values()} >= {"box", "cylinder", "sphere", "compound"}
    return [*named.values(), ObjectConfig("user_mesh", "mesh", path=path)]


def pose(model):
    """The robot over the object, which hangs above the table, askew."""
    data = mujoco.MjData(model)
    for name, angle in zip(JOINT_NAMES, ARM_PREGRASP + HAND_REST):
        data.joint(name).qpos = angle
    data.joint(OBJECT).qpos = [*PLACE_M, *TURNED]
    mujoco.mj_forward(model, data)
    return data


@contextmanager
def opengl(egl, model, camera):
    """A function of MjData and flags of the scene that draws [H, W, 3] uint8 by OpenGL."""
    model.vis.quality.numslices = model.vis.quality.numstacks = SMOOTH
    model.vis.quality.offsamples = 0
    model.vis.global_.fovy = camera.fovy_deg
    view = mujoco.MjvCamera()
    view.lookat = camera.look_at_m
    offset = np.subtract(camera.position_m, camera.look_at_m)
    view.distance = np.linalg.norm(offset)
    view.azimuth = np.degrees(np.arctan2(-offset[1], -offset[0]))
    view.elevation = -np.degrees(np.arcsin(offset[2] / view.distance))
    window = mujoco.MjrRect(0, 0, camera.width, camera.height)
    context = egl.GLContext(camera.width, camera.height)
    context.make_current()
    drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, drawing)
    scene = mujoco.MjvScene(model, maxgeom=200)

    def draw(data, *flags):
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            scene.flags[flag] = False
        for flag in flags:
            scene.flags[flag] = True
        options = mujoco.MjvOption()
        options.sitegroup[:] = 0
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, options, None, view, everything, scene)
        mujoco.mjr_render(window, scene, drawing)
        image = np.empty((camera.height, camera.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, window, drawing)
        return image[::-1], scene

    yield draw
    drawing.free()
    context.free()


def opengl_geoms(draw, data):
    """[H, W]: id of the geom that OpenGL shows in each pixel, -1 for none."""
    flags = (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR)
    image, scene = draw(data, *flags)
    ids = image.astype(np.int32) @ [1, 1 << 8, 1 << 16] - 1
    geom_of = np.full(scene.ngeom + 1, -1)  # the last one, -1, is the background's
    for geom in scene.geoms[: scene.ngeom]:
        assert geom.objtype == mujoco.mjtObj.mjOBJ_GEOM
        geom_of[geom.segid] = geom.objid
    return geom_of[ids]


def our_geoms(model, data, camera):
    renderer = BatchRenderer([model], [0], camera)
    return renderer.render_float(data.geom_xpos[None], data.geom_xmat[None])[1][0]


def overlap(one, other):
    """Intersection over union of two masks."""
    return (one & other).sum() / (one | other).sum()


def parts(model, geoms):
    """The pixels of object, robot, table and ground in an image of geom ids."""
    bodies = np.where(geoms < 0, -1, model.geom_bodyid[geoms])
    is_object = bodies == model.body(OBJECT).id
    return {
        "object": is_object,
        "robot": (bodies > 0) & ~is_object,
        "table": geoms == model.geom("table").id,
        "ground": geoms == model.geom("ground").id,
    }


@pytest.mark.slow
def test_silhouettes_of_all_object_types_are_those_of_opengl(egl, tmp_path):
    objects = object_configs(tmp_path)
    assert len(objects) >= 25
    models = build_models(CONFIG.scene(1), objects)
    overlaps = {}
    for item, model in zip(objects, models):
        data = pose(model)
        with opengl(egl, model, CLOSE) as draw:
            theirs = opengl_geoms(draw, data)
        ours = our_geoms(model, data, CLOSE)
        mine, wanted = parts(model, ours)["object"], parts(model, theirs)["object"]
        assert wanted.sum() > 400, f"{item.name} is too small in the image to say anything"
        overlaps[item.name] = overlap(mine, wanted)
    assert min(overlaps.values()) > 0.998, overlaps  # 0.9997 and more where this was written


def test_the_whole_scene_is_that_of_opengl(egl):
    item = object_set("primitives")[0]
    [model] = build_models(CONFIG.scene(1), [item])
    data = pose(model)
    with opengl(egl, model, WIDE) as draw:
        theirs = opengl_geoms(draw, data)
    ours = our_geoms(model, data, WIDE)
    for name, wanted in parts(model, theirs).items():
        assert wanted.sum() > 200, name
        assert overlap(parts(model, ours)[name], wanted) > 0.99, name
    robot = parts(model, theirs)["robot"]
    assert (ours == theirs)[robot].mean() > 0.98  # link by link, not only as a whole


def set_lights(model, renderer, lamp, headlight):
    """The same lights in both renderers: a distant lamp, one at the camera, none besides."""
    look = renderer.look
    look.pattern[:], look.ambient[:] = PLAIN, 0.0
    model.light_dir[0] = look.light_direction[0]
    model.light_diffuse[0] = lamp
    model.vis.headlight.diffuse[:] = headlight
    for colors in (model.light_ambient, model.light_specular):
        colors[:] = 0.0
    for colors in (model.vis.headlight.ambient, model.vis.headlight.specular):
        colors[:] = 0.0


def lit_model(shape, size_m):
    """An object alone in the dark, with one lamp."""
    item = ObjectConfig("thing", shape, size_m, rgb=(0.9, 0.5, 0.2))
    spec = mujoco.MjSpec()
    add_object(spec, item, common_layout([item]), PLACE_M, (1.0, 0.005, 0.0001))
    spec.worldbody.add_light(type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=False)
    return spec.compile()


@pytest.mark.parametrize(
    ("shape", "size_m"),
    [
        ("box", (0.05, 0.08, 0.06)),
        ("cylinder", (0.06, 0.08)),
        ("sphere", (0.08,)),
        ("capsule", (0.05, 0.1)),
        ("ellipsoid", (0.05, 0.09, 0.07)),
    ],
)
def test_plain_surfaces_are_as_bright_as_in_opengl(egl, shape, size_m):
    model = lit_model(shape, size_m)
    renderer = BatchRenderer([model], [0], NARROW)
    set_lights(model, renderer, lamp=0.75, headlight=0.25)  # shares that our lights have
    data = mujoco.MjData(model)
    data.joint(OBJECT).qpos = [*PLACE_M, *TURNED]
    mujoco.mj_forward(model, data)
    poses = (data.geom_xpos[None], data.geom_xmat[None])
    ours = np.zeros((1, 3, NARROW.height, NARROW.width), np.uint8)
    renderer.rgb(*poses, ours)
    with opengl(egl, model, NARROW) as draw:
        theirs = draw(data)[0].astype(int)
        both = (opengl_geoms(draw, data) == 0) & (our_geoms(model, data, NARROW) == 0)
    error = np.abs(theirs - ours[0].transpose(1, 2, 0))[both]
    assert both.sum() > 5000 and theirs[both].max() > 100
    assert np.quantile(error, 0.99) <= 3, "of 255 levels"
