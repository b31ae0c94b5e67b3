"""The whole calibration on rendered images whose truth is known."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.calibration.board import BoardConfig
from dexgrasp_deploy.calibration.hand_eye import Setup, calibrate_hand_eye
from dexgrasp_deploy.calibration.hand_eye_verdict import judge
from dexgrasp_deploy.calibration.images import find_boards, list_images
from dexgrasp_deploy.calibration.intrinsics import IntrinsicsResult, calibrate_intrinsics
from dexgrasp_deploy.calibration.results.camera_info import (
    CameraInfo,
    project,
    triangulate,
    unrectified,
)
from dexgrasp_deploy.calibration.samples import (
    FORMAT,
    SampleEntry,
    SampleFile,
    read_samples,
    write_samples,
)
from dexgrasp_deploy.calibration.stereo import calibrate_stereo
from dexgrasp_deploy.calibration.synthetic.motions import arm_motion, board_poses
from dexgrasp_deploy.calibration.synthetic.rendering import BoardCamera, ImageNoise
from dexgrasp_deploy.calibration.transforms import Matrix, distance, inverse, transform
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

LIMITS = {"position_mm": 1.1, "rotation_deg": 0.10}
"""Median error of 15 poses over 25 degrees in the experiment that chose the method."""
POINT_LIMIT_MM = 2.0
"""Of a point on the table that is seen through the calibrated lens by the calibrated camera."""
STEREO_LIMITS = {"baseline_mm": 0.5, "point_mm": 5.0, "epipolar_rms_px": 0.3}
"""5 mm at 0.7 m is 0.4 px of disparity."""
FOCAL_LIMIT_SHARE = 0.003
"""Of the focal length; at 0.7 m it moves what is seen by 2 mm towards the camera."""

_SIZE = (640, 480)
_POSES = 15
_IMAGES = 30
_JOINT_NOISE_RAD = 3e-4
"""Gives the palm some 0.3 mm and 0.03 degrees of error, as in the experiment."""
_BASELINE_M = 0.06
_DISTANCE_M = 0.7
"""From the camera to what it looks at."""


def run_self_test(folder: Path, trials: int = 5, seed: int = 0) -> dict[str, Any]:
    """Calibrates two simulated cameras and where one of them is.

    Images are drawn through lenses with distortion, blur and noise, written to files and read
    back. Joint positions have errors. Hand-eye uses the intrinsics that were found before.

    Args:
        folder: An empty folder for the files.
        trials: Sets of samples for each setup; the median error counts.
        seed: Of everything random.

    Returns:
        `ok`, the limits, and the errors of `intrinsics`, `stereo`, `eye-to-base`, `eye-in-hand`.
    """
    board, task = BoardConfig(), GraspConfig()
    left, right = _lenses()
    left_T_right = transform(
        cv2.Rodrigues(np.array([0.004, -0.006, 0.003]))[0], [_BASELINE_M, 0.0004, -0.0006]
    )
    cameras = [
        BoardCamera(info, board, ImageNoise(), seed + index)
        for index, info in enumerate((left, right))
    ]
    pair = _record_pairs(folder, cameras, left_T_right, seed)
    report = {
        "intrinsics": _intrinsics_report(pair[0], left),
        "stereo": _stereo_report(folder, cameras, pair, left_T_right),
    }
    base_T_camera = transform(task.camera.rotation_ros, task.camera.position)
    for setup in Setup:
        runs = []
        for trial in range(trials):
            place, number = folder / f"{setup.value}_{trial}", seed + 100 * (trial + 1)
            truth = record_samples(place, cameras[0], setup, base_T_camera, _POSES, number)
            runs.append(_hand_eye(place, cameras[0], pair[0].info, truth))
        report[setup.value] = _summary(runs)
    limits = {
        "hand_eye": {**LIMITS, "point_mm": POINT_LIMIT_MM},
        "stereo": STEREO_LIMITS,
        "focal_error_share": FOCAL_LIMIT_SHARE,
    }
    ok = all(part["ok"] for part in report.values())
    return {"ok": ok, "limits": limits, "opencv": cv2.__version__, **report}


def _lenses() -> tuple[CameraInfo, CameraInfo]:
    """Two cameras like a RealSense D435, not quite equal, with visible distortion."""
    left = np.array([[612.0, 0.0, 322.4], [0.0, 611.2, 237.1], [0.0, 0.0, 1.0]])
    right = np.array([[614.5, 0.0, 318.2], [0.0, 613.9, 241.6], [0.0, 0.0, 1.0]])
    return (
        unrectified("left", _SIZE, left, np.array([-0.09, 0.05, 0.0008, -0.0005, 0.0])),
        unrectified("right", _SIZE, right, np.array([-0.08, 0.04, -0.0004, 0.0006, 0.0])),
    )


def _record_pairs(
    folder: Path, cameras: list[BoardCamera], left_T_right: Matrix, seed: int
) -> tuple[IntrinsicsResult, IntrinsicsResult]:
    """Writes pairs of images and calibrates the intrinsics of both cameras."""
    board = cameras[0].board
    for side in ("left", "right"):
        (folder / side).mkdir(parents=True)
    written = 0
    for pose in board_poses(cameras[0], 3 * _IMAGES, seed):
        in_right = inverse(left_T_right) @ pose
        if written < _IMAGES and cameras[1].sees(in_right):
            _write(folder / "left" / f"{written:02}.png", cameras[0].draw(pose))
            _write(folder / "right" / f"{written:02}.png", cameras[1].draw(in_right))
            written += 1
    first, second = (
        calibrate_intrinsics(find_boards(board, list_images(folder / side)), side)
        for side in ("left", "right")
    )
    return first, second


def _intrinsics_report(result: IntrinsicsResult, truth: CameraInfo) -> dict[str, Any]:
    focal = np.abs(np.diag(result.info.matrix)[:2] / np.diag(truth.matrix)[:2] - 1).max()
    centre = np.abs(result.info.matrix[:2, 2] - truth.matrix[:2, 2]).max()
    return {
        "ok": bool(focal <= FOCAL_LIMIT_SHARE),
        "focal_error_share": float(focal),
        "center_error_px": float(centre),
        "rms_px": result.rms_px,
        "images": len(result.image_rms_px),
        "verdict": result.verdict.grade.value,
    }


def _stereo_report(
    folder: Path,
    cameras: list[BoardCamera],
    pair: tuple[IntrinsicsResult, IntrinsicsResult],
    truth: Matrix,
) -> dict[str, Any]:
    board = cameras[0].board
    images = [find_boards(board, list_images(folder / side)) for side in ("left", "right")]
    result = calibrate_stereo(images[0], images[1], pair[0].info, pair[1].info)
    points = _points_ahead()
    seen = [
        project(camera.info, points @ pose[:3, :3].T + pose[:3, 3])
        for camera, pose in zip(cameras, (np.eye(4), inverse(truth)))
    ]
    found = triangulate(result.left, result.right, seen[0], seen[1])
    report = result.to_dict()
    errors = {
        "baseline_mm": 1e3 * abs(result.baseline_m - float(np.linalg.norm(truth[:3, 3]))),
        "point_mm": 1e3 * _rms_length(found - points),
        "epipolar_rms_px": report["epipolar_rms_px"],
    }
    return {
        "ok": all(value <= STEREO_LIMITS[name] for name, value in errors.items()),
        **errors,
        "pairs": len(report["pair_epipolar_px"]),
        "verdict": report["verdict"],
    }


def _hand_eye(
    folder: Path, camera: BoardCamera, calibrated: CameraInfo, truth: Matrix
) -> dict[str, Any]:
    """Calibrates with a recorded set and compares.

    `position_mm` and `rotation_deg` are of the camera with its true lens. `point_mm` is what is
    left at a point 0.7 m ahead with the calibrated lens: an error of the lens' centre and one of
    the camera's orientation cancel for the most part.
    """
    samples = read_samples(folder, camera.board)
    result = calibrate_hand_eye(samples.poses, camera.board, camera.info, samples.setup)
    position_mm, rotation_deg = distance(result.camera, truth)
    chain = calibrate_hand_eye(samples.poses, camera.board, calibrated, samples.setup)
    points = _points_ahead()
    pixels = calibrated.ideal_pixels(project(camera.info, points))
    rays = np.concatenate((pixels, np.ones((len(pixels), 1))), 1)
    rays = rays @ np.linalg.inv(calibrated.matrix).T * points[:, 2:]
    found = rays @ chain.camera[:3, :3].T + chain.camera[:3, 3]
    return {
        "position_mm": position_mm,
        "rotation_deg": rotation_deg,
        "point_mm": 1e3 * _rms_length(found - points @ truth[:3, :3].T - truth[:3, 3]),
        "rms_px": result.rms_px,
        "position_std_mm": result.position_std_mm,
        "poses": len(result.used),
        "spread_deg": float(result.spread_deg[1]),
        "verdict": judge(result).grade.value,
    }


def _points_ahead() -> NDArray[np.float64]:
    """Points [P, 3] m in the middle of the image, as far away as the table."""
    x, y = np.meshgrid(np.linspace(-0.15, 0.15, 5), np.linspace(-0.1, 0.1, 5))
    return np.stack((x, y, np.full_like(x, _DISTANCE_M)), -1).reshape(-1, 3)


def _rms_length(vectors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.sum(vectors**2, axis=1))))


def record_samples(
    folder: Path,
    camera: BoardCamera,
    setup: Setup,
    base_T_camera: Matrix,
    count: int,
    seed: int,
) -> Matrix:
    """Records a set on a simulated arm; returns the camera's true pose.

    Args:
        folder: Where to; it must not exist yet.
        camera: Lens and board.
        setup: Where the camera is.
        base_T_camera: Its pose if it does not move.
        count: Number of poses.
        seed: Of poses and errors.
    """
    robot = load_robot()
    motion = arm_motion(robot, camera, setup, base_T_camera, count, seed)
    generator = np.random.default_rng(seed + 1)
    measured = motion.joints_rad + generator.normal(0, _JOINT_NOISE_RAD, motion.joints_rad.shape)
    folder.mkdir(parents=True)
    entries = []
    for index, view in enumerate(motion.boards):
        name = f"{index:02}.png"
        _write(folder / name, camera.draw(view))
        arm = zip(robot.arm_joints, measured[index, robot.arm].tolist(), strict=True)
        entries.append(SampleEntry(name, dict(arm)))
    write_samples(folder, SampleFile(FORMAT, setup, tuple(entries)))
    return motion.camera


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    limits = {**LIMITS, "point_mm": POINT_LIMIT_MM}
    medians = {name: float(np.median([run[name] for run in runs])) for name in limits}
    worst = {f"worst_{name}": max(run[name] for run in runs) for name in limits}
    ok = all(medians[name] <= limit for name, limit in limits.items())
    return {"ok": ok, **medians, **worst, "trials": runs}


def _write(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
