import numpy as np
import pytest
import torch

from dexgrasp_sim.config import ConfigError, parse_config, replace
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import DepthNoiseConfig, ImageConfig
from dexgrasp_sim.vision.image_errors import ImageErrors

# the focal length is exactly half the height: 24 px, 240 px of a sensor with 480 rows
CAMERA = CameraConfig(
    width=64, height=48, fovy_deg=90.0, position_m=(0, 0, 0), look_at_m=(1, 0, 0), far_m=4.0
)
SENSOR = {"sensor_height_px": 480, "baseline_m": 0.05}  # disparity = 12 px m / depth
EVERYTHING = {
    "disparity_step_px": 0.125,
    "disparity_sigma_px": 0.1,
    "disparity_bias_px": 0.2,
    "depth_sigma_per_m": 0.004,
    "shadow_share": 0.9,
    "edge_hole_px": 3.0,
    "dropout_share": 0.01,
    "speckles": 2.0,
    "sticks": 2.0,
}


def scene(count=1, background_mm=800, near_mm=400):
    """A box before a wall; a strip without depth above."""
    images = np.full((count, 48, 64), background_mm, np.int16)
    images[:, 16:40, 24:44] = near_mm
    images[:, :4] = 0
    return images


@pytest.fixture(params=["loops", "tensors"])
def tensors_on_cpu(request):
    """Every guarantee holds for the loops of the CPU and for the tensor code of all devices."""
    return request.param == "tensors"


@pytest.fixture
def noisy(tensors_on_cpu):
    def add_noise(images, config, seed=0, env=None, episode=1, step=0, camera=CAMERA):
        count = len(images)
        env = torch.arange(count) if env is None else torch.as_tensor(env)
        result = torch.from_numpy(images.copy())
        image_config = ImageConfig(depth_noise=DepthNoiseConfig(**{**SENSOR, **config}))
        errors = ImageErrors(image_config, camera, RandomStreams(seed, env), tensors_on_cpu)
        errors.add_to_depth(result, torch.full((count,), episode), torch.full((count,), step))
        return result.numpy()

    return add_noise


def test_off_is_the_default_and_changes_nothing(noisy):
    assert not DepthNoiseConfig().enabled and not GraspConfig().image.depth_noise.enabled
    images = scene(2)
    np.testing.assert_array_equal(noisy(images, {}), images)


@pytest.mark.parametrize("strength", EVERYTHING)
def test_each_strength_alone_switches_the_noise_on(strength, noisy):
    value = EVERYTHING[strength]
    assert DepthNoiseConfig(**{strength: value}).enabled
    images = scene(8, 1613, 413)
    assert (noisy(images, {strength: value}) != images).any()


@pytest.mark.parametrize(
    ("depth_mm", "step_px", "quantised_mm"),
    [
        (600, 1.0, 600),  # 20 px
        (610, 1.0, 600),  # 19.67 px becomes 20
        (620, 1.0, 632),  # 19.35 px becomes 19: 12 / 19 = 0.63158 m
        (620, 0.125, 619),  # 19.3548 px becomes 19.375: 0.61935 m
        (3000, 1.0, 3000),  # 4 px
        (3300, 1.0, 3000),  # 3.64 px
        (3600, 1.0, 4000),  # 3.33 px becomes 3
    ],
)
def test_disparity_is_quantised_as_computed_by_hand(depth_mm, step_px, quantised_mm, noisy):
    images = np.full((1, 48, 64), depth_mm, np.int16)
    assert np.unique(noisy(images, {"disparity_step_px": step_px})).tolist() == [quantised_mm]


def test_the_disparity_is_that_of_the_sensor_not_of_the_decimated_image(noisy):
    """The same noise in pixels of a sensor with twice the rows is half the noise in depth."""
    images = np.full((1, 48, 64), 2000, np.int16)
    spread = [
        noisy(images, {"disparity_sigma_px": 0.2, "sensor_height_px": rows}).std()
        for rows in (480, 960)
    ]
    assert spread[0] / spread[1] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    ("config", "sigma_mm_at_1_m"),
    [({"disparity_sigma_px": 0.1}, 100 / 12), ({"depth_sigma_per_m": 0.005}, 5.0)],
)
def test_the_deviation_grows_with_the_square_of_the_depth(config, sigma_mm_at_1_m, noisy):
    for depth_m in (0.5, 1.0, 2.0):
        images = np.full((4, 48, 64), 1000 * depth_m, np.int16)
        error = noisy(images, config) - images.astype(float)
        assert error.std() == pytest.approx(sigma_mm_at_1_m * depth_m**2, rel=0.05)
        assert abs(error.mean()) < 0.1 * error.std()


def test_the_bias_holds_for_an_episode(noisy):
    images = np.full((40, 48, 64), 1000, np.int16)
    config = {"disparity_bias_px": 0.5}
    first, later, other = (
        noisy(images, config, episode=episode, step=step)
        for episode, step in ((1, 0), (1, 7), (2, 0))
    )
    np.testing.assert_array_equal(first, later)
    assert (first == first[:, :1, :1]).all(), "the same everywhere in an image"
    assert (first[:, 0, 0] != other[:, 0, 0]).sum() > 30
    shift_px = 12.0 / (first[:, 0, 0] / 1000) - 12.0
    assert np.abs(shift_px).max() <= 0.51 and shift_px.min() < -0.3 and shift_px.max() > 0.3


def test_edges_lose_pixels_at_both_sides_of_a_jump_and_nowhere_else(noisy):
    images = scene()
    images[:, 30:] += np.arange(18, dtype=np.int16)[:, None]  # a slope of 1 mm a row is no edge
    holes = noisy(images, {"edge_hole_px": 10.0})[0] == 0
    assert holes[:4].all(), "invalid stays invalid"
    near = np.zeros((48, 64), bool)
    near[15:41, 23:45] = True
    near[17:39, 25:43] = False
    near[[15, 15, 40, 40], [23, 44, 23, 44]] = False  # corners have no neighbour in the box
    near[4] = True  # what is out of range counts as far away
    np.testing.assert_array_equal(holes[4:], near[4:])


def test_slanted_planes_have_no_edges_however_steep(noisy):
    """A table seen at a low angle: inverse depth is linear, up to 0.3 m from row to row."""
    inverse = np.linspace(1 / 3.0, 1 / 0.5, 48)[:, None]
    images = np.tile((1000 / inverse).astype(np.int16), (1, 1, 64))
    assert np.abs(np.diff(images.astype(int), axis=1)).max() > 250
    config = {"edge_hole_px": 10.0}
    for plane in (images, images[:, ::-1].copy(), images[:, :, :48].transpose(0, 2, 1).copy()):
        camera = replace(CAMERA, height=plane.shape[1], width=plane.shape[2])
        np.testing.assert_array_equal(noisy(plane, config, camera=camera), plane)
    images[:, 20:30, 20:30] = 450
    holes = noisy(images, config)[0] == 0
    assert holes[20:30, 19:21].all() and holes[29:31, 20:30].all() and holes.sum() == 76


def test_the_width_of_the_band_of_holes_is_in_pixels_of_the_sensor(noisy):
    lost = [
        (noisy(scene(50), {"edge_hole_px": width})[:, 5:] == 0).mean()
        for width in (2.0, 4.0, 20.0)
    ]
    whole = (noisy(scene(), {"edge_hole_px": 10.0})[:, 5:] == 0).mean()
    # ten pixels of the sensor per pixel of the image
    assert lost == pytest.approx([0.2 * whole, 0.4 * whole, whole], rel=0.05)


def test_a_near_object_casts_a_shadow_to_its_left(noisy):
    """With 24 px and 0.1 m the disparities are 2.4 / 0.3 = 8 and 2.4 / 0.8 = 3 image pixels."""
    images = scene(1, 800, 300)
    config = {"shadow_share": 1.0, "baseline_m": 0.1}
    holes = noisy(images, config)[0] == 0
    wanted = np.zeros((48, 64), bool)
    wanted[:4] = True
    wanted[16:40, 19:24] = True  # five columns
    np.testing.assert_array_equal(holes, wanted)


def test_slanted_surfaces_cast_no_shadow_on_themselves(noisy):
    images = np.tile(np.linspace(400, 1200, 64).astype(np.int16), (1, 48, 1))
    for slanted in (images, images[:, :, ::-1].copy()):
        np.testing.assert_array_equal(noisy(slanted, {"shadow_share": 1.0}), slanted)


@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
def test_dropouts_have_their_share(share, noisy):
    images = np.full((50, 48, 64), 800, np.int16)
    assert (noisy(images, {"dropout_share": share}) == 0).mean() == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize(
    ("config", "largest"),
    [
        ({"speckles": 2.0, "speckle_radius": 0.05}, 25),
        ({"sticks": 2.0, "stick_length": 0.5, "stick_width": 0.02}, 80),
    ],
)
def test_shapes_are_as_many_and_as_large_as_asked_for(config, largest, noisy):
    images = np.full((400, 48, 64), 800, np.int16)
    changed = noisy(images, config) != images
    per_image = changed.reshape(400, -1).sum(axis=1)
    # without a shape with the probability that a Poisson number of mean 2 is 0
    assert (per_image == 0).mean() == pytest.approx(np.exp(-2), abs=0.06)
    assert 2 < per_image[per_image > 0].mean() < 2 * largest
    depths = noisy(images, config)[changed]
    assert depths.min() >= 50 and depths.max() <= 4000 and np.ptp(depths) > 3000
    touched = changed.mean(axis=0)
    assert (touched[[0, -1]].mean() > 0) and (touched[:, [0, -1]].mean() > 0), "borders too"


def test_everything_stays_in_range_or_invalid(noisy):
    camera = CameraConfig(
        width=40,
        height=30,
        fovy_deg=40.0,
        position_m=(0, 0, 0),
        look_at_m=(1, 0, 0),
        near_m=0.4005,
        far_m=0.9,
    )
    images = np.random.default_rng(0).integers(401, 901, (20, 30, 40)).astype(np.int16)
    config = {**EVERYTHING, "disparity_sigma_px": 5.0, "depth_sigma_per_m": 0.1}
    result = noisy(images, config, camera=camera)
    valid = result[result > 0]
    assert valid.min() >= 401 and valid.max() <= 900 and result.min() == 0
    assert (noisy(np.zeros_like(images), {"disparity_sigma_px": 5.0}, camera=camera) == 0).all()


def test_an_image_depends_on_seed_environment_episode_and_step_only(noisy):
    images = scene(4)
    whole = noisy(images, EVERYTHING)
    parts = [noisy(images[:2], EVERYTHING, env=env) for env in ([0, 1], [2, 3])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_array_equal(whole, noisy(images, EVERYTHING))
    others = [
        noisy(images, EVERYTHING, **change)
        for change in ({"seed": 1}, {"env": torch.arange(4) + 4}, {"episode": 2}, {"step": 1})
    ]
    flat = {image.tobytes() for batch in (whole, *others) for image in batch}
    assert len(flat) == 20


def test_views_into_larger_arrays_are_written_in_place(noisy, tensors_on_cpu):
    wide = torch.zeros(2, 48, 128, dtype=torch.int16)
    wide[:, :, :64] = torch.from_numpy(scene(2))
    config = ImageConfig(depth_noise=DepthNoiseConfig(**SENSOR, **EVERYTHING))
    errors = ImageErrors(config, CAMERA, RandomStreams(0, torch.arange(2)), tensors_on_cpu)
    errors.add_to_depth(wide[:, :, :64], torch.ones(2).long(), torch.zeros(2).long())
    np.testing.assert_array_equal(wide[:, :, :64], noisy(scene(2), EVERYTHING))
    assert not wide[:, :, 64:].any()


def test_other_images_are_refused():
    errors = ImageErrors(ImageConfig(), CAMERA, RandomStreams(0, torch.arange(2)))
    for shape, dtype in (((2, 48, 64), torch.int32), ((3, 48, 64), torch.int16)):
        with pytest.raises(ValueError, match=r"must be int16 \(2, 48, 64\)"):
            errors.add_to_depth(
                torch.zeros(shape, dtype=dtype), torch.ones(2).long(), torch.zeros(2).long()
            )


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ({"disparity_sigma_px": -1}, "disparity_sigma_px"),
        ({"dropout_share": 1.5}, "less than or equal to 1"),
        ({"baseline_m": 0}, "greater than 0"),
        ({"sticks": 1000}, "less than or equal to 30"),
        ({"stick": 1}, "unknown key `image.depth_noise.stick`"),
    ],
)
def test_a_wrong_config_is_refused(values, needle):
    with pytest.raises(ConfigError, match=needle):
        parse_config(GraspConfig, {"image": {"depth_noise": values}})
