import mujoco
import numpy as np
import pytest

from dexgrasp_sim.physics.cpu_render.renderer import BatchRenderer
from dexgrasp_sim.vision.camera import CameraConfig

CAMERA = CameraConfig(
    width=41, height=31, fovy_deg=45.0, position_m=(1.0, 0.0, 1.0), look_at_m=(0.0, 0.0, 0.0)
)


def make_model(*names):
    """A model of unit spheres."""
    spec = mujoco.MjSpec()
    for name in names:
        spec.worldbody.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(1.0, 0.0, 0.0))
    return spec.compile()


def test_a_type_that_cannot_be_drawn_is_refused():
    spec = mujoco.MjSpec()
    spec.add_hfield(name="hills", nrow=2, ncol=2, size=(1.0, 1.0, 0.1, 0.1), userdata=[0.0] * 4)
    hills = {"type": mujoco.mjtGeom.mjGEOM_HFIELD, "hfieldname": "hills"}
    geom = spec.worldbody.add_geom(name="ground", **hills)
    with pytest.raises(ValueError, match=r"'ground' is of type mjGEOM_HFIELD.*hide it in group 3"):
        BatchRenderer([spec.compile()], [0], CAMERA)
    geom.group = 3
    BatchRenderer([spec.compile()], [0], CAMERA)


def test_models_with_other_geoms_are_refused():
    models = [make_model("a"), make_model("a", "b")]
    with pytest.raises(ValueError, match=r"model 1 has geoms .* give all models the same geoms"):
        BatchRenderer(models, [0, 1], CAMERA)


@pytest.mark.parametrize(("model_of_env", "threads"), [([0, 1], 1), ([-1], 1), ([], 1), ([0], 0)])
def test_wrong_numbers_are_refused(model_of_env, threads):
    with pytest.raises(ValueError, match=f"threads {threads} must be at least 1"):
        BatchRenderer([make_model("box")], model_of_env, CAMERA, threads)


def test_wrong_arrays_are_refused():
    model = make_model("box")
    xpos, xmat = np.zeros((1, 1, 3)), np.zeros((1, 1, 9))
    renderer = BatchRenderer([model], [0], CAMERA)
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
