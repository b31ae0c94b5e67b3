"""`dexgrasp up`: starts the nodes of a launch plan without `ros2 launch`, and stops them all."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from dexgrasp_deploy.launch_plan import deploy_nodes, episode_node, with_parameter_file
from dexgrasp_learner.bundle import read_manifest
from dexgrasp_sim.bringup import NodeFailed, NodeGroup, NodeSpec, free_domain_id
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.ros_environment import ros_environment

_START_S = 120.0
"""Discovery, imports and the compilation of image kernels on a slow computer."""
_EPISODE_MARGIN_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp up`."""
    modes = parser.add_subparsers(dest="mode", required=True, metavar="{mock,sim,train}")
    for mode, text in (
        ("mock", "a bundle on drivers that only obey"),
        ("sim", "a bundle on the simulated twin, in real time"),
    ):
        deploy = modes.add_parser(mode, help=text)
        deploy.add_argument("--bundle", type=Path, required=True, help="policy bundle folder")
        deploy.add_argument(
            "--episodes", type=int, default=0, help="run so many, then stop (0: until Ctrl-C)"
        )
        deploy.add_argument("--seed", type=int, default=0, help="seed of the simulated world")
        deploy.add_argument("--params", type=Path, help="ROS parameter file on top")
        deploy.add_argument("--json", action="store_true", help="print one JSON line at the end")
    train = modes.add_parser("train", help="a training run with its ROS nodes")
    train.add_argument("--config", type=Path, required=True, help="run configuration")
    train.add_argument("--run-id", default="", help="name of the run; empty: made up")
    train.add_argument("--json", action="store_true", help="print one JSON line at the end")


def run(args: argparse.Namespace) -> int:
    """Starts the plan; ends when its work is done, a node dies or Ctrl-C is pressed.

    Returns:
        0, or 1 when a node died or did not finish in time.
    """
    if args.mode == "train":
        # imported here: deploying must not need what training needs
        plan = import_module("dexgrasp_learner.launch_plan")
        return _bring_up(
            plan.train_nodes(args.config, args.run_id), "learner_node", None, args.json
        )
    if args.episodes < 0:
        raise ConfigError(f"--episodes {args.episodes}: must not be negative")
    manifest = read_manifest(args.bundle)
    nodes = deploy_nodes(args.mode, args.bundle, seed=args.seed)
    if args.params is not None:
        nodes = with_parameter_file(nodes, args.params)
    if not args.episodes:
        return _bring_up(nodes, None, None, args.json)
    nodes.append(episode_node(args.mode, args.bundle, args.episodes))
    timeout_s = _START_S + args.episodes * (manifest.task.episode_s + _EPISODE_MARGIN_S)
    return _bring_up(nodes, "episode_node", timeout_s, args.json)


def _bring_up(
    nodes: Sequence[NodeSpec], worker: str | None, timeout_s: float | None, as_json: bool
) -> int:
    environment = ros_environment()
    if "ROS_DOMAIN_ID" not in environment:
        environment["ROS_DOMAIN_ID"] = str(free_domain_id())
    print(f"ROS_DOMAIN_ID={environment['ROS_DOMAIN_ID']}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="dexgrasp_up_") as folder:
        environment.setdefault("ROS_LOG_DIR", os.path.join(folder, "log"))
        try:
            with NodeGroup(nodes, environment, Path(folder)) as group:
                result = group.wait(worker, timeout_s)
        except NodeFailed as error:
            print(f"dexgrasp up: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
    if as_json or result:
        print(json.dumps(result))
    return 0
