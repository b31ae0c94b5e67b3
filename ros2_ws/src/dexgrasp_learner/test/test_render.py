import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from dexgrasp_learner.commands import contact_sheet as render
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.view.depth_colors import colorize_depth
from dexgrasp_sim.vision.camera import CameraConfig

REALISM = Path(__file__).parents[4] / "config" / "realism.yaml"


def call(capsys, *arguments):
    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    assert render.run(parser.parse_args([str(argument) for argument in arguments])) == 0
    return capsys.readouterr().out


def tiles(sheet, rows, width, height):
    """The images of a sheet by row and column."""
    return [
        [
            sheet[top : top + height, left : left + width]
            for left in (132 + column * (width + 6) for column in range(len(render.COLUMNS)))
        ]
        for top in (52 + row * (height + 6) for row in range(rows))
    ]


def test_the_sheet_has_the_stated_size_and_shows_the_noise(capsys, tmp_path):
    out = tmp_path / "new" / "folder"
    text = call(capsys, "--config", REALISM, "--out", out, "--envs", 2, "--json")
    summary = json.loads(text.splitlines()[-1])
    assert summary["sheet"] == str(out / "contact_sheet.png")
    assert summary["columns"] == list(render.COLUMNS)
    sheet = cv2.imread(summary["sheet"])
    # 2 environments at 3 moments; 32x24 pixels five times as large, gaps of 6, margins
    assert sheet.shape == (52 + 6 * 126, 132 + 5 * 166, 3)
    assert (summary["height"], summary["width"]) == sheet.shape[:2]
    for row in tiles(sheet, 6, 160, 120):
        assert all(tile.std() > 5 for tile in row)
        for rendered, observed in ((0, 1), (2, 3)):
            assert (row[rendered] != row[observed]).any(axis=2).mean() > 0.02
        assert (row[3] != row[4]).any(axis=2).mean() > 0.2, "left and right differ"


def test_without_a_config_rendered_and_observed_agree(capsys, tmp_path):
    text = call(capsys, "--out", tmp_path, "--envs", 1, "--size", "48x36")
    path = tmp_path / "contact_sheet.png"
    sheet = cv2.imread(str(path))
    assert text == f"{path}: {sheet.shape[1]} x {sheet.shape[0]} pixels\n"
    assert sheet.shape == (52 + 3 * (144 + 6), 132 + 5 * (192 + 6), 3)
    for row in tiles(sheet, 3, 192, 144):
        np.testing.assert_array_equal(row[0], row[1])
        np.testing.assert_array_equal(row[2], row[3])


def test_seeds_show_other_episodes(capsys, tmp_path):
    sheets = []
    for seed in (0, 0, 1):
        call(capsys, "--out", tmp_path, "--envs", 1, "--seed", seed)
        sheets.append((tmp_path / "contact_sheet.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_depth_is_bright_where_near_and_black_where_there_is_none():
    camera = CameraConfig(
        width=3,
        height=1,
        fovy_deg=40,
        position_m=(0, 0, 0),
        look_at_m=(1, 0, 0),
        near_m=0.5,
        far_m=1.0,
    )
    near, far, none = colorize_depth(np.array([[[500, 1000, 0]]], np.int16), camera)[0, 0]
    assert near.sum() > far.sum() > none.sum() == 0


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["--config", "none.yaml"], "No such file"),
        (["--set", "seed=1"], "--set seed=1: changes a value of --config"),
        (["--config", REALISM, "--set", "task.camera.width=0"], "--set task.camera.width=0: "),
    ],
)
def test_wrong_arguments_are_config_errors(capsys, tmp_path, arguments, needle):
    with pytest.raises(ConfigError, match=needle):
        call(capsys, "--out", tmp_path, *arguments)


def test_a_folder_that_cannot_be_written_is_a_config_error(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="give another folder"):
        call(capsys, "--out", tmp_path / "file" / "x", "--envs", "1")


@pytest.mark.parametrize("size", ["large", "0x10", "48x", "48x36x2", "5000x10"])
def test_a_size_that_is_none_is_refused(capsys, tmp_path, size):
    with pytest.raises(SystemExit):
        call(capsys, "--out", tmp_path, "--size", size)
    assert "160x120" in capsys.readouterr().err
