"""`dexgrasp bench faults`: faults of workers, files and processes, and what becomes of them.

`workers` is one training run whose simulator workers are killed and stopped, see
`fault_kinds/workers.py`. `files` and `processes` are commands that meet a damaged file, a full
disk, a signal or a reader that leaves; such a fault is handled if the command goes on and ends
well, or refuses in one line with the exit code 1 or 2, and in both cases shows no traceback.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.fault_kinds import workers
from benchmarks.fault_kinds.case import Case, Outcome
from benchmarks.fault_kinds.files import file_cases, make_run
from benchmarks.fault_kinds.processes import process_cases
from dexgrasp_sim.config import ConfigError

KINDS = ("workers", "files", "processes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench faults`."""
    parser.add_argument("--kinds", default=",".join(KINDS), help="with commas between")
    parser.add_argument("--only", default="", help="cases with this text in their name")
    workers.add_arguments(parser)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `injected`, `survived_or_refused` and `tracebacks` count the faults of all kinds; `survived`
    and the other figures are those of the workers, see `measure_workers`. `cases` is what became
    of each fault of files and processes.

    Raises:
        ConfigError: An argument is out of range.
    """
    kinds = args.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        raise ConfigError(f"--kinds {', '.join(sorted(unknown))}: must be of {', '.join(KINDS)}")
    settings: dict[str, Any] = {"kinds": kinds}
    figures: dict[str, Any] = {"injected": 0, "survived": 0}
    if "workers" in kinds:
        own, figures = workers.measure_workers(args)
        settings |= own
    with tempfile.TemporaryDirectory(prefix="dexgrasp_faults_") as folder:
        outcomes = list(_outcomes(kinds, args.only, Path(folder)))
    counts = {
        "injected": figures["injected"] + len(outcomes),
        "survived_or_refused": figures["survived"] + sum(case.handled for case in outcomes),
        "tracebacks": sum(case.traceback for case in outcomes),
    }
    return settings, {**figures, **counts, "cases": [case.as_dict() for case in outcomes]}


def _outcomes(kinds: list[str], only: str, folder: Path) -> Iterator[Outcome]:
    """Injects the faults of files and processes, one after the other."""
    cases: dict[str, Case] = {}
    if "files" in kinds:
        cases |= file_cases(make_run(folder / "made"))
    if "processes" in kinds:
        cases |= process_cases()
    chosen = {name: case for name, case in cases.items() if only in name}
    for number, (name, case) in enumerate(
        tqdm(chosen.items(), desc="bench faults", unit="fault", disable=None)
    ):
        own = folder / f"case_{number}"
        own.mkdir()
        outcome = case(own)
        assert outcome.fault == name
        yield outcome
