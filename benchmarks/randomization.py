"""`dexgrasp bench randomization`: what each randomization costs the scripted teacher, alone.

A curriculum whose end a teacher that knows the object's pose does not survive teaches nothing. So
each schedule of the task goes to its end while all others stay at their beginning. The teacher
reads the simulation: errors of measurements cost it nothing and are not asked for.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.evaluation.episodes import choose_objects, evaluate, scripted_policy
from dexgrasp_sim.arguments import add_overrides, add_seed, number, whole
from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.schedules import current_ranges
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_PHYSICAL = ("randomization.", "latency.action_delay_s", "action.")
"""Beginnings of the names of schedules that a teacher without sensors notices."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench randomization`."""
    parser.add_argument(
        "--config", type=Path, default=Path("config/paper.yaml"), help="YAML file with the task"
    )
    add_overrides(parser)
    parser.add_argument(
        "--parameters",
        nargs="+",
        metavar="NAME",
        help="schedules of the task, such as randomization.friction_scale, or none, all "
        "(default: none of them, each of them, all)",
    )
    parser.add_argument(
        "--difficulties",
        nargs="+",
        type=number(0.0, 1.0),
        default=[1.0],
        metavar="LEVEL",
        help="how far along the schedules, 0 to 1 (default 1)",
    )
    parser.add_argument("--objects", default="primitives", metavar="SET", help="set of objects")
    parser.add_argument("--episodes", type=whole(1), default=36, help="episodes of each")
    add_seed(parser, 2_000_003, "the episodes")
    parser.add_argument("--threads", type=whole(1, 1024), default=2, help="CPU threads")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: for each parameter and level its range and the teacher's success."""
    torch.set_num_threads(1)
    task = choose_objects(load_run_config(args.config, args.overrides).task, args.objects)
    figures: dict[str, Any] = {}
    for name, level, chosen in _cases(task, args.parameters, args.difficulties):
        result = evaluate(
            f"{name} {level:g}",
            scripted_policy,
            chosen,
            (),
            args.episodes,
            args.seed,
            args.threads,
            show_progress=True,
        )
        figures.setdefault(name, []).append(
            {
                "level": level,
                "range": current_ranges(chosen, level).get(name),
                "success_rate": result.success_rate,
                "success_low": result.success_low,
                "success_high": result.success_high,
                "drop_rate": result.drop_rate,
            }
        )
    settings = {
        "config": str(args.config),
        "objects": args.objects,
        "episodes": args.episodes,
        "seed": args.seed,
    }
    return settings, {"parameters": figures}


def physical_schedules(task: GraspConfig) -> tuple[str, ...]:
    """Names of the schedules that change with the difficulty and act on the physics."""
    first, last = current_ranges(task, 0.0), current_ranges(task, 1.0)
    changing = (name for name, end in last.items() if end != first[name])
    return tuple(name for name in changing if name.startswith(_PHYSICAL))


def only(task: GraspConfig, names: Sequence[str], level: float) -> GraspConfig:
    """The task at a difficulty that only the named schedules follow; others keep their beginning.

    Args:
        task: The task.
        names: As `physical_schedules` gives them.
        level: The difficulty.
    """
    values = to_dict(task)
    for name in physical_schedules(task):
        if name not in names:
            *folders, key = name.split(".")
            place = values
            for folder in folders:
                place = place[folder]
            place[key] = {**place[key], "final": place[key]["initial"]}
    return parse_config(GraspConfig, {**values, "difficulty": level}, source="task")


def _cases(
    task: GraspConfig, parameters: Sequence[str] | None, levels: Sequence[float]
) -> Iterator[tuple[str, float, GraspConfig]]:
    """Name, level and task of each measurement."""
    known = physical_schedules(task)
    groups = {"none": (), "all": known, **{name: (name,) for name in known}}
    for name in parameters or ("none", *known, "all"):
        if name not in groups:
            raise ConfigError(f"--parameters {name}: give some of {', '.join(groups)}")
        for level in (0.0,) if name == "none" else levels:
            yield name, level, only(task, groups[name], level)
