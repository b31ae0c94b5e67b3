"""`dexgrasp evaluate`: success rate of a policy on new episodes, acting without noise."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.evaluation.episodes import (
    choose_objects,
    evaluate,
    evaluate_actor,
    scripted_policy,
)
from dexgrasp_learner.evaluation.figures import Evaluation, as_text
from dexgrasp_learner.run.assembly import fresh_actor
from dexgrasp_learner.storage.checkpoint import load_actor, policy_schema
from dexgrasp_learner.storage.history import warn_of_changed_files
from dexgrasp_sim.arguments import (
    add_config,
    add_json,
    add_seed,
    number,
    whole,
)
from dexgrasp_sim.config import ConfigError, replace, with_overrides
from dexgrasp_sim.objects.sets import OBJECT_SETS
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_WITHOUT_RUN = ("scripted", "untrained")
"""Policies that have no config of their own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp evaluate`."""
    parser.add_argument("policy", help="`scripted`, `untrained`, or a run or checkpoint folder")
    add_config(parser, "run config with the task (default: a checkpoint's own, else the default)")
    parser.add_argument(
        "--episodes", type=whole(1), default=200, help="episodes to measure (default 200)"
    )
    parser.add_argument(
        "--objects",
        metavar="SET",
        help=f"{', '.join(OBJECT_SETS)}, or names of the config's objects with commas between",
    )
    parser.add_argument(
        "--difficulty",
        type=number(0.0, 1.0),
        help="difficulty of the task's schedules, 0 to 1 (default: the config's)",
    )
    add_seed(parser, 2_000_003, "the episodes")
    parser.add_argument(
        "--threads", type=whole(1, 1024), default=2, help="CPU threads of the simulation"
    )
    parser.add_argument(
        "--device", default="cpu", help="where the environments compute: cpu, cuda or cuda:K"
    )
    parser.add_argument(
        "--swap-images", action="store_true", help="each environment sees another's images"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints the figures."""
    if args.swap_images and args.episodes < 2:
        raise ConfigError("--swap-images needs at least --episodes 2, to swap between")
    if args.overrides and not args.config and args.policy in _WITHOUT_RUN:
        raise ConfigError(f"--set {args.overrides[0]}: changes a value of --config; give one")
    result = _evaluate_named(args)
    if args.json:
        print(json.dumps(asdict(result)))
        return 0
    print(as_text(result))
    return 0


def _evaluate_named(args: argparse.Namespace) -> Evaluation:
    torch.set_num_threads(1)
    if args.policy not in _WITHOUT_RUN:
        return _evaluate_checkpoint(args)
    config = load_run_config(args.config, args.overrides) if args.config else RunConfig()
    task = _chosen_task(config.task, args)
    names = ("episodes", "seed", "threads", "device")
    common = {name: getattr(args, name) for name in names}
    if args.policy == "scripted":
        return evaluate("scripted", scripted_policy, task, (), show_progress=True, **common)
    return evaluate_actor(
        fresh_actor(config), task, name="untrained", show_progress=True, **common
    )


def _evaluate_checkpoint(args: argparse.Namespace) -> Evaluation:
    actor, config, _ = load_actor(Path(args.policy))
    if args.config or args.overrides:
        schema = policy_schema(actor, config.task)
        if args.config:
            config = load_run_config(args.config, args.overrides)
        else:
            config = with_overrides(config, args.overrides)
        if policy_schema(actor, config.task) != schema:
            source = f"--config {args.config}" if args.config else "--set"
            raise ConfigError(
                f"{source}: {args.policy} was trained for other observations; "
                "use the camera and the action of the run's config.yaml"
            )
    warn_of_changed_files(Path(args.policy), config)
    return evaluate_actor(
        actor,
        _chosen_task(config.task, args),
        episodes=args.episodes,
        seed=args.seed,
        threads=args.threads,
        device=args.device,
        swap_images=args.swap_images,
        name="swapped images" if args.swap_images else "trained",
        show_progress=True,
    )


def _chosen_task(config: GraspConfig, args: argparse.Namespace) -> GraspConfig:
    if args.objects is not None:
        config = choose_objects(config, args.objects)
    return config if args.difficulty is None else replace(config, difficulty=args.difficulty)
