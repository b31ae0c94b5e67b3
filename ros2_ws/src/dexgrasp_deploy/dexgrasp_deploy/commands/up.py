"""`dexgrasp up`: starts the nodes of a launch plan without `ros2 launch`, and stops them all."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dexgrasp_deploy.parameter_file import with_parameter_file
from dexgrasp_deploy.processes import EPISODE_NODE, deploy_nodes, episode_node
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.arguments import add_json, add_overrides, add_seed, whole
from dexgrasp_sim.bringup import NodeFailed, NodeGroup, NodeSpec, free_domain_id
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.ros_environment import ros_environment
from dexgrasp_sim.ros_settings import find_problems

_START_S = 120.0
"""Time for discovery, imports and the compilation of image kernels on a slow computer."""
_EPISODE_MARGIN_S = 300.0
"""An episode may take this much longer than its policy acts: it puts down what it holds, goes home
and waits for the next object. What takes longer than it should, `episode_node` notices itself."""
_INTERRUPTED = 130
_CHECKPOINT_S = 300.0
"""A learner that is stopped finishes its iteration and writes a checkpoint."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp up`."""
    modes = parser.add_subparsers(dest="mode", required=True, metavar="{mock,sim,train}")
    for mode, text in (
        ("mock", "a bundle on drivers without physics"),
        ("sim", "a bundle on the simulated twin, in real time"),
    ):
        deploy = modes.add_parser(mode, help=text)
        deploy.add_argument("--bundle", type=Path, required=True, help="policy bundle folder")
        deploy.add_argument(
            "--episodes",
            type=whole(0),
            default=0,
            help="episodes to run (0: until Ctrl-C)",
        )
        add_seed(deploy, 0, "the simulated world")
        deploy.add_argument(
            "--shadow", action="store_true", help="compute and show all, command nothing"
        )
        deploy.add_argument("--record", type=Path, help="folder for recordings")
        deploy.add_argument("--params", type=Path, help="ROS parameter file on top")
        add_json(deploy)
    train = modes.add_parser("train", help="a training run with its ROS nodes")
    train.add_argument("--config", type=Path, help="run configuration")
    train.add_argument("--resume", type=Path, help="run folder to continue")
    train.add_argument("--runs", type=Path, default=Path("runs"), help="parent of run folders")
    train.add_argument("--run-id", default="", help="name of the run; empty: config name and time")
    train.add_argument("--env-index", type=whole(0), default=0, help="environment to look at")
    add_overrides(train)
    add_json(train)


def run(args: argparse.Namespace) -> int:
    """Starts the plan; ends when its work is done, a node dies or a stop signal comes.

    Returns:
        0; 1 when a node died or did not finish in time; 130 after SIGINT,
        SIGTERM or SIGHUP before the work was done.
    """
    code, result = _train(args) if args.mode == "train" else _deploy(args)
    if code == 0 and args.json:
        print(json.dumps(result))
    return code


def _deploy(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    manifest = read_manifest(args.bundle)
    nodes = deploy_nodes(
        args.mode, args.bundle, seed=args.seed, shadow=args.shadow, record=args.record
    )
    if args.params is not None:
        nodes = with_parameter_file(nodes, args.params)
    if not args.episodes:
        return _bring_up(nodes)
    nodes.append(episode_node(args.mode, args.bundle, args.episodes, args.json))
    timeout_s = _START_S + args.episodes * (3 * manifest.task.episode_s + _EPISODE_MARGIN_S)
    return _bring_up(nodes, EPISODE_NODE, timeout_s)


def _train(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    # imported here: it is not needed to deploy
    from dexgrasp_learner.run.processes import LEARNER, train_nodes

    nodes = train_nodes(
        args.config, args.run_id, args.runs, args.resume, args.overrides, args.env_index
    )
    nodes = [
        replace(node, stop_s=_CHECKPOINT_S) if node.name == LEARNER else node for node in nodes
    ]
    return _bring_up(nodes, LEARNER, others_may_end=True)


def _bring_up(
    nodes: Sequence[NodeSpec],
    worker: str | None = None,
    timeout_s: float | None = None,
    others_may_end: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON result of the worker; arguments as for `NodeGroup.wait`."""
    environment = ros_environment()
    if "ROS_DOMAIN_ID" not in environment:
        environment["ROS_DOMAIN_ID"] = str(free_domain_id())
    print(f"ROS_DOMAIN_ID={environment['ROS_DOMAIN_ID']}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="dexgrasp_up_") as folder:
        environment.setdefault("ROS_LOG_DIR", str(Path(folder) / "log"))
        if problems := find_problems(environment):
            raise ConfigError(problems[0])
        try:
            with NodeGroup(nodes, environment, Path(folder)) as group:
                return 0, group.wait(worker, timeout_s, others_may_end)
        except NodeFailed as error:
            print(f"dexgrasp up: {error}", file=sys.stderr)
            return 1, {}
        except KeyboardInterrupt:
            return (_INTERRUPTED if worker else 0), {}
