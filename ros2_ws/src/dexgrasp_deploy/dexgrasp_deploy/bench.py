"""`dexgrasp bench NAME`: measures side by side in one run and writes JSON."""

import argparse
import importlib
import json
from pathlib import Path

BENCHMARKS = {
    "capacity": "dexgrasp_learner.benchmarks.capacity",
    "equivalence": "dexgrasp_learner.benchmarks.equivalence",
    "faults": "dexgrasp_learner.benchmarks.faults",
    "gpu_transport": "dexgrasp_learner.benchmarks.gpu_transport",
    "learner": "dexgrasp_learner.benchmarks.learner",
    "pipeline": "dexgrasp_learner.benchmarks.pipeline",
    "rollout": "dexgrasp_learner.benchmarks.rollout",
    "scripted": "dexgrasp_learner.benchmarks.scripted",
    "sim": "dexgrasp_learner.benchmarks.sim",
    "transport": "dexgrasp_learner.benchmarks.transport",
}
"""Name to a module with `add_arguments(parser)` and `measure(args) -> (settings, figures)`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `dexgrasp bench --help`."""
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        benchmark = importlib.import_module(module)
        command = commands.add_parser(name, description=benchmark.__doc__)
        command.add_argument(
            "--out", type=Path, default=Path("benchmarks/results"), help="folder for the JSON"
        )
        command.add_argument("--json", action="store_true", help="last line is one JSON object")
        benchmark.add_arguments(command)


def run(args: argparse.Namespace) -> int:
    """Measures one benchmark, writes its file and prints the figures."""
    from dexgrasp_learner.benchmarks.result import write_result

    benchmark = importlib.import_module(BENCHMARKS[args.benchmark])
    settings, figures = benchmark.measure(args)
    path = write_result(args.out, args.benchmark, settings, figures)
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name}: {value}")
        print(f"written to {path}")
    return 0
