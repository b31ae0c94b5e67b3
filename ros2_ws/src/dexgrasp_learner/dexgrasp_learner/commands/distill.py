"""`dexgrasp distill`: trains a student with other observations to act like its teacher."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dexgrasp_learner.commands.train import add_arguments as add_train_arguments
from dexgrasp_learner.commands.train import supervise
from dexgrasp_sim.config import ConfigError

if TYPE_CHECKING:
    from dexgrasp_learner.algorithms.distillation import Distillation
    from dexgrasp_learner.config import RunConfig
    from dexgrasp_learner.ranks.peers import Peers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp distill`."""
    add_train_arguments(parser)
    parser.add_argument(
        "--teacher", type=Path, required=True, help="run or checkpoint folder of the teacher"
    )


def run(args: argparse.Namespace) -> int:
    """Distils; exit codes as for `dexgrasp train`."""
    return supervise(args, partial(_build, args.teacher))


def _build(teacher_path: Path, config: "RunConfig", peers: "Peers") -> "Distillation":
    from dexgrasp_learner.run.assembly import build_distillation
    from dexgrasp_learner.storage.checkpoint import load_actor

    teacher, teacher_config, _ = load_actor(teacher_path)
    if teacher_config.task.action != config.task.action:
        raise ConfigError(
            f"--teacher {teacher_path}: its `task.action` differs from the student's; "
            "use the same for both"
        )
    return build_distillation(config, teacher, peers)
