"""`dexgrasp calibrate` from images to files, on a simulated robot and cameras."""

import json

import cv2
import numpy as np
import pytest
import yaml

from dexgrasp_deploy.calibration.board import BoardConfig
from dexgrasp_deploy.calibration.hand_eye import Setup
from dexgrasp_deploy.calibration.results.camera_info import (
    read_camera_info,
    unrectified,
    write_camera_info,
)
from dexgrasp_deploy.calibration.results.extrinsics import read_extrinsics
from dexgrasp_deploy.calibration.synthetic.motions import board_poses
from dexgrasp_deploy.calibration.synthetic.rendering import BoardCamera, ImageNoise
from dexgrasp_deploy.calibration.synthetic.self_test import record_samples, run_self_test
from dexgrasp_deploy.calibration.transforms import distance, inverse, transform
from dexgrasp_deploy.commands.cli import main
from dexgrasp_sim.tasks.grasp.config import GraspConfig

pytestmark = pytest.mark.slow

MATRIX = np.array([[612.0, 0, 322.4], [0, 611.2, 237.1], [0, 0, 1]])
INFO = unrectified("left", (640, 480), MATRIX, np.array([-0.09, 0.05, 8e-4, -5e-4, 0.0]))
LEFT_T_RIGHT = transform(np.eye(3), [0.06, 0.0, 0.0])


@pytest.fixture(scope="module")
def camera():
    return BoardCamera(INFO, BoardConfig(), ImageNoise())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, camera):
    """Pairs of images in `left` and `right`, and hand-eye samples with the camera's true pose."""
    folder = tmp_path_factory.mktemp("recorded")
    for side in ("left", "right"):
        (folder / side).mkdir()
    written = 0
    for pose in board_poses(camera, 40, seed=2):
        in_right = inverse(LEFT_T_RIGHT) @ pose
        if written < 18 and camera.sees(in_right):
            for side, view in (("left", pose), ("right", in_right)):
                cv2.imwrite(str(folder / side / f"{written:02}.png"), camera.draw(view))
            written += 1
    task = GraspConfig()
    base_T_camera = transform(task.camera.rotation_ros, task.camera.position)
    samples = folder / "samples"
    truth = record_samples(samples, camera, Setup.EYE_TO_BASE, base_T_camera, 16, seed=3)
    write_camera_info(folder / "left.yaml", INFO)
    return folder, truth


def calibrate(capsys, *arguments):
    """Exit code, JSON on stdout (empty without), and stderr of `dexgrasp calibrate`."""
    code = main(["calibrate", "--json", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, json.loads(shown.out) if shown.out else {}, shown.err


def test_the_self_test_holds_its_limits(tmp_path):
    report = run_self_test(tmp_path)
    assert report["ok"], report
    assert report["eye-to-base"]["trials"][0]["poses"] >= 14
    assert set(report) >= {"intrinsics", "stereo", "eye-to-base", "eye-in-hand"}


def test_the_board_is_written_with_its_description(capsys, tmp_path):
    code, report, _ = calibrate(capsys, "board", "--out", tmp_path / "board.pdf")
    assert code == 0 and (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF")
    assert yaml.safe_load((tmp_path / "board.yaml").read_text())["columns"] == 7
    again = calibrate(capsys, "board", "--board", report["board"], "--out", tmp_path / "board.png")
    assert again[0] == 0


def test_intrinsics_come_out_as_camera_info(capsys, tmp_path, recorded):
    folder, _ = recorded
    code, report, _ = calibrate(
        capsys, "intrinsics", folder / "left", "--name", "left", "--out", tmp_path
    )
    assert code == 0 and report["verdict"] in ("ok", "poor") and report["rms_px"] < 0.2
    info = read_camera_info(tmp_path / "left.yaml")
    assert np.abs(np.diag(info.matrix)[:2] / np.diag(MATRIX)[:2] - 1).max() < 0.01
    assert (tmp_path / "left_report.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "left_report.json").read_text()) == report


def test_a_stereo_pair_comes_out_rectified(capsys, tmp_path, recorded):
    folder, _ = recorded
    lens = folder / "left.yaml"
    code, report, _ = calibrate(
        *(capsys, "stereo", "--left", folder / "left", "--right", folder / "right"),
        *("--left-info", lens, "--right-info", lens, "--out", tmp_path),
    )
    assert code == 0 and report["verdict"] == "ok" and report["epipolar_rms_px"] < 0.2
    assert report["baseline_m"] == pytest.approx(0.06, abs=3e-4)
    right = read_camera_info(tmp_path / "right.yaml")
    assert -right.projection[0, 3] / right.projection[0, 0] == pytest.approx(0.06, abs=3e-4)


def test_swapped_cameras_are_noticed(capsys, tmp_path, recorded):
    folder, _ = recorded
    lens = folder / "left.yaml"
    code, _, error = calibrate(
        *(capsys, "stereo", "--left", folder / "right", "--right", folder / "left"),
        *("--left-info", lens, "--right-info", lens, "--out", tmp_path),
    )
    assert code == 2 and "swap --left and --right" in error and error.count("\n") == 1


def test_the_camera_is_found_beside_the_robot(capsys, tmp_path, recorded):
    folder, truth = recorded
    code, report, _ = calibrate(
        *(capsys, "hand-eye", folder / "samples", "--camera-info", folder / "left.yaml"),
        *("--child", "left_optical_frame", "--out", tmp_path),
    )
    assert code == 0 and report["verdict"] == "ok", report
    found = read_extrinsics(tmp_path / "extrinsics.yaml")
    position_mm, rotation_deg = distance(found.matrix, truth)
    assert position_mm < 2.0 and rotation_deg < 0.2
    assert (found.parent, found.child) == ("base", "left_optical_frame")
    assert found.samples == report["poses"] and len(found.samples_sha256) == 64
    assert "static_transform_publisher" in (tmp_path / "static_transform.launch.py").read_text()
    assert (tmp_path / "hand_eye_report.png").stat().st_size > 10_000


def test_a_refused_calibration_writes_a_report_but_no_extrinsics(capsys, tmp_path, recorded):
    """The lens is said to be 6 % longer than it is."""
    folder, _ = recorded
    wrong = unrectified("left", INFO.size, MATRIX @ np.diag([1.06, 1.06, 1]), INFO.distortion)
    write_camera_info(tmp_path / "wrong.yaml", wrong)
    code, report, _ = calibrate(
        *(capsys, "hand-eye", folder / "samples"),
        *("--camera-info", tmp_path / "wrong.yaml", "--out", tmp_path / "out"),
    )
    assert code == 1 and report["verdict"] == "refuse"
    assert "focal length in %" in report["reasons"][0]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"hand_eye_report.json", "hand_eye_report.png"}


def test_a_lens_of_another_image_size_is_refused(capsys, tmp_path, recorded):
    folder, _ = recorded
    write_camera_info(tmp_path / "hd.yaml", unrectified("a", (1280, 720), MATRIX, np.zeros(5)))
    code, _, error = calibrate(
        *(capsys, "hand-eye", folder / "samples"),
        *("--camera-info", tmp_path / "hd.yaml", "--out", tmp_path),
    )
    assert code == 2 and "1280x720" in error and "640x480" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do; give board, intrinsics"),
        (["intrinsics", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["hand-eye", "nowhere", "--camera-info", "a.yaml", "--out", "x"], "a.yaml: cannot be"),
        (["compare", "--bundle", "nowhere", "--extrinsics", "e"], "no bundle here"),
        (["board", "--out", "x.svg"], "must end in .pdf or .png"),
        (["intrinsics", "x", "--scale-bar-mm", "20", "--out", "x"], "print again at 100 %"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, report, error = calibrate(capsys, *arguments)
    assert code == 2 and report == {}
    assert message in error and error.count("\n") == 1
