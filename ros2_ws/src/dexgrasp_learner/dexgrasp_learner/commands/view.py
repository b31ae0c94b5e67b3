"""`dexgrasp view`: a web page with robot, scene and images of a policy, a training or a robot."""

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from dexgrasp_sim.arguments import add_config, add_seed, whole
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.ros_environment import ros_environment
from dexgrasp_sim.ros_settings import LAST_DOMAIN, find_problems

if TYPE_CHECKING:
    from dexgrasp_learner.config import RunConfig
    from dexgrasp_sim.tasks.grasp.config import GraspConfig
    from dexgrasp_sim.view.source import Source

_RUNS = Path("runs")
_ROBOT_VIEWER = "dexgrasp_sim.nodes.robot_viewer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp view`."""
    add_config(parser, "run config whose task to show (default: that of --run, else the default)")
    parser.add_argument(
        "--policy", default="scripted", help="`scripted` (default), or a run or checkpoint folder"
    )
    parser.add_argument(
        "--run", metavar="RUN_ID", help="watch a training that runs on this host instead"
    )
    parser.add_argument(
        "--robot",
        action="store_true",
        help="show the robot of a deployment, live from its ROS topics; waits until there is one",
    )
    parser.add_argument(
        "--domain",
        type=whole(0, LAST_DOMAIN),
        help="with --robot: its ROS domain (default: $ROS_DOMAIN_ID, else the first one of this "
        "host that has a robot)",
    )
    parser.add_argument(
        "--namespace", default="", help="with --robot: the ROS namespace of its nodes"
    )
    parser.add_argument(
        "--env", type=whole(0), default=0, help="environment to show first (default 0)"
    )
    parser.add_argument(
        "--envs", type=whole(1, 1024), default=4, help="environments to step (default 4)"
    )
    add_seed(parser, 0, "the episodes")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address of the page; 0.0.0.0: open to other machines (default 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        default=8080,
        help="port of the page; 0: any that is free (default 8080)",
    )


def run(args: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C or the end of the watched run; returns the exit code.

    Raises:
        ConfigError: A wrong argument or config, or there is no such run, checkpoint or address.
    """
    if args.robot:
        _become_robot_viewer(args)
    for name in ("domain", "namespace"):
        if getattr(args, name) not in (None, ""):
            raise ConfigError(f"--{name} {getattr(args, name)}: only with --robot")
    from dexgrasp_sim.view.viewer import Viewer

    if args.overrides and not args.config:
        raise ConfigError(f"--set {args.overrides[0]}: changes a value of --config; give one")
    torch.set_num_threads(1)
    source, task = _watched_run(args) if args.run else _own_environments(args)
    with Viewer(source, task, args.host, args.port) as viewer:
        print(f"{source.name}: open {viewer.url} in a browser; Ctrl-C ends", flush=True)
        try:
            viewer.run(threading.Event())
        except KeyboardInterrupt:
            return 0
    print(f"run {source.name} has ended", file=sys.stderr)
    return 0


def _become_robot_viewer(args: argparse.Namespace) -> NoReturn:
    """Replaces this process, because the libraries of ROS are found at a process's start only.

    Raises:
        ConfigError: Another thing to show is named too, or ROS is not set up.
    """
    for name in ("run", "config"):
        if getattr(args, name):
            raise ConfigError(f"--{name} {getattr(args, name)}: not with --robot; choose one")
    if args.policy != "scripted":
        raise ConfigError(f"--policy {args.policy}: not with --robot; choose one")
    environment = ros_environment()
    if problems := find_problems(environment):
        raise ConfigError(problems[0])
    if args.domain is None and environment.get("ROS_DOMAIN_ID"):
        args.domain = int(environment["ROS_DOMAIN_ID"])
    options = ["--host", args.host, "--port", str(args.port), "--namespace", args.namespace]
    if args.domain is not None:
        options += ["--domain", str(args.domain)]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", _ROBOT_VIEWER, *options], environment)


def _watched_run(args: argparse.Namespace) -> "tuple[Source, GraspConfig]":
    from dexgrasp_sim.transport.shared_memory import live_runs
    from dexgrasp_sim.view.run_source import RunSource

    if args.run not in live_runs():
        known = ", ".join(live_runs()) or "none"
        raise ConfigError(f"--run {args.run}: does not run on this host; there are: {known}")
    own = _RUNS / args.run / "config.yaml"
    if args.config is None and not own.is_file():
        raise ConfigError(
            f"--run {args.run}: there is no {own} here; say --config with the run's config.yaml"
        )
    task = _load(args.config or own, args).task
    return RunSource(args.run, task, args.env), task


def _own_environments(args: argparse.Namespace) -> "tuple[Source, GraspConfig]":
    from dexgrasp_learner.config import RunConfig
    from dexgrasp_learner.evaluation.episodes import actor_policy, scripted_policy
    from dexgrasp_learner.storage.checkpoint import load_actor
    from dexgrasp_sim.view.env_source import EnvSource

    if not args.env < args.envs:
        raise ConfigError(f"--env {args.env}: there are --envs {args.envs}, counted from 0")
    if args.policy == "scripted":
        name, groups, make_policy = "scripted policy", (), scripted_policy
        config = _load(args.config, args) if args.config else RunConfig()
    else:
        if args.config:
            raise ConfigError(f"--config {args.config}: a checkpoint brings its own; leave it out")
        actor, config, _ = load_actor(Path(args.policy))
        name, groups, make_policy = args.policy, actor.groups, actor_policy(actor)
    source = EnvSource(name, config.task, make_policy, groups, args.envs, args.seed, args.env)
    return source, config.task


def _load(path: Path, args: argparse.Namespace) -> "RunConfig":
    from dexgrasp_learner.config import load_run_config

    return load_run_config(path, args.overrides)
