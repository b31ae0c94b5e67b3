"""Faults of files: truncated, missing, copied, unreadable or unwritable."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.fault_kinds.case import Case, Outcome, Running, run, train

_ITERATIONS = 2
_MORE = f"--set=training.iterations={_ITERATIONS + 1}"
Damage = Callable[[Path], None]
"""Damages a copy of a run folder."""


def make_run(folder: Path) -> Path:
    """Trains a little; every case damages a copy of the run.

    Raises:
        RuntimeError: The training failed.
    """
    arguments = train("--runs", str(folder), f"--set=training.iterations={_ITERATIONS}")
    made = run("none", [*arguments, "--set=simulators.transport=in_process"])
    if made.code:
        raise RuntimeError(f"the run to be damaged could not be made:\n{made.said}")
    (run_folder,) = folder.iterdir()
    return run_folder


def file_cases(made: Path) -> dict[str, Case]:
    """The cases by name.

    Args:
        made: A sound run folder.
    """
    cases: dict[str, Case] = {}
    for name, damage in _damages(made).items():
        cases[f"resume, {name}"] = partial(_resume, f"resume, {name}", made, damage)
    for name in ("actor.safetensors", "state.json"):
        damage = partial(_truncate, f"checkpoints/latest/{name}")
        fault = f"evaluate, truncated {name}"
        cases[fault] = partial(_evaluate, fault, made, damage)
    cases["resume, two at once"] = partial(_resume_twice, made)
    cases["resume, a disk that takes no more"] = partial(_resume_full, made)
    cases["export, a disk that takes no more"] = partial(_export, made, "ulimit -f 8; ")
    cases["export, a place that cannot be written"] = partial(_export, made, "")
    return cases


def _damages(made: Path) -> dict[str, Damage]:
    """A damage for each file of a checkpoint, and those of whole folders."""
    newest = made / "checkpoints" / "latest"
    damages: dict[str, Damage] = {}
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        name = path.relative_to(newest).as_posix()
        damages[f"truncated {name}"] = partial(_truncate, f"checkpoints/latest/{name}")
        damages[f"missing {name}"] = partial(_remove, f"checkpoints/latest/{name}")
    whole: dict[str, Damage] = {
        "empty training.pt": partial(_empty, "checkpoints/latest/training.pt"),
        "state.json without a key": _drop_key,
        "truncated config.yaml": partial(_truncate, "config.yaml"),
        "truncated metrics.jsonl": partial(_truncate, "metrics.jsonl"),
        "missing latest": partial(_remove, "checkpoints/latest"),
        "missing checkpoints": lambda run: shutil.rmtree(run / "checkpoints"),
        "links replaced by copies": lambda run: None,
    }
    return damages | whole


def _newest(run_folder: Path, name: str) -> Path:
    return run_folder / "checkpoints" / "latest" / name


def _truncate(name: str, run_folder: Path) -> None:
    os.truncate(run_folder / name, (run_folder / name).stat().st_size // 2)


def _empty(name: str, run_folder: Path) -> None:
    os.truncate(run_folder / name, 0)


def _remove(name: str, run_folder: Path) -> None:
    (run_folder / name).unlink()


def _drop_key(run_folder: Path) -> None:
    path = _newest(run_folder, "state.json")
    state = json.loads(path.read_text())
    state.pop("adr")
    path.write_text(json.dumps(state))


def _copy(fault: str, made: Path, folder: Path) -> Path:
    follows = fault.endswith("links replaced by copies")
    return Path(shutil.copytree(made, folder / made.name, symlinks=not follows))


def _resume(fault: str, made: Path, damage: Damage, folder: Path) -> Outcome:
    copy = _copy(fault, made, folder)
    damage(copy)
    return run(fault, ["train", "--resume", str(copy), "--json", _MORE])


def _evaluate(fault: str, made: Path, damage: Damage, folder: Path) -> Outcome:
    copy = _copy(fault, made, folder)
    damage(copy)
    return run(fault, ["evaluate", str(copy), "--episodes", "1", "--json"])


def _resume_twice(made: Path, folder: Path) -> Outcome:
    """The second owner of a run folder has to be refused, and the first one goes on."""
    copy = _copy("", made, folder)
    endless = ["train", "--resume", str(copy), "--json", "--set=training.iterations=1000000"]
    metrics = copy / "metrics.jsonl"
    with Running(endless, folder) as first:
        first.wait_for(lambda: metrics.read_text().count("\n") > _ITERATIONS)
        second = run("resume, two at once", ["train", "--resume", str(copy), _MORE], expected=())
        ended = first.end("the first", signal.SIGTERM)
    sound = ended.code == 130 and _counts_up(metrics)
    return Outcome(second.fault, second.code, second.said, (), sound)


def _counts_up(metrics: Path) -> bool:
    """Whether every iteration is recorded once."""
    records: Iterator[str] = iter(metrics.read_text().splitlines())
    iterations = [json.loads(line)["iteration"] for line in records]
    return iterations == list(range(1, len(iterations) + 1))


def _resume_full(made: Path, folder: Path) -> Outcome:
    """A limit on the size of files is like a full disk: checkpoints are refused by the system."""
    copy = _copy("", made, folder)
    before = sorted(path.name for path in (copy / "checkpoints").iterdir())
    arguments = ["train", "--resume", str(copy), "--json", _MORE]
    outcome = run("resume, a disk that takes no more", arguments, 'ulimit -f 8; "$@"')
    after = sorted(path.name for path in (copy / "checkpoints").iterdir())
    return Outcome(outcome.fault, outcome.code, outcome.said, sound=after == before)


def _export(made: Path, limit: str, folder: Path) -> Outcome:
    """After a failed export there is neither a bundle nor a part of one."""
    out = folder / "out" / "bundle" if limit else Path("/proc/dexgrasp/bundle")
    arguments = ["export", str(made), "--out", str(out)]
    fault = f"export, {'a disk that takes no more' if limit else 'a place that cannot be written'}"
    outcome = run(fault, arguments, f'{limit}"$@"')
    left = [*out.parent.iterdir()] if out.parent.is_dir() else []
    return Outcome(fault, outcome.code, outcome.said, (), sound=not left)
