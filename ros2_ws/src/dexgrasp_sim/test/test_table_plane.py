"""Depth images levelled by the plane of the table in them."""

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dexgrasp_sim.config import replace
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.preprocess import metres_to_millimetres, policy_depth
from dexgrasp_sim.vision.table_plane import level_table
from dexgrasp_sim.vision.table_view import TableView

HEIGHT, WIDTH = 32, 64
CAMERA = CameraConfig(
    WIDTH, HEIGHT, 34.5, (-1.35, 0.1, 0.85), look_at_m=(-0.557, 0.1, 0.368), near_m=0.45, far_m=1.6
)
U = torch.linspace(-1, 1, WIDTH).expand(HEIGHT, WIDTH)
V = torch.linspace(-1, 1, HEIGHT)[:, None].expand(HEIGHT, WIDTH)


TABLE_M = TableView(CAMERA, 0.3).depth_m(HEIGHT, WIDTH)


def plane(offset, along_u, along_v):
    return TABLE_M**2 * (offset + along_u * U + along_v * V)


def seen_by(camera):
    """The empty table as `camera` sees it, for a policy that believes in CAMERA."""
    depth_m = TableView(camera, 0.3).depth_m(HEIGHT, WIDTH)
    return policy_depth(metres_to_millimetres(depth_m), TABLE_M, CAMERA.near_m, CAMERA.far_m)


def test_an_object_on_a_tilted_table_keeps_its_height():
    image = plane(0.2, 0.1, -0.05)
    image[10:14, 20:26] += 0.6  # 6 cm
    level = level_table(image, TABLE_M)
    expected = torch.zeros(HEIGHT, WIDTH)
    expected[10:14, 20:26] = 0.6
    np.testing.assert_allclose(level, expected, atol=2e-3)


@given(
    *(st.floats(-0.05, 0.05) for _ in range(2)),
    st.floats(-0.1, 0.1),
    st.integers(0, 2**31),
    st.floats(0, 0.25),
)
def test_whatever_covers_a_quarter_of_it_the_table_is_level(along_u, along_v, offset, seed, share):
    generator = torch.Generator().manual_seed(seed)
    table = plane(offset, along_u, along_v)
    image = table + 0.02 * torch.randn(HEIGHT, WIDTH, generator=generator)
    size = round(share * WIDTH)
    covered = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    first = int(torch.randint(WIDTH - size + 1, (), generator=generator))
    covered[:, first : first + size] = True  # an arm
    image[covered] = 0.6 + 1.4 * torch.rand(int(covered.sum()), generator=generator)
    invalid = torch.rand(HEIGHT, WIDTH, generator=generator) < 0.1
    image[invalid] = 0.0
    level = level_table(image, TABLE_M)
    assert (level[invalid] == 0).all()
    error = (level - (image - table))[~invalid]
    assert error.abs().max() < 0.03  # 3 mm


@pytest.mark.parametrize("turned", [(0.01745, 0, 0), (0, 0.01745, 0), (-0.012, 0.012, 0.0)])
def test_a_camera_that_is_off_by_a_degree_and_a_centimetre_sees_a_level_table(turned):
    position = (-1.34, 0.11, 0.86)
    aim = np.array(CAMERA.look_at_m) + np.array(turned)  # about a degree at a metre
    image = seen_by(replace(CAMERA, position_m=position, look_at_m=tuple(aim.tolist())))
    assert image.abs().quantile(0.99) > 0.1  # a centimetre and more in places
    assert level_table(image, TABLE_M).abs().quantile(0.99) < 0.02


def test_images_are_levelled_one_by_one():
    images = torch.stack((plane(0.1, 0, 0), plane(0, 0.2, 0), torch.zeros(HEIGHT, WIDTH)))
    together = level_table(images[:, None, None], TABLE_M)
    assert together.shape == (3, 1, 1, HEIGHT, WIDTH)
    for one, image in zip(together, images):
        np.testing.assert_allclose(one[0, 0], level_table(image, TABLE_M), atol=1e-6)
    assert (together[2] == 0).all(), "without a valid pixel nothing is fitted"


class Level(nn.Module):
    def forward(self, before):
        return level_table(before, TABLE_M)


def test_onnx_runtime_levels_alike(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = plane(0.1, 0.2, -0.1) + 0.3 * torch.rand(2, HEIGHT, WIDTH, generator=generator)
    path = tmp_path / "level.onnx"
    torch.onnx.export(Level().eval(), (images,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (actual,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(np.asarray(actual), level_table(images, TABLE_M).numpy(), atol=1e-5)
