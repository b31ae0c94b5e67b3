"""`dexgrasp evaluate`: success of policies on new episodes, acting without noise."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from dexgrasp_learner.commands.policies import Candidate, load_candidate
from dexgrasp_learner.evaluation.episodes import choose_objects, swapping_images
from dexgrasp_learner.evaluation.figures import Assessment, as_table, as_text
from dexgrasp_sim.arguments import add_config, add_json, add_seed, number, whole
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.objects.sets import OBJECT_SETS
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_FILMED = 3
"""Environments side by side in a film."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp evaluate`."""
    parser.add_argument(
        "policies",
        nargs="+",
        metavar="POLICY",
        help="folder of a bundle, a run or a checkpoint, `scripted` or `untrained`; several give "
        "a table",
    )
    add_config(parser, "run config with the task (default: a policy's own, else the default)")
    parser.add_argument(
        "--episodes", type=whole(1), default=200, help="episodes to measure (default 200)"
    )
    parser.add_argument(
        "--objects",
        metavar="SET",
        action="append",
        help=f"{', '.join(OBJECT_SETS)}, or names of the config's objects with commas between; "
        "may be given several times",
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
    control = parser.add_mutually_exclusive_group()
    control.add_argument(
        "--swap-images",
        action="store_true",
        help="only the control experiment: each environment sees another's images",
    )
    control.add_argument(
        "--no-control",
        action="store_true",
        help="leave out the control experiment that else follows for policies that see",
    )
    parser.add_argument(
        "--video", type=Path, metavar="DIR", help="folder for a film of each policy"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="HTML page to write, with curves of runs"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates every policy on every set of objects, and prints the figures."""
    torch.set_num_threads(1)
    candidates = [load_candidate(name, args.config, args.overrides) for name in args.policies]
    tasks = {
        (candidate.source, objects): _chosen_task(candidate.config.task, objects, args.difficulty)
        for candidate in candidates
        for objects in args.objects or [None]
    }
    assessments = [
        _assess(candidate, objects, tasks[candidate.source, objects], args)
        for candidate in candidates
        for objects in args.objects or [None]
    ]
    written = _films(candidates, tasks, args) if args.video else {}
    if args.report:
        from dexgrasp_learner.evaluation.report import write_report  # imports matplotlib

        write_report(args.report, assessments, candidates[0].config.task.success)
        written["report"] = str(args.report)
    if args.json:
        records = [item.record() for item in assessments]
        result = records[0] if len(records) == 1 else {"evaluations": records}
        print(json.dumps({**result, **written}))
        return 0
    print("\n\n".join(map(_words, assessments)))
    if len(assessments) > 1:
        print(f"\n{as_table(assessments)}")
    for what, path in written.items():
        print(f"{what}: {path}")
    return 0


def _assess(
    candidate: Candidate, objects: str | None, task: GraspConfig, args: argparse.Namespace
) -> Assessment:
    options: dict[str, Any] = {
        "episodes": args.episodes,
        "seed": args.seed,
        "threads": args.threads,
        "device": args.device,
        "show_progress": True,
    }
    own = candidate.evaluate(task, swap_images=args.swap_images, **options)
    controlled = candidate.sees and args.episodes > 1
    if not controlled or args.swap_images or args.no_control:
        return Assessment(candidate.source, objects or "", own)
    swapped = candidate.evaluate(task, swap_images=True, **options)
    return Assessment(candidate.source, objects or "", own, swapped)


def _words(assessment: Assessment) -> str:
    text, swapped = as_text(assessment.own), assessment.swapped
    if swapped is None:
        return text
    return (
        f"{text}\n  seeing another environment's images: {swapped.success_rate:.3f} "
        f"({swapped.success_low:.3f} to {swapped.success_high:.3f})"
    )


def _films(
    candidates: list[Candidate],
    tasks: dict[tuple[str, str | None], GraspConfig],
    args: argparse.Namespace,
) -> dict[str, str]:
    from dexgrasp_learner.evaluation.film import film, write_film  # loads the encoder

    by_source = {candidate.source: candidate for candidate in candidates}
    written = {}
    for (source, objects), task in tasks.items():
        candidate = by_source[source]
        policy = candidate.make_policy
        if args.swap_images:
            policy = swapping_images(policy)
        name = "_".join(filter(None, (candidate.name, (objects or "").replace(",", "_"))))
        path = args.video / f"{name}.mp4"
        try:
            args.video.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--video {args.video}: cannot be written ({error.strerror}); give another folder"
            ) from None
        frames = film(policy, task, candidate.groups, args.seed, _FILMED)
        write_film(path, frames, task)
        written[f"video {name}"] = str(path)
    return written


def _chosen_task(
    config: GraspConfig, objects: str | None, difficulty: float | None
) -> GraspConfig:
    if objects is not None:
        config = choose_objects(config, objects)
    return config if difficulty is None else replace(config, difficulty=difficulty)
