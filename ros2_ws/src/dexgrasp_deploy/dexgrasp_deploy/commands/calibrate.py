"""`dexgrasp calibrate`: lenses of cameras, and where a camera is; see docs/calibration.md."""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from dexgrasp_deploy.calibration.board import SCALE_BAR_M, BoardConfig, read_board
from dexgrasp_deploy.calibration.board_sheet import PAPERS_M, write_sheet
from dexgrasp_deploy.calibration.hand_eye import HandEyeResult, calibrate_hand_eye
from dexgrasp_deploy.calibration.hand_eye_verdict import judge, to_dict
from dexgrasp_deploy.calibration.images import (
    BoardImages,
    check_sizes,
    find_boards,
    list_images,
)
from dexgrasp_deploy.calibration.intrinsics import IntrinsicsResult, calibrate_intrinsics
from dexgrasp_deploy.calibration.quality import Grade, Verdict
from dexgrasp_deploy.calibration.report_figure import write_figure
from dexgrasp_deploy.calibration.results.camera_info import (
    CameraInfo,
    read_camera_info,
    write_camera_info,
)
from dexgrasp_deploy.calibration.results.comparison import (
    compare_lens,
    compare_pair,
    compare_pose,
)
from dexgrasp_deploy.calibration.results.extrinsics import (
    Extrinsics,
    read_extrinsics,
    ros_quaternion,
    stamp_of,
    static_transform_command,
    static_transform_launch,
    write_extrinsics,
)
from dexgrasp_deploy.calibration.results.mounted_camera import outside_of_training
from dexgrasp_deploy.calibration.samples import SampleSet, read_samples
from dexgrasp_deploy.calibration.stereo import calibrate_stereo
from dexgrasp_deploy.calibration.synthetic.self_test import run_self_test
from dexgrasp_deploy.commands import calibrate_record
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.arguments import number
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.config import to_dict as config_to_dict

REFUSED = 1
OUTSIDE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp calibrate`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--self-test", action="store_true", help="calibrate simulated cameras and compare"
    )
    parts = parser.add_subparsers(
        dest="part", metavar="{board,intrinsics,stereo,record,hand-eye,compare}"
    )
    board = _part(parts, "board", "draw the board to print")
    board.add_argument("--out", type=Path, required=True, help="a .pdf or .png file")
    board.add_argument("--paper", choices=PAPERS_M, default="a4", help="landscape (default a4)")

    intrinsics = _part(parts, "intrinsics", "the lens of one camera from images of the board")
    intrinsics.add_argument("images", type=Path, help="folder of images")
    intrinsics.add_argument("--name", default="camera", help="name of the camera")
    intrinsics.add_argument(
        "--model",
        choices=("plumb_bob", "rational_polynomial"),
        default="plumb_bob",
        help="of the lens' distortion (default plumb_bob, five coefficients)",
    )
    _add_results(intrinsics)

    stereo = _part(parts, "stereo", "a stereo pair from pairs of images of equal names")
    stereo.add_argument("--left", type=Path, required=True, help="folder of left images")
    stereo.add_argument("--right", type=Path, required=True, help="folder of right images")
    stereo.add_argument("--left-info", type=Path, help="camera info of the left lens, if known")
    stereo.add_argument("--right-info", type=Path, help="the same of the right one")
    _add_results(stereo)

    record = _part(parts, "record", "samples for hand-eye from a robot that a person moves")
    calibrate_record.add_arguments(record)

    hand_eye = _part(parts, "hand-eye", "where a camera is, from images at known poses of the arm")
    hand_eye.add_argument("samples", type=Path, help="folder with samples.json and its images")
    hand_eye.add_argument("--camera-info", type=Path, required=True, help="lens of the camera")
    hand_eye.add_argument(
        "--child", default="camera_optical_frame", help="name of the camera's optical frame"
    )
    _add_results(hand_eye)

    compare = _part(parts, "compare", "a calibrated camera against the one of a policy's training")
    compare.add_argument("--bundle", type=Path, required=True, help="policy bundle folder")
    compare.add_argument(
        "--extrinsics", type=Path, required=True, help="extrinsics.yaml of a hand-eye calibration"
    )
    compare.add_argument("--camera-info", type=Path, help="lens of the (left) camera")
    compare.add_argument("--right-info", type=Path, help="lens of the right camera of a pair")
    compare.add_argument(
        "--max-age-days",
        type=number(above=0.0, most=3650.0),
        default=30.0,
        help="oldest calibration that is accepted (default 30)",
    )
    compare.add_argument(
        "--allow-outside", action="store_true", help="exit with 0 although it is outside"
    )


def _part(parts: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser = parts.add_parser(name, help=text, description=text)
    # suppressed: else it would undo `dexgrasp calibrate --json board`
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object"
    )
    if name != "compare":
        parser.add_argument("--board", type=Path, help="board.yaml; default: the default board")
    return parser


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--scale-bar-mm",
        type=number(above=0.0, most=1000.0),
        help=f"measured length of the printed bar of {1e3 * SCALE_BAR_M:g} mm",
    )


def run(args: argparse.Namespace) -> int:
    """Runs one part.

    Returns:
        0; 1 when the calibration is refused or the self-test failed; 2 when the camera is outside
        the range of the training.

    Raises:
        ConfigError: An argument or a file is wrong.
    """
    if args.self_test:
        return _self_test(args)
    if args.part is None:
        raise ConfigError(f"nothing to do; give {', '.join(_PARTS)} or --self-test")
    return _PARTS[args.part](args)


def _board(args: argparse.Namespace) -> int:
    board = read_board(args.board)
    write_sheet(args.out, board, args.paper)
    config = args.out.with_suffix(".yaml")
    if args.board is None or config.resolve() != args.board.resolve():
        config.write_text(yaml.safe_dump(config_to_dict(board), sort_keys=False))
    report = {"sheet": str(args.out), "board": str(config), "scale_bar_mm": 1e3 * SCALE_BAR_M}
    text = (
        f"{args.out}: print at 100 % and measure the bar of {1e3 * SCALE_BAR_M:g} mm\n"
        f"{config}: give it as --board"
    )
    _show(args, report, text)
    return 0


def _intrinsics(args: argparse.Namespace) -> int:
    images = find_boards(_printed_board(args), list_images(args.images))
    result = calibrate_intrinsics(images, args.name, args.model)
    folder = _folder(args.out)
    if result.verdict.grade is not Grade.REFUSE:
        write_camera_info(folder / f"{args.name}.yaml", result.info)
    report = {**result.to_dict(), **_found(images)}
    write_figure(
        folder / f"{args.name}_report.png",
        f"Intrinsics of {args.name}",
        report,
        result.image_rms_px,
        result.residuals,
        images.size,
    )
    text = (
        f"focal length {report['focal_px'][0]:.2f}, {report['focal_px'][1]:.2f} px "
        f"(+- {result.focal_std_px:.2f}), error {result.rms_px:.3f} px"
    )
    return _finish(args, folder / f"{args.name}_report.json", report, result.verdict, text)


def _stereo(args: argparse.Namespace) -> int:
    board = _printed_board(args)
    images = [find_boards(board, list_images(path)) for path in (args.left, args.right)]
    lenses = [
        _lens(path, own, side)
        for path, own, side in zip((args.left_info, args.right_info), images, ("left", "right"))
    ]
    result = calibrate_stereo(images[0], images[1], *(info for info, _ in lenses))
    folder = _folder(args.out)
    if result.verdict.grade is not Grade.REFUSE:
        write_camera_info(folder / "left.yaml", result.left)
        write_camera_info(folder / "right.yaml", result.right)
    report: dict[str, Any] = result.to_dict()
    for side, (_, intrinsics) in zip(("left", "right"), lenses):
        if intrinsics is not None:
            report[side] = intrinsics.to_dict()
    write_figure(
        folder / "stereo_report.png",
        "Stereo pair (row differences after rectification)",
        report,
        result.pair_epipolar_px,
        result.residuals,
        result.left.size,
    )
    text = (
        f"baseline {1e3 * result.baseline_m:.2f} mm, epipolar error "
        f"{report['epipolar_rms_px']:.3f} px (largest {report['epipolar_max_px']:.2f})"
    )
    return _finish(args, folder / "stereo_report.json", report, result.verdict, text)


def _lens(
    path: Path | None, images: BoardImages, side: str
) -> tuple[CameraInfo, IntrinsicsResult | None]:
    if path is not None:
        return read_camera_info(path), None
    try:
        result = calibrate_intrinsics(images, side)
    except ConfigError as error:
        raise ConfigError(f"{side} camera: {error}") from None
    return result.info, result


def _record(args: argparse.Namespace) -> int:
    return calibrate_record.run(args, read_board(args.board))


def _hand_eye(args: argparse.Namespace) -> int:
    board, info = _printed_board(args), read_camera_info(args.camera_info)
    samples = read_samples(args.samples, board)
    check_sizes({args.camera_info.name: info.size, "the images": samples.images.size})
    result = calibrate_hand_eye(samples.poses, board, info, samples.setup)
    verdict = judge(result)
    folder = _folder(args.out)
    extrinsics = _extrinsics(args, samples, result, verdict)
    report = {**to_dict(result, verdict), **_found(samples.images)}
    command = static_transform_command(extrinsics)
    if verdict.grade is not Grade.REFUSE:
        write_extrinsics(folder / "extrinsics.yaml", extrinsics)
        launch = folder / "static_transform.launch.py"
        launch.write_text(static_transform_launch(extrinsics))
        report["static_transform"] = command
    write_figure(
        folder / "hand_eye_report.png",
        f"Hand-eye calibration, {samples.setup.value}",
        report,
        report["image_rms_px"],
        result.residuals,
        samples.images.size,
    )
    x, y, z = extrinsics.xyz_m
    text = (
        f"{extrinsics.parent} -> {extrinsics.child}: {x:.4f} {y:.4f} {z:.4f} m "
        f"(+- {result.position_std_mm:.1f} mm, {result.rotation_std_deg:.2f} degrees), "
        f"error {result.rms_px:.2f} px over {len(result.used)} poses\n{command}"
    )
    return _finish(args, folder / "hand_eye_report.json", report, verdict, text)


def _extrinsics(
    args: argparse.Namespace, samples: SampleSet, result: HandEyeResult, verdict: Verdict
) -> Extrinsics:
    x, y, z = result.camera[:3, 3].tolist()
    try:
        return Extrinsics(
            parent=samples.parent,
            child=args.child,
            xyz_m=(x, y, z),
            quaternion_xyzw=ros_quaternion(result.camera),
            stamp=stamp_of(datetime.now(timezone.utc)),
            setup=samples.setup.value,
            rms_px=result.rms_px,
            samples=len(result.used),
            samples_sha256=samples.sha256,
            robot=samples.robot.name,
            robot_sha256=samples.robot.sha256,
            position_std_mm=result.position_std_mm,
            rotation_std_deg=result.rotation_std_deg,
            verdict=verdict.grade,
        )
    except ValueError as error:
        raise ConfigError(f"--child {args.child}: {' '.join(str(error).split())}") from None


def _compare(args: argparse.Namespace) -> int:
    task = read_manifest(args.bundle).task
    extrinsics = read_extrinsics(args.extrinsics)
    now = datetime.now(timezone.utc)
    extrinsics.check(now, 86400 * args.max_age_days)
    info = None if args.camera_info is None else read_camera_info(args.camera_info)
    deviations = compare_pose(extrinsics, task, info)
    if info is not None:
        deviations += compare_lens(info, task)
    if args.right_info is not None:
        deviations += compare_pair(read_camera_info(args.right_info), task)
    outside = outside_of_training(deviations)
    report = {
        "inside": not outside,
        "age_days": extrinsics.age_s(now) / 86400,
        "deviations": [each.to_dict() for each in deviations],
    }
    lines = [f"{'ok  ' if each.is_inside else 'OUT '} {each}" for each in deviations]
    _show(args, report, "\n".join(lines))
    if outside and not args.allow_outside:
        print(f"dexgrasp calibrate compare: {outside}, or give --allow-outside", file=sys.stderr)
        return OUTSIDE
    return 0


def _self_test(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="dexgrasp_calibrate_") as folder:
        report = run_self_test(Path(folder))
    lines = [
        f"{name:11}  {'ok' if part['ok'] else 'FAILED'}  "
        + ", ".join(
            f"{key} {value:.4g}" for key, value in part.items() if isinstance(value, float)
        )
        for name, part in report.items()
        if isinstance(part, dict) and "ok" in part
    ]
    _show(args, report, "\n".join(lines))
    return 0 if report["ok"] else REFUSED


_PARTS = {
    "board": _board,
    "intrinsics": _intrinsics,
    "stereo": _stereo,
    "record": _record,
    "hand-eye": _hand_eye,
    "compare": _compare,
}


def _printed_board(args: argparse.Namespace) -> BoardConfig:
    bar_m = None if args.scale_bar_mm is None else args.scale_bar_mm / 1e3
    return read_board(args.board, bar_m)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror}; give another folder") from None
    return path


def _found(images: BoardImages) -> dict[str, Any]:
    return {"not_found": {name: miss.value for name, miss in images.misses.items()}}


def _finish(
    args: argparse.Namespace, path: Path, report: Mapping[str, Any], verdict: Verdict, text: str
) -> int:
    """Writes and shows the report; the exit code."""
    path.write_text(json.dumps(report, indent=1) + "\n")
    missed = len(report.get("not_found", {}))
    lines = [text]
    if missed:
        lines.append(f"the board was not found in {missed} images, see {path}")
    if report["rejected"]:
        lines.append(f"left out, because they do not fit: {', '.join(report['rejected'])}")
    lines += [f"  {reason}" for reason in verdict.reasons]
    lines.append(f"verdict: {verdict.grade.value}; report in {path.parent}")
    _show(args, report, "\n".join(lines))
    return REFUSED if verdict.grade is Grade.REFUSE else 0


def _show(args: argparse.Namespace, report: Mapping[str, Any], text: str) -> None:
    print(json.dumps(report) if args.json else text)
