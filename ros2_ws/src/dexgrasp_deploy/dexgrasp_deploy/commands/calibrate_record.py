"""`dexgrasp calibrate record`: samples from a robot that a person moves."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

from dexgrasp_deploy.calibration.board import BoardConfig
from dexgrasp_deploy.calibration.hand_eye import Setup
from dexgrasp_deploy.calibration.hand_eye_verdict import GOOD_POSES, GOOD_SPREAD_DEG
from dexgrasp_deploy.calibration.recording import Recorder, Taken, record
from dexgrasp_deploy.drivers.base import ArmDriver, CameraDriver, Driver, DriverContext
from dexgrasp_deploy.drivers.registry import make_driver
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.arguments import whole
from dexgrasp_sim.config import ConfigError, read_values
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, load_robot

Kind = TypeVar("Kind", bound=Driver)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp calibrate record`."""
    parser.add_argument("--arm", required=True, help="driver: built-in name or module:Class")
    parser.add_argument("--camera", required=True, help="driver of a colour or infrared camera")
    parser.add_argument("--params", type=Path, help="YAML: parameters of `arm` and `camera`")
    parser.add_argument("--bundle", type=Path, help="policy bundle, where a driver needs one")
    parser.add_argument("--robot", default=DEFAULT_ROBOT, help="name or robot.yaml")
    parser.add_argument(
        "--setup",
        choices=[each.value for each in Setup],
        required=True,
        help="where the camera is",
    )
    parser.add_argument(
        "--count", type=whole(1, 10_000), default=20, help="samples to take (default 20)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the samples")


def run(args: argparse.Namespace, board: BoardConfig) -> int:
    """Records until there are enough samples or Ctrl-C is pressed; moves nothing.

    Raises:
        ConfigError: A driver, its parameters or what it measures is wrong.
    """
    if args.count < 1:
        raise ConfigError(f"--count {args.count}: must be positive")
    robot = load_robot(args.robot)
    manifest = None if args.bundle is None else read_manifest(args.bundle)
    context = DriverContext(robot, time.monotonic, manifest)
    parameters = {} if args.params is None else read_values(args.params)
    arm = _driver("arm", args.arm, ArmDriver, context, parameters)
    camera = _driver("camera", args.camera, CameraDriver, context, parameters)
    recorder = Recorder(args.out, Setup(args.setup), robot, board)
    taken = Taken(None, 0, (0.0, 0.0, 0.0))
    print("move the arm by hand and let it stand still; Ctrl-C ends", file=sys.stderr)
    try:
        camera.activate()
        for taken in record(arm, camera, recorder, time.monotonic, time.sleep):
            print(_progress(taken), file=sys.stderr)
            if taken.count >= args.count:
                break
    except KeyboardInterrupt:
        pass
    finally:
        camera.deactivate()
    report = {"samples": taken.count, "spread_deg": list(taken.spread_deg), "out": str(args.out)}
    text = f"{taken.count} samples in {args.out}; go on with `dexgrasp calibrate hand-eye`"
    print(json.dumps(report) if args.json else text)
    return 0


def _driver(
    kind: str, name: str, base: type[Kind], context: DriverContext, parameters: dict[str, Any]
) -> Kind:
    driver = make_driver(kind, name)
    assert isinstance(driver, base), "make_driver checks it"
    own = parameters.get(kind, {})
    if not isinstance(own, dict):
        raise ConfigError(f"--params: `{kind}` = {own!r}: must be a mapping of parameters")
    driver.configure(context, own)
    return driver


def _progress(taken: Taken) -> str:
    if taken.miss is not None:
        return f"not taken: {taken.miss.value}"
    first, second, _ = taken.spread_deg
    enough = taken.count >= GOOD_POSES and second >= GOOD_SPREAD_DEG
    return (
        f"{taken.count} samples (at least {GOOD_POSES}), turned by {first:.0f} and {second:.0f} "
        f"degrees about two axes (at least {GOOD_SPREAD_DEG:.0f}){', enough' if enough else ''}"
    )
