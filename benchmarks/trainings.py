"""Trainings as users start them, judged on episodes that the trainings never drew."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from benchmarks import CHECKOUT

JUDGING_SEED = 2_000_003
"""Seeds of the judging episodes begin here; evaluations of a run begin at 1,000,003."""
_SLOWEST_S = 7200.0


@dataclass(frozen=True)
class Ended:
    """What a `dexgrasp` command printed as JSON, and the CPU time of all its processes."""

    result: dict[str, Any]
    cpu_s: float


def dexgrasp(*words: str) -> Ended:
    """Runs a command to its end; RuntimeError with its last words if it fails or hangs."""
    command = [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *words, "--json"]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=messages)
        limit = Timer(_SLOWEST_S, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        messages.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: {messages.read()[-500:]}")
        result = json.loads(output.read().splitlines()[-1])
    return Ended(result, usage.ru_utime + usage.ru_stime)


def train_and_judge(
    preset: Path, seed: int, episodes: int, overrides: Sequence[str]
) -> dict[str, Any]:
    """A training and the success of what it exports.

    Args:
        preset: Config of the run.
        seed: Of the run.
        episodes: By which it is judged.
        overrides: `KEY=VALUE` of the config.

    Returns:
        `seed`, `steps` of all environments, `minutes` and `cpu_s` with start and evaluations, the
        figures of `progress` and of `judge`.
    """
    with tempfile.TemporaryDirectory() as runs:
        options = [part for text in (f"seed={seed}", *overrides) for part in ("--set", text)]
        began_s = time.monotonic()
        training = dexgrasp("train", str(preset), "--runs", runs, *options)
        minutes = (time.monotonic() - began_s) / 60
        folder = Path(training.result["run_dir"])
        return {
            "seed": seed,
            "steps": training.result["env_steps"],
            "minutes": round(minutes, 2),
            "cpu_s": round(training.cpu_s, 1),
            **progress(folder),
            **judge(folder, seed, episodes),
        }


def progress(folder: Path) -> dict[str, Any]:
    """The last exploring success and position error of a run, and its `curve` of evaluations.

    A point of the curve: environment steps, success, minutes, CPU minutes of all processes.
    """
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {
        "exploring_success": records[-1].get("episode/success"),
        "estimate_error_m": records[-1].get("update/estimate_error"),
        "curve": [
            [
                int(record["run/env_steps"]),
                record["evaluation/success_rate"],
                round(record["run/minutes"], 2),
                round(record["run/cpu_minutes"], 2),
            ]
            for record in records
            if "evaluation/success_rate" in record
        ],
    }


def judge(folder: Path, seed: int, episodes: int) -> dict[str, Any]:
    """Success of a run's policy with its 95 % interval, per object, and with swapped images."""
    words = ["evaluate", str(folder), "--threads", "1", "--seed", str(JUDGING_SEED + seed)]
    result = dexgrasp(*words, "--episodes", str(episodes)).result
    figures = {
        "success": result["success_rate"],
        "interval": [result["success_low"], result["success_high"]],
        "per_object": {name: item["success_rate"] for name, item in result["per_object"].items()},
    }
    if result["swapped_images"]:
        figures["success_with_swapped_images"] = result["swapped_images"]["success_rate"]
    return figures
