"""How a policy came about: what its run folder says about its training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from dexgrasp_learner.storage.checkpoint_files import ACTOR, STATE, find_checkpoint, iteration_of
from dexgrasp_sim.config import STRICT

METRICS_FILE = "metrics.jsonl"

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True, config=STRICT)
class Origin:
    """The training of a policy; None and "" where its run folder does not tell.

    Attributes:
        run: Name of the run folder.
        commit: Of the source tree that trained it.
        started: Date and time of the start.
        cpu: Processor of the learner's machine.
        cores: How many of them.
        gpu: Its GPU, None without.
        algorithm: "PPO" or "distillation".
        iteration: Updates at the checkpoint.
        env_steps: Control periods over all environments until then.
        minutes: Wall time until then, over all parts of a resumed run.
        cpu_minutes: CPU time until then, of the learner and of the simulators on its machine.
        note: What else one must know, such as the teacher of a student; from who exported it.
    """

    run: str = ""
    commit: str = ""
    started: str = ""
    cpu: str = ""
    cores: int | None = None
    gpu: str | None = None
    algorithm: str = ""
    iteration: int | None = None
    env_steps: int | None = None
    minutes: float | None = None
    cpu_minutes: float | None = None
    note: str = ""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a run's `metrics.jsonl`; lines that a crash has spoiled are left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [record for record in map(_parsed, lines) if "iteration" in record]


def read_origin(checkpoint: Path) -> tuple[Origin, list[dict[str, Any]]]:
    """The origin of a checkpoint's policy, and the records of the run until then.

    Args:
        checkpoint: Run folder or checkpoint folder.
    """
    found = find_checkpoint(checkpoint, (STATE, ACTOR))
    folder, iteration = found.parent.parent, iteration_of(found)
    record = _run_record(folder / "run.json")
    metrics = folder / METRICS_FILE
    records = read_metrics(metrics) if metrics.is_file() else []
    records = [entry for entry in records if entry["iteration"] <= (iteration or 0)]
    hardware = record.get("hardware", {})
    origin = Origin(
        run=folder.name,
        commit=record.get("commit", ""),
        started=record.get("started", ""),
        cpu=hardware.get("cpu", ""),
        cores=hardware.get("cores"),
        gpu=hardware.get("gpu"),
        algorithm=_algorithm(records),
        iteration=iteration,
        env_steps=_steps(records),
        minutes=total(records, "run/minutes"),
        cpu_minutes=total(records, "run/cpu_minutes"),
    )
    return origin, records


def total(records: Records, key: str) -> float | None:
    """Sum over the parts of a run of a figure that each part counts from 0 again; None without."""
    values = [record[key] for record in records if record.get(key) is not None]
    if not values:
        return None
    ends = [now for now, after in zip(values, [*values[1:], 0.0], strict=True) if after < now]
    return round(sum(ends), 2)


def _algorithm(records: Records) -> str:
    if not records:
        return ""
    return "distillation" if "update/imitation" in records[-1] else "PPO"


def _steps(records: Records) -> int | None:
    steps = records[-1].get("run/env_steps") if records else None
    return None if steps is None else int(steps)


def _run_record(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text())
    except OSError:
        return {}


def _parsed(text: str) -> dict[str, Any]:
    """The object that a text holds, an empty one if it holds none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
