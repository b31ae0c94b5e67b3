"""`dexgrasp distill`: trains a student with other observations to act like its teacher."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dexgrasp_learner.commands.train import add_arguments as add_train_arguments
from dexgrasp_learner.commands.train import supervise

if TYPE_CHECKING:
    from dexgrasp_learner.algorithms.distillation import Distillation
    from dexgrasp_learner.config import RunConfig
    from dexgrasp_learner.ranks.peers import Peers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp distill`."""
    add_train_arguments(parser)
    parser.add_argument(
        "--teacher",
        type=Path,
        required=True,
        help="run, checkpoint or bundle of the teacher, which may read the state or images",
    )


def run(args: argparse.Namespace) -> int:
    """Distils; exit codes as for `dexgrasp train`."""
    return supervise(args, partial(_build, args.teacher))


def _build(teacher: Path, config: "RunConfig", peers: "Peers") -> "Distillation":
    from dexgrasp_learner.run.assembly import build_distillation
    from dexgrasp_learner.run.teachers import load_teacher

    return build_distillation(config, load_teacher(teacher, config), peers)
