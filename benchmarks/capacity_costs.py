"""`dexgrasp bench capacity_costs`: the memory that simulating and learning take on a device.

Processes of a few sizes are measured, and straight lines are fitted to the measurements.
`dexgrasp plan-capacity --costs FILE` plans with the result.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.capacity_probes.calibrate import calibrate
from dexgrasp_learner.run.assembly import learner_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench capacity_costs`."""
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to measure"
    )
    parser.add_argument(
        "--network", type=Path, metavar="CONFIG", help="YAML of the run whose nets and task to use"
    )


def result_name(args: argparse.Namespace) -> str:
    """One file for each device."""
    return f"capacity_costs_{args.device}"


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: `costs`, see `Costs`, and `fits`, the measurements of each line.

    Raises:
        ConfigError: The device is not there, or the config is wrong.
        RuntimeError: A process failed.
    """
    learner_device(args.device)
    settings = {"device": args.device, "network": str(args.network) if args.network else None}
    return settings, calibrate(args.network, args.device)
