"""`dexgrasp train`: one learner, its simulator workers, a progress bar and a run folder."""

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dexgrasp_sim.arguments import LONGEST_S, add_json, add_overrides, number
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.stop_signals import stop_signals

if TYPE_CHECKING:
    from dexgrasp_learner.algorithms.algorithm import Algorithm
    from dexgrasp_learner.config import RunConfig
    from dexgrasp_learner.ranks.peers import Peers
    from dexgrasp_learner.run.control import RunControl, RunSummary

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp train`."""
    parser.add_argument("config", type=Path, nargs="?", help="YAML file of the run")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="run folder to continue, or one of its checkpoints to go back to",
    )
    parser.add_argument(
        "--allow-changed-files",
        action="store_true",
        help="resume even if a mesh or robot file is not the one that the run began with",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="parent of run folders")
    add_overrides(parser)
    add_json(parser)
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of the ranks that torchrun starts; they average their gradients",
    )
    parser.add_argument(
        "--peer-timeout-s",
        type=number(above=0.0, most=LONGEST_S),
        default=300.0,
        help="a rank counts as lost if others wait for it longer than this (default 300 s)",
    )


def run(args: argparse.Namespace) -> int:
    """Trains; 0 when done, 1 after a lost process or a non-finite loss, 130 after a stop signal.

    SIGINT, SIGTERM and SIGHUP (the terminal is closed) end it after the present iteration with a
    checkpoint; before the first iteration is done they end it at once. A second Ctrl-C ends it
    without a checkpoint.
    """
    from dexgrasp_learner.run.assembly import build_ppo

    return supervise(args, build_ppo)


def read_config(args: argparse.Namespace) -> "RunConfig":
    """The config named on the command line, or that of the run to resume.

    Raises:
        ConfigError: Neither is given, or a value is not allowed.
    """
    from dexgrasp_learner.config import load_run_config
    from dexgrasp_learner.storage.checkpoint_files import run_folder_of
    from dexgrasp_learner.storage.history import load_settings

    if args.resume and args.config:
        raise ConfigError(
            f"{args.config} and --resume {args.resume}: a resumed run has its own config; leave "
            "the file out and change single values with --set"
        )
    if args.resume:
        return load_settings(run_folder_of(args.resume), args.overrides)
    if args.config:
        return load_run_config(args.config, args.overrides)
    raise ConfigError("nothing to train: give a config file, or --resume with a run folder")


def supervise(
    args: argparse.Namespace, build: Callable[["RunConfig", "Peers"], "Algorithm"]
) -> int:
    """Runs the algorithm that `build` makes, handles signals, and prints the result.

    Returns:
        The exit code.
    """
    from dexgrasp_learner.algorithms.guards import NonFiniteLoss
    from dexgrasp_learner.pool.worker_connection import WorkerDied
    from dexgrasp_learner.pool.worker_group import WorkerTimeout
    from dexgrasp_learner.ranks.peers import PeerLost, Peers, PeersDiffer, connect_peers
    from dexgrasp_learner.run.control import RunControl
    from dexgrasp_learner.timing import time_table

    control, peers = RunControl(), Peers()
    try:
        if args.distributed:
            peers = connect_peers(args.peer_timeout_s)
        summary = _train(args, build, control, peers)
    except (WorkerDied, WorkerTimeout, NonFiniteLoss, PeerLost, PeersDiffer, OSError) as error:
        print(f"dexgrasp: {error}", file=sys.stderr)
        print(f"checkpoint: {control.status.checkpoint or 'none'}", file=sys.stderr)
        return 1
    finally:
        peers.close()
    if peers.rank > 0:
        return INTERRUPTED if control.stopping else 0
    print(time_table(summary.seconds, summary.worker_seconds), file=sys.stderr)
    if args.json:
        print(summary_json(summary))
    else:
        print(f"run folder: {summary.run_dir}\ncheckpoint: {summary.checkpoint}")
    return INTERRUPTED if control.stopping else 0


def _train(
    args: argparse.Namespace,
    build: Callable[["RunConfig", "Peers"], "Algorithm"],
    control: "RunControl",
    peers: "Peers",
) -> "RunSummary":
    """Runs from reading the config to the end of training."""
    from dexgrasp_learner.run.agreement import rank_folder, shared_config
    from dexgrasp_learner.run.initial_weights import take_initial_weights
    from dexgrasp_learner.run.runner import Runner
    from dexgrasp_learner.storage.checkpoint_files import run_folder_of

    resume = args.resume and run_folder_of(args.resume)
    if args.distributed and resume != args.resume:
        raise ConfigError(
            f"--resume {args.resume}: several learners go on from their newest checkpoints only; "
            f"say --resume {resume}"
        )
    config = shared_config(peers, partial(read_config, args))
    algorithm = build(config, peers)
    if not resume and peers.rank == 0:  # the others get the nets of rank 0
        take_initial_weights(algorithm, config)
    folder = rank_folder(peers, resume, args.runs, config)
    first = peers.rank == 0
    with stop_signals(partial(_ask_to_stop, control)):
        runner = Runner(config, folder, algorithm, control, show_progress=first)
        try:
            if resume:
                path = folder if resume == args.resume else args.resume
                runner.resume(path, args.allow_changed_files)
            if peers.rank == 0:
                print(where_figures_are(folder), file=sys.stderr)
            return runner.run()
        finally:
            runner.close()


def _ask_to_stop(control: "RunControl") -> None:
    """Ends the run after the present iteration, or at once if none is done yet.

    Raises:
        KeyboardInterrupt: There is nothing to save.
    """
    from dexgrasp_learner.run.control import RunState

    control.stop()
    if control.status.state is RunState.STARTING:
        raise KeyboardInterrupt
    with suppress(OSError):  # not print: this may interrupt another print
        os.write(2, b"\nstopping after this iteration, with a checkpoint\n")


def where_figures_are(folder: Path) -> str:
    """One line that says where a run writes its figures, and how to see their curves."""
    command = shlex.join(["tensorboard", "--logdir", str(folder)])
    return f"figures: {folder / 'metrics.jsonl'}, one JSON object per iteration; curves: {command}"


def summary_json(summary: "RunSummary") -> str:
    """One JSON object, with null for NaN, which JSON does not have."""
    return json.dumps(
        {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(summary).items()
        }
    )
