import colorsys

import numpy as np
import pytest
import torch

from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import ImageConfig, RgbAugmentationConfig
from dexgrasp_sim.vision.image_errors import ImageErrors
from dexgrasp_sim.vision.rgb_changes import RgbAugmentation

CAMERA = CameraConfig(
    width=32, height=24, fovy_deg=40.0, position_m=(0, 0, 0), look_at_m=(1, 0, 0)
)
EVERYTHING = {
    "brightness": 0.1,
    "contrast": 0.2,
    "saturation": 0.3,
    "hue": 0.05,
    "exposure": 0.3,
    "gamma": 0.2,
    "white_balance": 0.1,
    "defocus": 0.05,
    "motion_blur": 0.1,
    "read_noise": 2.0,
    "shot_noise": 4.0,
}
COLOR_DRAWS = (
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "exposure",
    "red",
    "green",
    "blue",
)


def pictures(count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 3, 24, 32), dtype=np.uint8)


@pytest.fixture(params=["loops", "tensors"])
def tensors_on_cpu(request):
    """Every guarantee holds for the loops of the CPU and for the tensor code of all devices."""
    return request.param == "tensors"


@pytest.fixture
def augmented(tensors_on_cpu):
    def augment(images, config, seed=0, env=None, episode=1, step=0):
        count = len(images)
        env = torch.arange(count) if env is None else torch.as_tensor(env)
        result = torch.from_numpy(images.copy())
        image_config = ImageConfig(rgb=RgbAugmentationConfig(**config))
        errors = ImageErrors(image_config, CAMERA, RandomStreams(seed, env), tensors_on_cpu)
        errors.add_to_rgb(result, torch.full((count,), episode), torch.full((count,), step))
        return result.numpy()

    return augment


def augmentation(**strengths):
    streams = RandomStreams(0, torch.arange(1))
    return RgbAugmentation(RgbAugmentationConfig(**strengths), CAMERA.height, streams)


def recolored(color, strengths, **drawn):
    row = torch.tensor([[drawn.get(name, 0.0) for name in COLOR_DRAWS]])
    matrix = augmentation(**strengths).color_matrices(row)[0].numpy()
    return matrix @ np.array([*color, 1.0])


def test_off_is_the_default_and_changes_nothing(augmented):
    assert not RgbAugmentationConfig().enabled and not GraspConfig().image.rgb.enabled
    assert not RgbAugmentationConfig(motion_share=0.5).enabled, "a share of nothing"
    np.testing.assert_array_equal(augmented(pictures(), {}), pictures())


def test_the_pipeline_without_strength_keeps_every_level(augmented):
    """Noise too weak to be seen switches the whole chain on."""
    result = augmented(pictures(), {"read_noise": 1e-6})
    np.testing.assert_array_equal(result, pictures())


@pytest.mark.parametrize("strength", EVERYTHING)
def test_each_strength_alone_changes_images(strength, augmented):
    config = {strength: EVERYTHING[strength], "motion_share": 1.0}
    assert RgbAugmentationConfig(**config).enabled
    changed = (augmented(pictures(12), config) != pictures(12)).any(axis=(1, 2, 3, 4))
    assert changed.sum() > 4, "some are drawn too weak to be seen"


def test_colors_are_those_computed_by_hand():
    color = (0.2, 0.5, 0.6)
    assert recolored(color, {}) == pytest.approx(color, abs=1e-6)
    assert recolored(color, {"brightness": 0.2}, brightness=0.5) == pytest.approx((0.3, 0.6, 0.7))
    assert recolored(color, {"contrast": 0.5}, contrast=1) == pytest.approx((0.05, 0.5, 0.65))
    assert recolored(color, {"exposure": 1}, exposure=-1) == pytest.approx((0.1, 0.25, 0.3))
    balance = recolored(color, {"white_balance": 0.1}, red=1, blue=-1)
    assert balance == pytest.approx((0.22, 0.5, 0.54))
    # brightness 0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.6 = 0.4217
    grey = recolored(color, {"saturation": 1}, saturation=-1)
    assert grey == pytest.approx([0.4217] * 3, abs=1e-4)


def test_the_hue_turns_and_brightness_stays():
    color = np.array([0.6, 0.4, 0.4])
    hues = []
    for part in np.linspace(-1, 1, 9):
        turned = recolored(color, {"hue": 0.5}, hue=part)
        assert turned @ [0.299, 0.587, 0.114] == pytest.approx(0.46, abs=1e-3)
        hues.append(colorsys.rgb_to_hsv(*turned)[0])
    assert hues[0] == pytest.approx(hues[-1], abs=1e-3), "half a turn both ways"
    assert hues[0] == pytest.approx(0.5, abs=0.03), "the opposite colour"
    assert colorsys.rgb_to_hsv(*recolored((0.5,) * 3, {"hue": 0.5}, hue=0.7))[1] < 1e-3
    assert len({round(hue, 3) for hue in hues}) == 8


def test_tone_curves_are_powers():
    curves = augmentation(gamma=0.5).tone_curves(torch.tensor([-1.0, 0.0, 1.0])).numpy()
    levels = np.linspace(0, 1, curves.shape[1])
    np.testing.assert_allclose(curves[1], levels, atol=1e-6)
    assert curves[2][128] == pytest.approx(0.5 ** np.exp(0.5), rel=1e-5)
    assert curves[0][128] == pytest.approx(0.5 ** np.exp(-0.5), rel=1e-5)
    assert (curves[:, 0] == 0).all() and (curves[:, -1] == 1).all()


def test_blur_by_motion_follows_its_direction():
    motion = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.9, 1.0, 0.0]])
    blurs = augmentation(motion_blur=0.2, motion_share=0.5).blur_kernels(torch.zeros(3), motion)
    across, down, still = blurs.numpy()
    assert across.sum() == pytest.approx(1) and across.shape == (7, 7)
    np.testing.assert_allclose(across, down.T, atol=1e-6)
    assert across[3].sum() > 0.99 and across[3, 1:6] == pytest.approx(0.2, abs=0.03)
    assert still[3, 3] > 0.99, "no motion in this step"


def test_blur_by_the_lens_is_a_normal_distribution():
    blurs = augmentation(defocus=0.05).blur_kernels(torch.tensor([-1.0]), torch.zeros(1, 3))
    (kernel,) = blurs.numpy()
    offset = np.arange(-3, 4)
    assert kernel.shape == (7, 7)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)
    assert (kernel.sum(0) * offset**2).sum() == pytest.approx(1.2**2, rel=0.1)


def test_blur_keeps_even_surfaces_to_the_border_and_spreads_points(augmented):
    even = np.full((1, 2, 3, 24, 32), 100, np.uint8)
    config = {"defocus": 0.1, "motion_blur": 0.1, "motion_share": 1.0}
    np.testing.assert_array_equal(augmented(even, config), even)
    point = np.zeros_like(even)
    point[..., 12, 16] = 255
    result = augmented(point, config).astype(int)
    assert result.max() < 200 and result.sum() == pytest.approx(255 * 6, rel=0.1)


def test_noise_grows_with_brightness(augmented):
    for level, wanted in ((0, 4.0), (255, 5.0), (128, np.sqrt(16 + 9 * 128 / 255))):
        even = np.full((4, 2, 3, 24, 32), level, np.uint8)
        error = augmented(even, {"read_noise": 4.0, "shot_noise": 3.0}).astype(float) - level
        if level == 128:
            assert error.std() == pytest.approx(wanted, rel=0.05)
            assert abs(error.mean()) < 0.1
        else:  # half of the noise is cut off: the mean of |normal| is 0.8 of the deviation
            inner = np.abs(error[error != 0])
            assert inner.mean() == pytest.approx(0.8 * wanted, rel=0.15)


def test_both_views_get_the_same_but_the_noise(augmented):
    images = pictures(3)
    images[:, 1] = images[:, 0]
    quiet = {**EVERYTHING, "read_noise": 0, "shot_noise": 0}
    result = augmented(images, quiet)
    np.testing.assert_array_equal(result[:, 0], result[:, 1])
    assert len({image.tobytes() for image in result}) == 3
    loud = augmented(images, EVERYTHING)
    assert (loud[:, 0] != loud[:, 1]).mean() > 0.5


def test_colors_hold_for_an_episode_and_noise_for_a_step(augmented):
    images = pictures()
    colors = {"brightness": 0.1, "hue": 0.1, "gamma": 0.3, "white_balance": 0.1, "defocus": 0.05}
    np.testing.assert_array_equal(
        augmented(images, colors, step=0), augmented(images, colors, step=5)
    )
    assert (augmented(images, colors, episode=2) != augmented(images, colors)).any()
    noise = {"read_noise": 3.0}
    assert (augmented(images, noise, step=0) != augmented(images, noise, step=5)).any()


def test_an_image_depends_on_seed_environment_episode_and_step_only(augmented, tensors_on_cpu):
    images = pictures(4)
    whole = augmented(images, EVERYTHING)
    parts = [augmented(images[i : i + 2], EVERYTHING, env=[i, i + 1]) for i in (0, 2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    wide = np.zeros((4, 2, 3, 24, 64), np.uint8)
    wide[..., ::2] = images
    config = ImageConfig(rgb=RgbAugmentationConfig(**EVERYTHING))
    errors = ImageErrors(config, CAMERA, RandomStreams(0, torch.arange(4)), tensors_on_cpu)
    errors.add_to_rgb(
        torch.from_numpy(wide[..., ::2]), torch.ones(4).long(), torch.zeros(4).long()
    )
    np.testing.assert_array_equal(wide[..., ::2], whole)
    for change in ({"seed": 1}, {"env": torch.arange(4) + 4}, {"episode": 2}, {"step": 1}):
        assert (augmented(images, EVERYTHING, **change) != whole).any(axis=(1, 2, 3, 4)).all()


def test_other_images_are_refused():
    errors = ImageErrors(ImageConfig(), CAMERA, RandomStreams(0, torch.arange(2)))
    for shape, dtype in (
        ((2, 3, 24, 32), torch.uint8),
        ((3, 2, 3, 24, 32), torch.uint8),
        ((2, 2, 3, 24, 24), torch.uint8),
        ((2, 2, 3, 24, 32), torch.float32),
    ):
        with pytest.raises(ValueError, match=r"must be uint8 \(2, views, 3, 24, 32\)"):
            errors.add_to_rgb(
                torch.zeros(shape, dtype=dtype), torch.ones(2).long(), torch.zeros(2).long()
            )


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ({"hue": 0.6}, "less than or equal to 0.5"),
        ({"exposure": -1}, "greater than or equal to 0"),
        ({"defocus": 1.0}, "less than or equal to 0.2"),
        ({"sharpness": 1.0}, "unknown key `image.rgb.sharpness`"),
    ],
)
def test_a_wrong_config_is_refused(values, needle):
    with pytest.raises(ConfigError, match=needle):
        parse_config(GraspConfig, {"image": {"rgb": values}})
