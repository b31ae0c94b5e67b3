"""`dexgrasp demo`: the whole process on one computer, from training to a robot over ROS."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dexgrasp_sim.arguments import (
    LONGEST_S,
    add_json,
    add_overrides,
    number,
    whole,
)

_ROBOT_TIMEOUT_S = 180.0
_EVALUATION_SEED = 3_000_017
"""Neither training nor its own evaluations draw from this seed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp demo`."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/laptop_depth.yaml"),
        help="YAML file of the run (default config/laptop_depth.yaml)",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the report")
    parser.add_argument(
        "--minutes",
        type=number(above=0.0, most=LONGEST_S / 60.0),
        default=8.0,
        help="longest training time (default 8)",
    )
    parser.add_argument(
        "--episodes", type=whole(1), default=200, help="episodes of each evaluation (default 200)"
    )
    parser.add_argument(
        "--robot-episodes",
        type=whole(0),
        default=6,
        help="episodes on the simulated robot; 0: without ROS (default 6)",
    )
    add_overrides(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Trains, measures, exports, deploys and writes the report; 0 when every stage worked."""
    started_s = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    _say("1/5  training a depth policy from scratch, by PPO from depth images")
    training = _train(args)
    figures["training"] = training
    _say("2/5  measuring it against chance, a script and swapped images")
    figures["evaluations"] = _evaluate(args, Path(training["run_dir"]))
    _say("3/5  filming it")
    _film(args, Path(training["run_dir"]))
    _say("4/5  exporting it and running it on the simulated robot over ROS 2")
    figures["bundle"] = str(_export(args, Path(training["run_dir"])))
    figures["robot"] = _run_on_robot(args, figures["bundle"])
    _say("5/5  writing the report")
    figures["minutes"] = round((time.monotonic() - started_s) / 60, 2)
    report = _report(args, figures)
    if args.json:
        print(json.dumps({**figures, "report": str(report)}))
    else:
        _print_figures(figures)
        print(f"\nreport: {report.resolve()}\nvideo:  {(args.out / 'grasps.mp4').resolve()}")
    return 0 if figures["robot"] or not args.robot_episodes else 1


def _say(stage: str) -> None:
    print(stage, file=sys.stderr, flush=True)


def _train(args: argparse.Namespace) -> dict[str, Any]:
    from dexgrasp_learner.config import load_run_config
    from dexgrasp_learner.run.assembly import build_ppo
    from dexgrasp_learner.run.runner import Runner
    from dexgrasp_learner.storage.run_folder import create_run_folder

    limit = f"training.max_minutes={args.minutes}"
    config = load_run_config(args.config, [limit, *args.overrides])
    folder = create_run_folder(args.out / "runs", config.name, config)
    runner = Runner(config, folder, build_ppo(config), show_progress=True)
    started_s = time.monotonic()
    summary = asdict(runner.run())
    return {**summary, "minutes": round((time.monotonic() - started_s) / 60, 2)}


def _evaluate(args: argparse.Namespace, run_folder: Path) -> dict[str, dict[str, Any]]:
    from dexgrasp_learner.evaluation.episodes import evaluate, evaluate_actor, scripted_policy
    from dexgrasp_learner.run.assembly import fresh_actor
    from dexgrasp_learner.storage.checkpoint import load_actor

    actor, config, _ = load_actor(run_folder)
    untrained = fresh_actor(config)
    task, common = config.task, (args.episodes, _EVALUATION_SEED)
    results = {
        "untrained": evaluate_actor(untrained, task, *common, name="untrained"),
        "trained": evaluate_actor(actor, task, *common, name="trained"),
        "swapped images": evaluate_actor(
            actor, task, *common, swap_images=True, name="swapped images"
        ),
        "scripted": evaluate("scripted", scripted_policy, task, (), *common),
    }
    return {name: asdict(result) for name, result in results.items()}


def _film(args: argparse.Namespace, run_folder: Path) -> None:
    from dexgrasp_deploy.commands.recording import film, write_video
    from dexgrasp_learner.evaluation.episodes import actor_policy
    from dexgrasp_learner.storage.checkpoint import load_actor

    actor, config, _ = load_actor(run_folder)
    frames = film(actor_policy(actor), config.task, actor.groups, _EVALUATION_SEED, columns=3)
    write_video(args.out / "grasps.mp4", frames, config.task.control_hz)


def _export(args: argparse.Namespace, run_folder: Path) -> Path:
    bundle = args.out / "bundle"
    _command("export", str(run_folder), "--out", str(bundle), "--json")
    return bundle


def _run_on_robot(args: argparse.Namespace, bundle: str) -> dict[str, Any] | None:
    """The figures of `dexgrasp up sim`, None when it was left out or failed."""
    if not args.robot_episodes:
        return None
    episodes = str(args.robot_episodes)
    try:
        return _command("up", "sim", "--bundle", bundle, "--episodes", episodes, "--json")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"the simulated robot failed: {error}\n{error.stderr}", file=sys.stderr)
        return None


def _command(*arguments: str) -> dict[str, Any]:
    """Runs another `dexgrasp` command and returns the JSON object of its last line."""
    result = subprocess.run(
        [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=_ROBOT_TIMEOUT_S,
        check=True,
    )
    return json.loads(result.stdout.strip().splitlines()[-1])


def _report(args: argparse.Namespace, figures: Mapping[str, Any]) -> Path:
    from dexgrasp_deploy.commands.report import write_report
    from dexgrasp_learner.storage.provenance import provenance

    figures = {**figures, "provenance": provenance()}
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return write_report(args.out, figures)


def _print_figures(figures: Mapping[str, Any]) -> None:
    training = figures["training"]
    print(f"\ntrained {training['env_steps']:,} steps in {training['minutes']} min")
    for name, result in figures["evaluations"].items():
        print(f"  {name:<16}{result['success_rate']:.3f} of {result['episodes']} episodes")
    robot = figures["robot"]
    if robot:
        print(f"  {'over ROS':<16}{robot['success_rate']:.3f} of {robot['episodes']} episodes")
