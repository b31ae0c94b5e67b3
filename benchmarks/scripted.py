"""`dexgrasp bench scripted`: success of the scripted teacher on the paper's task.

It uses the same eleven action dimensions as a policy but knows where the object is. The result
shows what the action space and the physics allow without learning.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.evaluation.episodes import choose_objects, evaluate, scripted_policy
from dexgrasp_sim.arguments import add_seed, whole

STARTS = {
    "spawn_center": [],
    "whole_spawn": [
        "task.randomization.spawn_width_scale.initial=[1, 1]",
        "task.randomization.spawn_tilt_rad.initial=[3.14159, 3.14159]",
    ],
}
"""Name to config overrides: dropped at the centre, or anywhere and in any orientation."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench scripted`."""
    parser.add_argument(
        "--config", type=Path, default=Path("config/paper.yaml"), help="YAML file with the task"
    )
    parser.add_argument(
        "--objects",
        nargs="+",
        default=["primitives", "train", "held_out"],
        metavar="SET",
        help="sets of objects",
    )
    parser.add_argument("--episodes", type=whole(1), default=240, help="episodes of each set")
    add_seed(parser, 2_000_003, "the episodes")
    parser.add_argument("--threads", type=whole(1), default=2, help="CPU threads")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: for each start and set of objects what `dexgrasp evaluate` gives."""
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for start, overrides in STARTS.items():
        task = load_run_config(args.config, overrides).task
        for name in args.objects:
            result = evaluate(
                f"{start}, {name}",
                scripted_policy,
                choose_objects(task, name),
                (),
                args.episodes,
                args.seed,
                args.threads,
                show_progress=True,
            )
            figures[f"{start}_{name}"] = asdict(result)
    settings = {"config": str(args.config), "episodes": args.episodes, "seed": args.seed}
    return settings, figures
