"""`dexgrasp distill`: a student that sees other things learns what its teacher would do."""

import argparse
from pathlib import Path

from dexgrasp_learner.train import add_arguments as add_train_arguments
from dexgrasp_learner.train import read_config, supervise
from dexgrasp_sim.config import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `dexgrasp --help`."""
    add_train_arguments(parser)
    parser.add_argument("--teacher", type=Path, required=True, help="run or checkpoint folder")


def run(args: argparse.Namespace) -> int:
    """Distils; exit codes as for `dexgrasp train`."""
    from dexgrasp_learner.checkpoint import load_actor
    from dexgrasp_learner.runner import build_distillation

    config = read_config(args)
    teacher, teacher_config, _ = load_actor(args.teacher)
    if teacher_config.task.action != config.task.action:
        raise ConfigError(
            f"--teacher {args.teacher}: acts otherwise than the student's `task.action`; "
            "give both the same"
        )
    return supervise(args, config, build_distillation(config, teacher))
