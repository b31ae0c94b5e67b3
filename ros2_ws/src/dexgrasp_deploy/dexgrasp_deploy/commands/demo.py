"""`dexgrasp demo`: the whole way on one computer, from a shipped policy to one of your own."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexgrasp_sim.arguments import LONGEST_S, add_json, add_overrides, number, whole

if TYPE_CHECKING:
    from dexgrasp_learner.commands.policies import Candidate
    from dexgrasp_learner.evaluation.figures import Assessment

RESULT_FILE = "demo.json"
SHIPPED = Path("bundles/depth_teacher")
_EXPORT_S, _ROBOT_START_S, _ROBOT_EPISODE_S, _STOP_S = 600.0, 120.0, 60.0, 30.0
"""Longest times: of an export, and of the simulated robot to start, for an episode and what is
between two, and to stop."""
_EVALUATION_SEED = 3_000_017
"""Neither training nor its own evaluations draw from this seed."""
_ROBOT_MINUTES, _ROBOT_EPISODE_MINUTES = 0.3, 0.15
_EPISODE_MINUTES, _FILM_MINUTES = 0.006, 0.3
"""What these take on two idle cores, for the announcement; an episode of all evaluations."""
_COLUMNS = 3
"""Environments side by side in the films."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp demo`."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/laptop_depth.yaml"),
        help="YAML file of the run (default config/laptop_depth.yaml)",
    )
    parser.add_argument(
        "--shipped",
        type=Path,
        default=SHIPPED,
        metavar="BUNDLE",
        help=f"policy to deploy at once and to compare with (default {SHIPPED})",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the report")
    parser.add_argument(
        "--minutes",
        type=number(above=0.0, most=LONGEST_S / 60.0),
        default=8.0,
        help="longest training time (default 8)",
    )
    parser.add_argument(
        "--episodes", type=whole(2), default=200, help="episodes of each evaluation (default 200)"
    )
    parser.add_argument(
        "--robot-episodes",
        type=whole(0),
        default=6,
        help="episodes of each policy on the simulated robot; 0: without ROS (default 6)",
    )
    add_overrides(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Deploys, trains, measures, deploys and compares; 0 when every stage worked."""
    from dexgrasp_learner.commands.policies import load_candidate, of_bundle
    from dexgrasp_learner.storage.bundle import load_bundle

    started_s = time.monotonic()
    # refused before anything else happens
    shipped = of_bundle(load_bundle(args.shipped), str(args.shipped))
    config = _config(args)
    args.out.mkdir(parents=True, exist_ok=True)
    _announce(args)
    robots: dict[str, Any] = {}
    _say("1/6  the shipped policy on the simulated robot, over ROS 2")
    robots["shipped"] = _run_on_robot(args.shipped, args.robot_episodes)
    _say("2/6  training a policy from scratch, by PPO from depth images")
    training = _train(config, args.out / "runs")
    trained = load_candidate(training["run_dir"])
    _say("3/6  measuring both, and chance, a script, and both with the wrong images")
    assessments = _assess(args, shipped, trained)
    _say("4/6  exporting the new policy and running it on the simulated robot")
    bundle = args.out / "bundle"
    _command(_EXPORT_S, "export", training["run_dir"], "--out", str(bundle), "--json")
    robots["trained"] = _run_on_robot(bundle, args.robot_episodes)
    _say("5/6  filming both")
    for name, candidate in (("shipped", shipped), ("trained", trained)):
        _film(args.out / f"{name}.mp4", candidate)
    _say("6/6  writing the report")
    figures = {
        "training": training,
        "evaluations": {item.own.policy: item.record() for item in assessments},
        "robots": robots,
        "shipped": str(args.shipped),
        "bundle": str(bundle),
        "minutes": round((time.monotonic() - started_s) / 60, 2),
    }
    report = _report(args.out, figures, assessments)
    if args.json:
        print(json.dumps({**figures, "report": str(report)}))
    else:
        _print_figures(figures)
        print(f"\nreport: {report.resolve()}\nfigures: {(args.out / RESULT_FILE).resolve()}")
    return 0 if all(robots.values()) or not args.robot_episodes else 1


def _announce(args: argparse.Namespace) -> None:
    """Says how long it will take; the training may end sooner."""
    robot = _ROBOT_MINUTES + _ROBOT_EPISODE_MINUTES * args.robot_episodes
    others = _EPISODE_MINUTES * args.episodes + _FILM_MINUTES
    others += 2 * robot if args.robot_episodes else 0.0
    _say(
        f"dexgrasp demo: at most about {args.minutes + others:.0f} minutes on two idle cores: "
        f"{args.minutes:g} of training, which ends sooner when the policy is good, and about "
        f"{others:.0f} to deploy and to measure"
    )


def _say(stage: str) -> None:
    print(stage, file=sys.stderr, flush=True)


def _config(args: argparse.Namespace) -> Any:
    from dexgrasp_learner.config import load_run_config

    return load_run_config(args.config, [f"training.max_minutes={args.minutes}", *args.overrides])


def _train(config: Any, runs: Path) -> dict[str, Any]:
    from dexgrasp_learner.commands.train import summary_json
    from dexgrasp_learner.run.assembly import build_ppo
    from dexgrasp_learner.run.runner import Runner
    from dexgrasp_learner.storage.run_folder import create_run_folder

    folder = create_run_folder(runs, config.name, config)
    runner = Runner(config, folder, build_ppo(config), show_progress=True)
    started_s = time.monotonic()
    try:
        summary = json.loads(summary_json(runner.run()))
    finally:
        runner.close()
    return {**summary, "minutes": round((time.monotonic() - started_s) / 60, 2)}


def _assess(
    args: argparse.Namespace, shipped: "Candidate", trained: "Candidate"
) -> "list[Assessment]":
    """All policies in the same episodes, those that see also with the images of others."""
    from dexgrasp_learner.commands.policies import Candidate
    from dexgrasp_learner.evaluation.episodes import actor_policy, scripted_policy
    from dexgrasp_learner.evaluation.figures import Assessment
    from dexgrasp_learner.run.assembly import fresh_actor

    config, source = trained.config, trained.source
    untrained = fresh_actor(config)
    shipped, trained = replace(shipped, name="shipped"), replace(trained, name="trained here")
    candidates = (
        shipped,
        trained,
        Candidate("untrained", source, actor_policy(untrained), untrained.groups, config),
        Candidate("scripted", "scripted", scripted_policy, (), config),
    )
    assessments = []
    for candidate in candidates:
        common = (candidate.config.task, args.episodes, _EVALUATION_SEED)
        has_control = candidate.sees and candidate.name != "untrained"
        swapped = candidate.evaluate(*common, swap_images=True) if has_control else None
        own = candidate.evaluate(*common)
        assessments.append(Assessment(candidate.source, "", own, swapped))
    return assessments


def _film(path: Path, candidate: "Candidate") -> None:
    from dexgrasp_learner.evaluation.film import film, write_film

    task = candidate.config.task
    frames = film(candidate.make_policy, task, candidate.groups, _EVALUATION_SEED, _COLUMNS)
    write_film(path, frames, task)


def _run_on_robot(bundle: Path, episodes: int) -> dict[str, Any] | None:
    """The figures of `dexgrasp up sim`, None when it was left out or failed."""
    if not episodes:
        return None
    limit_s = _ROBOT_START_S + _ROBOT_EPISODE_S * episodes
    words = ("up", "sim", "--bundle", str(bundle), "--episodes", str(episodes), "--json")
    try:
        return _command(limit_s, *words)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"the simulated robot failed: {error}\n{error.stderr}", file=sys.stderr)
        return None


def _command(limit_s: float, *arguments: str) -> dict[str, Any]:
    """Runs another `dexgrasp` command and returns the JSON object of its last line.

    It is asked to stop, so that it can end its own processes, before it is killed.
    """
    command = [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, messages = process.communicate(timeout=limit_s)
    except BaseException:
        process.terminate()
        try:
            process.communicate(timeout=_STOP_S)
        finally:
            process.kill()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, messages)
    return json.loads(output.strip().splitlines()[-1])


def _report(out: Path, figures: Mapping[str, Any], assessments: "list[Assessment]") -> Path:
    from dexgrasp_deploy.commands.report import write_report
    from dexgrasp_learner.storage.provenance import provenance

    result = {**figures, "provenance": provenance()}
    (out / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n")
    return write_report(out, result, assessments)


def _print_figures(figures: Mapping[str, Any]) -> None:
    training = figures["training"]
    print(f"\ntrained {training['env_steps']:,} steps in {training['minutes']} min")
    for name, result in figures["evaluations"].items():
        swapped = result["swapped_images"]
        control = f", with other images {swapped['success_rate']:.3f}" if swapped else ""
        print(
            f"  {name:<16}{result['success_rate']:.3f} of {result['episodes']} episodes{control}"
        )
    for name, robot in figures["robots"].items():
        if robot:
            successes = sum(bool(outcome["success"]) for outcome in robot["outcomes"])
            print(f"  {name}, over ROS: {successes} of {robot['episodes']} episodes")
