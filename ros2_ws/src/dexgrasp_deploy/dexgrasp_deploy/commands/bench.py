"""`dexgrasp bench NAME`: runs a benchmark and writes its figures as JSON."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

from dexgrasp_sim.arguments import add_json
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.ros_environment import WorkspaceError, find_workspace_root

BENCHMARKS = (
    "batch_size",
    "capacity",
    "capacity_costs",
    "deploy",
    "deploy_faults",
    "distillation",
    "equivalence",
    "faults",
    "gpu_capacity",
    "gpu_learner",
    "gpu_sim",
    "gpu_train",
    "gpu_transport",
    "host_work",
    "learner",
    "learning",
    "parity",
    "pipeline",
    "randomization",
    "rollout",
    "scripted",
    "sim",
    "teachers",
    "transport",
    "visibility",
    "wide",
)
"""Modules of `benchmarks/`: `add_arguments(parser)`, `measure(args) -> (settings, figures)`, and
`result_name(args)` if the file is not named like the benchmark."""

_RECORDS = Path("benchmarks") / "results"
_SCRATCH = Path("runs") / "bench"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench`.

    Raises:
        ConfigError: There is no checkout; benchmarks are not installed.
    """
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name in BENCHMARKS:
        benchmark = _load(name)
        summary = (benchmark.__doc__ or "").strip().splitlines()[0]
        command = commands.add_parser(name, help=summary, description=benchmark.__doc__)
        command.add_argument(
            "--out", type=Path, default=_SCRATCH, help=f"folder for the JSON (default {_SCRATCH})"
        )
        command.add_argument(
            "--record", action="store_true", help=f"write to {_RECORDS} of this checkout instead"
        )
        add_json(command)
        benchmark.add_arguments(command)


def run(args: argparse.Namespace) -> int:
    """Measures one benchmark, writes its file and prints the figures."""
    benchmark = _load(args.benchmark)
    settings, figures = benchmark.measure(args)
    name = benchmark.result_name(args) if hasattr(benchmark, "result_name") else args.benchmark
    folder = _checkout() / _RECORDS if args.record else args.out
    path = _load("result").write_result(folder, name, settings, figures)
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name}: {value}")
        print(f"written to {path}")
    return 0


def _load(name: str) -> ModuleType:
    """A module of the checkout's `benchmarks/`."""
    root = str(_checkout())
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(f"benchmarks.{name}")


def _checkout() -> Path:
    try:
        return find_workspace_root()
    except WorkspaceError as error:
        raise ConfigError(f"benchmarks are not installed, they need a checkout: {error}") from None
