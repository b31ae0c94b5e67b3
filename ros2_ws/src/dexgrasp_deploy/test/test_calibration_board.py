"""The board: as a printed page, and found in images."""

import re
import zlib

import cv2
import numpy as np
import pytest

from dexgrasp_deploy.calibration.board import (
    BoardConfig,
    BoardDetector,
    BoardView,
    Miss,
    read_board,
)
from dexgrasp_deploy.calibration.board_sheet import write_sheet
from dexgrasp_deploy.calibration.images import find_boards, find_in, list_images, read_gray
from dexgrasp_deploy.calibration.intrinsics import calibrate_intrinsics
from dexgrasp_deploy.calibration.results.camera_info import project, unrectified
from dexgrasp_deploy.calibration.synthetic.motions import board_poses, most_different
from dexgrasp_deploy.calibration.synthetic.rendering import BoardCamera, ImageNoise
from dexgrasp_deploy.calibration.transforms import transform
from dexgrasp_sim.config import ConfigError, parse_config

BOARD = BoardConfig()


def photograph(board=BOARD, pixels_per_square=40):
    """A sharp picture of the whole board from the front, with white around it."""
    return np.pad(board.image(pixels_per_square), 60, constant_values=255)


@pytest.fixture(scope="module")
def camera():
    matrix = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    info = unrectified("camera", (640, 480), matrix, np.array([-0.1, 0.05, 1e-3, -5e-4, 0.0]))
    return BoardCamera(info, BOARD, ImageNoise())


def test_the_printed_png_has_its_true_size(tmp_path):
    write_sheet(tmp_path / "board.png", BOARD)
    page = read_gray(tmp_path / "board.png")
    view = BoardDetector(BOARD).find(page)
    assert isinstance(view, BoardView) and view.ids.tolist() == list(range(24))
    pixels_per_m = 300 / 0.0254
    assert (view.pixels - view.pixels[0]) / pixels_per_m == pytest.approx(
        (BOARD.corners_m - BOARD.corners_m[0])[:, :2], abs=1e-4
    )
    # the bar of 200 mm is the longest run of dark pixels in a row below the board
    below = page[round(view.pixels[:, 1].max()) + 500 :] < 128
    longest = max(
        np.ptp(np.flatnonzero(row)) + 1 for row in below if row.all() or row.sum() > 1500
    )
    assert longest / pixels_per_m == pytest.approx(0.2, abs=3e-4)


def test_the_printed_pdf_has_its_true_size(tmp_path):
    write_sheet(tmp_path / "board.pdf", BOARD)
    content = (tmp_path / "board.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert [float(value) / 72 * 25.4 for value in box.groups()] == pytest.approx([297, 210])
    streams = [
        zlib.decompress(data)
        for data in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
        if data[:1] == b"x"
    ]
    path = max(streams, key=len)
    xs = [float(x) for x in re.findall(rb"([\d.]+) [\d.]+ [ml]\b", path)]
    squares = [x for x in xs if x > 0]
    assert squares, "the board is drawn as lines, not as pixels"


def test_paper_that_is_too_small_is_refused(tmp_path):
    large = BoardConfig(square_m=0.04, marker_m=0.03)
    with pytest.raises(ConfigError, match="280 x 200 mm and its scale bar do not fit a4"):
        write_sheet(tmp_path / "board.pdf", large)
    write_sheet(tmp_path / "board.pdf", large, "a3")


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in \.pdf or \.png"):
        write_sheet(tmp_path / "board.svg", BOARD)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"marker_m": 0.03}, "marker_m 0.03 must be between half of square_m"),
        ({"dictionary": "DICT_9X9"}, "not one of OpenCV's"),
        ({"dictionary": "drawDetectedMarkers"}, "not one of OpenCV's"),
        ({"columns": 20, "rows": 10}, "need 100 markers, DICT_4X4_50 has 50"),
        ({"columns": 2}, "greater than or equal to 3"),
    ],
)
def test_a_wrong_board_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(BoardConfig, values)


def test_the_measured_bar_corrects_the_size():
    """196 mm instead of 200: 2 % smaller."""
    assert read_board(None, 0.196).square_m == pytest.approx(0.0294)
    with pytest.raises(ConfigError, match="print again at 100 %"):
        read_board(None, 0.180)


def test_corners_are_found_where_they_are(camera):
    for pose in board_poses(camera, 4, seed=1):
        view = BoardDetector(BOARD).find(camera.draw(pose))
        corners = BOARD.corners_m @ pose[:3, :3].T + pose[:3, 3]
        errors = view.pixels - project(camera.info, corners)[view.ids]
        assert len(view.ids) > 12 and np.sqrt(np.mean(errors**2)) < 0.15


@pytest.mark.parametrize(
    ("image", "miss"),
    [
        (np.full((480, 640), 128, np.uint8), Miss.NO_MARKERS),
        (photograph()[:, ::-1].copy(), Miss.MIRRORED),
        (photograph()[::-1].copy(), Miss.MIRRORED),
        (photograph(BoardConfig(columns=5, rows=7)), Miss.OTHER_BOARD),
        (photograph(BoardConfig(columns=9, rows=6)), Miss.OTHER_BOARD),
        (photograph()[:, :145].copy(), Miss.FEW_CORNERS),
    ],
)
def test_why_there_is_no_board_is_said(image, miss):
    assert BoardDetector(BOARD).find(image) is miss
    with pytest.raises(ConfigError, match=f"in none of 1 images; in 1 of them {miss.value}"):
        find_in(BOARD, {"a.png": image})


def test_an_upside_down_board_is_found():
    assert isinstance(BoardDetector(BOARD).find(photograph()[::-1, ::-1].copy()), BoardView)


def test_images_without_the_board_are_listed(tmp_path):
    blank = np.full_like(photograph(), 200)
    for name, image in (("a.png", photograph()), ("b.png", blank)):
        cv2.imwrite(str(tmp_path / name), image)
    found = find_boards(BOARD, list_images(tmp_path))
    assert list(found.views) == ["a.png"] and found.misses == {"b.png": Miss.NO_MARKERS}


def test_images_of_different_sizes_are_refused():
    images = {name: photograph() for name in ("a.png", "b.png")}
    images["c.png"] = photograph(pixels_per_square=30)
    with pytest.raises(ConfigError, match=r"c\.png is 330x270, most are 400x320"):
        find_in(BOARD, images)


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(ConfigError, match=r"a\.png: is not an image"):
        find_boards(BOARD, list_images(tmp_path))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"a\.png: is not an image"):
        find_boards(BOARD, list_images(tmp_path))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no images"):
        list_images(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        list_images(tmp_path / "nowhere")


def test_too_few_images_are_refused():
    with pytest.raises(ConfigError, match="found in 2 images, at least 6 are needed"):
        calibrate_intrinsics(find_in(BOARD, {"a": photograph(), "b": photograph()}))


def test_a_board_that_is_never_tilted_is_refused(camera):
    centre = np.array([*BOARD.size_m, 0]) / 2
    places = np.array(
        [[x, y, z] for x in (-0.05, 0.05) for y in (-0.03, 0.03) for z in (0.4, 0.5)]
    )
    images = {
        f"{index}": camera.draw(transform(np.eye(3), place - centre))
        for index, place in enumerate(places)
    }
    with pytest.raises(ConfigError, match="tilt it by 20 to 45 degrees"):
        calibrate_intrinsics(find_in(BOARD, images))


def test_the_most_different_rotations_are_taken():
    """From 0, 5, 90 and 40 degrees about z: first 90, then 40."""
    angles = np.deg2rad([0, 5, 90, 40])
    turns = np.array([cv2.Rodrigues(np.array([0, 0, angle]))[0] for angle in angles])
    assert most_different(turns, 3) == [0, 2, 3]
