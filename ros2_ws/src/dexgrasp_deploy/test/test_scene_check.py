"""Images that cannot be the scene are told from those that can."""

import numpy as np
import pytest

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.sensing.scene_check import SceneCheck, table_depth
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.physics.scene import TableConfig
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import RESULT_SPECS
from dexgrasp_sim.vision.camera import CameraConfig

TASK = GraspConfig()
CHECK = SceneCheck(TASK.camera, TASK.table)
LENS = Intrinsics.centered(32, 24, TASK.camera.focal_px)


def depth_of(metres):
    return np.round(1000 * metres).astype(np.uint16)


TABLE = depth_of(table_depth(TASK.camera, TASK.table))


def judge(pixels, group="depth"):
    CHECK.judge(CameraSample(pixels, 0.0, LENS), group)


def refusal(pixels, group="depth"):
    with pytest.raises(UnfitInput) as caught:
        judge(pixels, group)
    assert caught.value.reason is Reason.NOT_THE_SCENE
    return str(caught.value)


def test_table_seen_from_straight_above_by_hand():
    # 0.5 m above the table, 90 degrees: the 4 x 4 image shows 1 m x 1 m, its centre at x = -0.5
    camera = CameraConfig(
        width=4,
        height=4,
        fovy_deg=90.0,
        position_m=(-0.5, 0.0, 0.75),
        look_at_m=(-0.5, 0.0, 0.0),
        up=(1.0, 0.0, 0.0),
        near_m=0.1,
        far_m=2.0,
    )
    table = TableConfig(center_m=(-0.5, 0.0, 0.235), size_m=(0.6, 0.6, 0.03))
    seen = table_depth(camera, table)
    expected = np.zeros((4, 4))
    expected[1:3, 1:3] = 0.5  # pixel centres 0.125 m off; the outer ones, at 0.375 m, miss it
    np.testing.assert_allclose(seen, expected, atol=1e-12)


@pytest.mark.slow
def test_it_is_what_the_renderer_draws():
    env = make_grasp_env(TASK, 1, 0, 1, ("depth",))
    out = {spec.name: spec.empty(1) for spec in (*env.observation_specs, *RESULT_SPECS)}
    env.reset(out)
    drawn = out["depth"][0].numpy().astype(np.uint16)
    env.close()
    same = np.abs(drawn.astype(int) - TABLE) <= 2
    assert same[TABLE > 0].mean() > 0.5, "robot and object hide the rest"
    judge(drawn)


def test_empty_and_half_hidden_tables_pass():
    judge(TABLE)
    hidden = TABLE.copy()
    hidden[:, :16] = 400
    judge(hidden)
    tilted = depth_of(table_depth(TASK.camera, TASK.table) * 1.12)
    judge(tilted)


def test_what_cannot_be_the_scene_says_why():
    assert "every pixel is 0" in refusal(np.zeros_like(TABLE))
    assert "10 times what the table" in refusal(TABLE * 10)
    assert "0.0994 times what the table" in refusal(TABLE // 10)
    sparse = np.where(np.arange(32) % 5 == 0, TABLE, 0).astype(np.uint16)
    assert "have a depth, at least 30%" in refusal(sparse)
    assert "does not stand where" in refusal(np.full_like(TABLE, 300))
    assert "does not stand where" in refusal(depth_of(table_depth(TASK.camera, TASK.table) * 1.4))


def test_metres_taken_for_millimetres_are_another_unit():
    metres = np.where(TABLE > 0, 1, 0).astype(np.uint16)
    assert "another unit" in refusal(metres)


def test_stereo():
    generator = np.random.default_rng(0)
    pair = generator.integers(0, 255, (2, 24, 32, 3), dtype=np.uint8)
    judge(pair, "stereo_rgb")
    black = pair.copy()
    black[1] = 0
    assert "right image has one brightness" in refusal(black, "stereo_rgb")
    twice = np.stack((pair[0], pair[0]))
    assert "are the same" in refusal(twice, "stereo_rgb")
