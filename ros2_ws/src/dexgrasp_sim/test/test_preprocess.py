import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dexgrasp_sim.vision.preprocess import (
    metres_to_millimetres,
    millimetres_to_metres,
    policy_depth,
    policy_rgb,
    resize_depth,
    resize_rgb,
)

NEAR_M, FAR_M = 0.2, 0.95
TABLE_M = 0.5 + 0.01 * torch.arange(24.0)[:, None].expand(24, 32)


def depths(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 3000, shape, generator=generator, dtype=torch.int16)
    return torch.where(torch.rand(shape, generator=generator) < 0.3, 0, image).to(torch.int16)


def test_millimetres_by_hand():
    metres = torch.tensor([0.0, 0.0004, 0.0005, 0.4994, 0.4996, 1.0, 32.767, 32.768, 1e6])
    expected = [0, 0, 1, 499, 500, 1000, 32767, 32767, 32767]
    assert metres_to_millimetres(metres).tolist() == expected
    assert metres_to_millimetres(metres).dtype == torch.int16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.3, -0.0])
def test_no_depth_is_zero(value):
    assert metres_to_millimetres(torch.tensor([value])).tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_millimetre_survives_the_way_through_metres(dtype):
    millimetres = torch.arange(32768, dtype=torch.int32).to(torch.int16)
    metres = millimetres_to_metres(millimetres)
    assert metres.dtype == torch.float32
    assert torch.equal(metres_to_millimetres(metres.to(dtype)), millimetres)


@given(st.floats(0.001, 32.0))
def test_rounding_error_is_half_a_millimetre(depth_m):
    millimetres = metres_to_millimetres(torch.tensor([depth_m], dtype=torch.float64))
    assert abs(int(millimetres) - depth_m * 1000) <= 0.5 + 1e-9


def test_policy_depth_by_hand():
    image = torch.tensor([[0, 199, 200, 650, 690, 700, 740, 760, 950, 951]], dtype=torch.int16)
    seen = policy_depth(image, torch.full((1, 10), 0.7), NEAR_M, FAR_M)
    assert seen.dtype == torch.float32
    # a tenth of a metre is 1; clipped to [-0.5, 2]; invalid pixels are 0 as the table is
    expected = [[0.0, 0.0, 2.0, 0.5, 0.1, 0.0, -0.4, -0.5, -0.5, 0.0]]
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-5)


@given(st.integers(0, 32767), st.floats(0.05, 2.0), st.floats(0.1, 5.0))
def test_policy_depth_ignores_what_is_out_of_range(millimetres, near_m, range_m):
    image, table_m = torch.tensor([[millimetres]], dtype=torch.int16), torch.tensor([[3.0]])
    seen = float(policy_depth(image, table_m, near_m, near_m + range_m))
    assert -0.5 <= seen <= 2.0
    in_range = near_m * 1000 <= millimetres <= (near_m + range_m) * 1000
    if in_range and millimetres:
        assert seen == pytest.approx(np.clip(30.0 - millimetres / 100, -0.5, 2.0), abs=1e-4)
    if millimetres < near_m * 1000 - 1 or millimetres > (near_m + range_m) * 1000 + 1:
        assert seen == 0.0


class Preprocess(nn.Module):
    def forward(self, depth_mm, image):
        return policy_depth(depth_mm, TABLE_M, NEAR_M, FAR_M), policy_rgb(image)


def test_onnx_runtime_gives_the_same_policy_images(tmp_path):
    depth_mm = depths(2, 24, 32)
    image = torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8)
    path = tmp_path / "preprocess.onnx"
    torch.onnx.export(Preprocess().eval(), (depth_mm, image), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    names = [node.name for node in session.get_inputs()]
    given = dict(zip(names, (depth_mm.numpy(), image.numpy()), strict=True))
    for actual, expected in zip(
        session.run(None, given), Preprocess()(depth_mm, image), strict=True
    ):
        np.testing.assert_allclose(np.asarray(actual), expected.numpy(), atol=1e-6)


def test_policy_rgb_by_hand():
    seen = policy_rgb(torch.tensor([0, 51, 255], dtype=torch.uint8))
    np.testing.assert_allclose(seen.numpy(), [-0.5, -0.3, 0.5], atol=1e-6)


def test_nearest_takes_the_pixel_under_the_centre():
    image = torch.arange(24, dtype=torch.int16).view(4, 6)
    # rows 4 -> 2: centres at 1 and 3; columns 6 -> 2: centres at 1.5 and 4.5
    assert resize_depth(image, 2, 2).tolist() == [[7, 10], [19, 22]]


@pytest.mark.parametrize("mode", ["nearest", "area"])
def test_depth_of_the_same_size_stays(mode):
    image = depths(2, 5, 7)
    assert torch.equal(resize_depth(image, 5, 7, mode), image)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 50))
def test_nearest_invents_nothing(height, width, seed):
    image = depths(3, 8, 10, seed=seed)
    resized = resize_depth(image, height, width)
    assert resized.shape == (3, height, width)
    for small, large in zip(resized, image, strict=True):
        assert set(small.unique().tolist()) <= set(large.unique().tolist())


def test_area_leaves_invalid_pixels_out():
    image = torch.tensor([[1000, 0, 500, 0], [0, 2001, 0, 0]], dtype=torch.int16)
    # left: mean of two valid ones of four; right: one of four is too few
    assert resize_depth(image, 1, 2, "area").tolist() == [[1501, 0]]


@given(st.integers(1, 8), st.integers(1, 10), st.integers(0, 50))
def test_area_stays_between_the_valid_depths(height, width, seed):
    image = depths(8, 10, seed=seed)
    valid = image[image > 0]
    resized = resize_depth(image, height, width, "area")
    seen = resized[resized > 0]
    assert bool((seen >= valid.min()).all() and (seen <= valid.max()).all())


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'cubic' is not one of 'nearest', 'area'"):
        resize_depth(depths(4, 4), 2, 2, "cubic")  # type: ignore[arg-type]


def test_colours_are_averaged_as_by_opencv():
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    expected = cv2.resize(pixels, (16, 12), interpolation=cv2.INTER_AREA)
    resized = resize_rgb(image, 12, 16)
    assert resized.dtype == torch.uint8
    assert resized.shape == (3, 12, 16)
    difference = resized.permute(1, 2, 0).numpy().astype(int) - expected
    assert np.abs(difference).max() <= 1  # OpenCV rounds halves to even


def test_stacked_colours_keep_their_leading_axes():
    images = torch.randint(0, 256, (5, 2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(resize_rgb(images, 4, 4)[3, 1], resize_rgb(images[3, 1], 4, 4))
