"""Faults of processes: signals of all kinds, readers that leave, streams that are closed."""

import json
import signal
from functools import partial
from pathlib import Path

from benchmarks.fault_kinds.case import (
    INTERRUPTED,
    Case,
    Outcome,
    Running,
    run,
    train,
)

_ENDLESS = "--set=training.iterations=1000000"
_ONE = "--set=training.iterations=1"
_STREAMS = {
    "its reader leaves": '"$@" | true; exit ${PIPESTATUS[0]}',
    "its readers leave": '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}',
    "stdout is closed": '"$@" >&-',
    "stderr is closed": '"$@" 2>&-',
    "all streams are closed": '"$@" <&- >&- 2>&-',
    "stdout is on a full disk": '"$@" >/dev/full',
    "stderr is on a full disk": '"$@" 2>/dev/full',
}
_BACKGROUND = (signal.SIGINT, signal.SIGQUIT)
"""What a shell that runs a script ignores in its background commands."""


def process_cases() -> dict[str, Case]:
    """The cases by name."""
    cases: dict[str, Case] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        name = signal.Signals(number).name
        cases[f"train, {name}"] = partial(_signal, f"train, {name}", number)
        fault = f"train, {name} to the group"
        cases[fault] = partial(_signal, fault, number, to_group=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        fault = f"train in the background of a script, {signal.Signals(number).name}"
        cases[fault] = partial(_signal, fault, number, ignored=_BACKGROUND)
    cases["train, SIGINT while it starts"] = _interrupt_start
    for name, shell in _STREAMS.items():
        for command, arguments in (
            ("inspect", ["inspect", "robot", "--json"]),
            ("train", train(_ONE, "--set=simulators.transport=in_process")),
        ):
            fault = f"{command}, {name}"
            cases[fault] = partial(_stream, fault, arguments, shell)
    cases["train, killed and resumed"] = _kill
    return cases


def _start(folder: Path) -> tuple[list[str], Path]:
    """A training without an end, and its folder of runs."""
    runs = folder / "runs"
    return train("--runs", str(runs), _ENDLESS, "--set=simulators.num_workers=2"), runs


def _signal(
    fault: str,
    number: int,
    folder: Path,
    to_group: bool = False,
    ignored: tuple[int, ...] = (),
) -> Outcome:
    """A signal must end a training with a checkpoint of the last iteration."""
    arguments, runs = _start(folder)
    with Running(arguments, folder, ignored) as training:
        training.wait_for(lambda: [*runs.glob("*/checkpoints/latest")])
        outcome = training.end(fault, number, to_group, expected=(INTERRUPTED,))
    sound = "replaced" not in outcome.said and _is_saved(runs)
    return Outcome(fault, outcome.code, outcome.said, (INTERRUPTED,), sound)


def _is_saved(runs: Path) -> bool:
    """Whether the newest checkpoint is that of the last record."""
    (folder,) = runs.iterdir()
    state = json.loads((folder / "checkpoints" / "latest" / "state.json").read_text())
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return state["iteration"] == last["iteration"]


def _interrupt_start(folder: Path) -> Outcome:
    """There is nothing to save yet."""
    arguments, runs = _start(folder)
    with Running(arguments, folder) as training:
        training.wait_for(lambda: [*runs.glob("*/config.yaml")])
        fault = "train, SIGINT while it starts"
        return training.end(fault, signal.SIGINT, to_group=True, expected=(INTERRUPTED,))


def _stream(fault: str, arguments: list[str], shell: str, folder: Path) -> Outcome:
    runs = ["--runs", str(folder / "runs")] if arguments[0] == "train" else []
    return run(fault, [*arguments, *runs], shell)


def _kill(folder: Path) -> Outcome:
    """What SIGKILL leaves is resumed without loss."""
    arguments, runs = _start(folder)
    with Running(arguments, folder) as training:
        training.wait_for(lambda: [*runs.glob("*/checkpoints/latest")])
        training.end("train, killed", signal.SIGKILL)
    (made,) = runs.iterdir()
    done = json.loads((made / "checkpoints" / "latest" / "state.json").read_text())["iteration"]
    more = f"--set=training.iterations={done + 1}"
    return run("train, killed and resumed", ["train", "--resume", str(made), "--json", more])
