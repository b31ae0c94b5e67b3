"""`dexgrasp bench wide`: policies of the wide task on fresh episodes, with controls and curves.

Each policy acts by its mean at full difficulty: on the objects it was trained with, on the
held-out ones, and, if it sees images, with the images of another environment.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dexgrasp_learner.evaluation.episodes import choose_objects, evaluate_actor
from dexgrasp_learner.storage.checkpoint import load_actor
from dexgrasp_sim.arguments import add_seed, number, whole
from dexgrasp_sim.config import replace
from dexgrasp_sim.tasks.grasp.observations import image_groups

_CURVE = {
    "steps": "run/env_steps",
    "exploring_success": "episode/success",
    "evaluation_success": "evaluation/success_rate",
    "estimate_error_m": "update/estimate_error",
    "difficulty": "adr/level",
    "kl": "update/kl",
    "learning_rate": "update/learning_rate",
}
"""Name in the result to that in the records of a run."""
_CURVE_EVALUATION = _CURVE["evaluation_success"]
_POINTS = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench wide`."""
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of the wide task")
    parser.add_argument("--episodes", type=whole(2), default=400, help="episodes of each figure")
    parser.add_argument(
        "--difficulty", type=number(0.0, 1.0), default=1.0, help="of the task (default 1)"
    )
    add_seed(parser, 2_000_003, "the episodes")
    parser.add_argument("--threads", type=whole(1, 1024), default=2, help="CPU threads")
    parser.add_argument(
        "--figure", type=Path, metavar="PNG", help="draw the curves of the runs to this file"
    )
    parser.add_argument(
        "--machine", default="", help="a sentence about the load of the machine, for the record"
    )


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: for each run its evaluations, its time and its curve."""
    torch.set_num_threads(1)
    figures = {}
    for run in args.runs:
        actor, config, _ = load_actor(run)
        task = replace(config.task, difficulty=args.difficulty)
        sees = any(group in image_groups() for group in actor.groups)
        cases = {"train": ("train", False), "held_out": ("held_out", False)}
        if sees:
            cases["swapped_images"] = ("train", True)
        found = {}
        for name, (objects, swap) in cases.items():
            result = evaluate_actor(
                actor,
                choose_objects(task, objects),
                args.episodes,
                args.seed,
                args.threads,
                swap,
                f"{config.name}, {name}",
                show_progress=True,
            )
            found[name] = asdict(result)
        figures[config.name] = {**found, "training": training_record(run)}
    if args.figure:
        draw({name: policy["training"]["curve"] for name, policy in figures.items()}, args.figure)
    settings = {
        "episodes": args.episodes,
        "difficulty": args.difficulty,
        "seed": args.seed,
        "machine": args.machine,
    }
    return settings, {"policies": figures}


def training_record(run: Path) -> dict[str, Any]:
    """Steps, minutes, settings and curve of a run.

    Minutes are those in which it trained, evaluations included, resumes and set-up not.
    """
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    history = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    every = max(len(records) // _POINTS, 1)
    shown = [r for r in records if r["iteration"] % every == 0 or _CURVE_EVALUATION in r]
    curve = {
        name: [None if r.get(key) is None else round(r[key], 5) for r in shown]
        for name, key in _CURVE.items()
    }
    return {
        "env_steps": int(records[-1]["run/env_steps"]),
        "iterations": records[-1]["iteration"],
        "minutes": round(minutes_of(records), 1),
        "history": [json.loads(line) for line in history],
        "curve": curve,
    }


def minutes_of(records: list[dict[str, Any]]) -> float:
    """Minutes of rollouts, updates and evaluations, from the records of the iterations."""
    total_s, before = 0.0, 0.0
    for record in records:
        steps, before = record["run/env_steps"] - before, record["run/env_steps"]
        total_s += steps / record["run/env_steps_per_s"] + (record.get("time/evaluation") or 0.0)
    return total_s / 60


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws success, difficulty and the error of the estimate over the steps of runs as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    success, error = figure.subplots(1, 2)
    for name, curve in curves.items():
        millions = [steps / 1e6 for steps in curve["steps"]]
        evaluated = [
            (x, y) for x, y in zip(millions, curve["evaluation_success"]) if y is not None
        ]
        (line,) = success.plot(*zip(*evaluated), marker="o", label=name)
        color = line.get_color()
        success.plot(millions, curve["exploring_success"], color=color, alpha=0.4)
        success.plot(millions, curve["difficulty"], color=color, linestyle=":")
        if any(value is not None for value in curve["estimate_error_m"]):
            centimetres = [None if v is None else 100 * v for v in curve["estimate_error_m"]]
            error.plot(millions, centimetres, color=color)
    success.set(
        title="success: mean action (dots), exploring (pale); difficulty (dotted)",
        xlabel="million steps",
        ylim=(0, 1),
    )
    error.set(title="error of the estimated position, cm", xlabel="million steps", ylim=(0, None))
    for axes in (success, error):
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
