"""`dexgrasp bench capacity_costs`: the memory that simulating and learning take on a device.

Processes of a few sizes are measured, and straight lines are fitted to the measurements.
`dexgrasp plan-capacity --costs FILE` plans with the result.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.capacity_probes.calibrate import Sizes, calibrate
from dexgrasp_learner.run.assembly import learner_device
from dexgrasp_sim.arguments import parse_resolution, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench capacity_costs`."""
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to measure"
    )
    parser.add_argument(
        "--network", type=Path, metavar="CONFIG", help="YAML of the run whose nets and task to use"
    )
    parser.add_argument(
        "--backend", help="physics.backend; default: mujoco on the CPU, else mujoco_warp"
    )
    usual = Sizes()
    images = [f"{width}x{height}" for width, height in usual.images]
    parser.add_argument(
        "--images",
        nargs="+",
        default=images,
        metavar="WIDTHxHEIGHT",
        help="sizes of images, WIDTHxHEIGHT",
    )
    parser.add_argument(
        "--simulated",
        type=whole(0),
        nargs="+",
        default=usual.simulated,
        help="environments in the simulator's measurements",
    )
    parser.add_argument(
        "--inferred",
        type=whole(0),
        nargs="+",
        default=usual.inferred,
        help="environments in the measurements of inference",
    )
    parser.add_argument(
        "--learned",
        type=whole(0),
        nargs="+",
        default=usual.learned,
        help="samples in the measurements of updates",
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
    sizes = Sizes(
        images=tuple(map(parse_resolution, args.images)),
        simulated=tuple(args.simulated),
        inferred=tuple(args.inferred),
        learned=tuple(args.learned),
    )
    backend = args.backend or ("mujoco" if args.device == "cpu" else "mujoco_warp")
    settings = {
        "device": args.device,
        "backend": backend,
        "network": str(args.network) if args.network else None,
        **asdict(sizes),
    }
    return settings, calibrate(args.network, args.device, backend, sizes)
