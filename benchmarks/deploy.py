"""`dexgrasp bench deploy`: the control loop of a simulated robot, all nodes over DDS.

The nodes are those of `dexgrasp up sim`: drivers with physics in real time, camera, policy. The
policy is a small one of random weights at 60 Hz; what it does to the robot does not matter here.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.deploy_fault_kinds.case import write_small_bundle
from dexgrasp_sim.arguments import number
from dexgrasp_sim.config import STRICT, ConfigError, parse_config

Positive = Annotated[float, Field(gt=0)]
_START_S = 600.0


@dataclass(frozen=True, config=STRICT)
class DeployConfig:
    """What is measured.

    Attributes:
        seconds: How long the policy acts.
        control_hz: Control rate of the small policy.
    """

    seconds: Positive = 60.0
    control_hz: Positive = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench deploy`."""
    parser.add_argument(
        "--seconds",
        type=number(above=0.0, most=3600.0),
        default=60.0,
        help="time that the policy acts",
    )
    parser.add_argument(
        "--control-hz", type=number(1.0, 1000.0), default=60.0, help="rate of the small policy"
    )
    parser.add_argument("--params", type=Path, help="ROS parameter file on top of the defaults")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: `control_hz`, `steps`, `deadline_misses` and their share, `ended`, and
    `latency`: p50, p90, p99 and max in ms of each stage, with `image to command`.

    Raises:
        ConfigError: An argument is not allowed, or the nodes did not run.
    """
    values = {"seconds": args.seconds, "control_hz": args.control_hz}
    config = parse_config(DeployConfig, values, source="bench deploy")
    with tempfile.TemporaryDirectory(prefix="dexgrasp_bench_deploy_") as folder:
        bundle = write_small_bundle(Path(folder) / "bundle", config.control_hz, config.seconds)
        result = _run(bundle, config.seconds, args.params)
    (outcome,) = result["outcomes"]
    steps, misses = outcome["steps"], result["deadline_misses"]
    latency = result["latency"] or {"stages": {}}
    figures = {
        "steps": steps,
        "control_hz": result["control_hz"],
        "deadline_misses": misses,
        "deadline_misses_share": round(misses / steps, 5) if steps else None,
        "ended": outcome["ended"],
        "latency": {
            name: {key: value for key, value in stage.items() if key != "histogram"}
            for name, stage in latency["stages"].items()
        },
    }
    return {**values, "nodes": ["robot_driver_node", "camera_node", "policy_node"]}, figures


def _run(bundle: Path, seconds: float, params: Path | None) -> dict[str, Any]:
    """The JSON of `dexgrasp up sim` with one episode."""
    command = [sys.executable, "-m", "dexgrasp_deploy.commands.cli", "up", "sim", "--json"]
    more = ["--params", str(params)] if params else []
    done = subprocess.run(
        [*command, "--bundle", str(bundle), "--episodes", "1", *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_START_S + seconds,
    )
    if done.returncode:
        raise ConfigError(f"dexgrasp up ended with exit code {done.returncode}, see above")
    return json.loads(done.stdout.splitlines()[-1])
