"""`dexgrasp bench distillation`: which teacher makes the better student of the same two cameras.

A teacher that sees depth and one that is told the state teach the same stereo student, with the
same number of environment steps, for several seeds. Students and teachers are judged by their mean
action on the same fresh episodes: with the cameras where the config has them, and moved as far as
the config's `camera_jitter` moves them.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_ind

from benchmarks import CHECKOUT
from benchmarks.intervals import CONFIDENCE, interval_of_mean
from dexgrasp_learner.algorithms.teacher import Teacher
from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.evaluation.episodes import actor_policy, evaluate
from dexgrasp_learner.run.assembly import build_distillation
from dexgrasp_learner.run.runner import Runner
from dexgrasp_learner.run.teachers import load_teacher
from dexgrasp_learner.storage.checkpoint import load_actor, load_state
from dexgrasp_learner.storage.checkpoint_files import find_checkpoint
from dexgrasp_learner.storage.run_folder import create_run_folder
from dexgrasp_sim.arguments import add_overrides, add_seeds, whole
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.image_config import CameraJitterConfig

_SEED = 2_000_003
"""Of the judging episodes; neither training nor the evaluations of a run draw from it."""
_CAMERAS = ("fixed", "moved")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench distillation`."""
    for name, sees in (("depth", "reads depth images"), ("state", "is told the state")):
        parser.add_argument(
            f"--{name}-teacher",
            type=Path,
            required=True,
            metavar="PATH",
            help=f"run or bundle of the teacher that {sees}",
        )
    config = CHECKOUT / "config" / "student_stereo.yaml"
    parser.add_argument("--config", type=Path, default=config, help="run config of the student")
    add_seeds(parser, 3, "the students")
    parser.add_argument(
        "--episodes", type=whole(2), default=400, help="of each judgement (default 400)"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="folder that keeps runs and figures; a further call measures what is missing there "
        "(default: none is kept)",
    )
    add_overrides(parser)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `teachers`: success of each on the students' task. `students`: by teacher their `runs`, and for
    both camera placements the mean over seeds with its 95 % interval. `depth_minus_state`: the
    difference of these means with its 95 % interval (Welch). `share_of_teacher`: the means as a
    fraction of the own teacher's success.
    """
    torch.set_num_threads(1)
    config = load_run_config(args.config, args.overrides)
    paths = {"depth": args.depth_teacher, "state": args.state_teacher}
    settings = {
        "config": args.config.stem,
        "overrides": args.overrides,
        "teachers": {name: path.name for name, path in paths.items()},
        "episodes": args.episodes,
        "iterations": config.training.iterations,
        "max_minutes": config.training.max_minutes,
        "camera_jitter": vars(config.task.image.camera_jitter),
    }
    with tempfile.TemporaryDirectory() as scratch:
        parts = _Parts(args.runs or Path(scratch), settings)

        def judged_teacher(name: str) -> dict[str, Any]:
            teacher = load_teacher(paths[name], config)
            return parts.get(f"teacher_{name}", lambda: _judge(teacher, config.task, args))

        def student(name: str, seed: int) -> dict[str, Any]:
            seeded = replace(config, seed=seed, name=f"{name}_{seed}")
            return parts.get(
                seeded.name, lambda: _student(seeded, paths[name], parts.folder, args)
            )

        teachers = {name: judged_teacher(name) for name in paths}
        students: dict[str, dict[str, Any]] = {name: {"runs": []} for name in paths}
        for seed in args.seeds:  # both teachers in turn, so that other load meets both
            for name in paths:
                students[name]["runs"].append({"seed": seed, **student(name, seed)})
    return {**settings, "seeds": args.seeds}, _compared(teachers, students)


class _Parts:
    """Figures in a folder, each in a file of its own, of which only missing ones are measured."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """ConfigError if the folder's figures were measured with other settings."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        file, text = folder / "settings.json", json.dumps(settings, indent=1)
        if file.exists() and file.read_text() != text:
            raise ConfigError(
                f"--runs {folder}: holds figures of other settings ({file}); give another"
            )
        file.write_text(text)

    def get(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of this name."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(measure(), indent=1))
        return json.loads(file.read_text())


def _compared(
    teachers: dict[str, dict[str, Any]], students: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """All figures of `measure`."""
    for student in students.values():
        student |= {camera: _mean(_successes(student, camera)) for camera in _CAMERAS}
    depth, state = students["depth"], students["state"]
    return {
        "teachers": teachers,
        "students": students,
        "depth_minus_state": {
            camera: _difference(_successes(depth, camera), _successes(state, camera))
            for camera in _CAMERAS
        },
        "share_of_teacher": {name: _share(students[name], teachers[name]) for name in teachers},
    }


def _student(
    config: RunConfig, teacher: Path, parent: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Trains one, unless its run is there, and judges the policy that the run has chosen."""
    folder = _finished_run(parent, config)
    if folder is None:
        folder = create_run_folder(parent, config.name, config)
        algorithm = build_distillation(config, load_teacher(teacher, config))
        Runner(config, folder, algorithm, show_progress=False).run()
    record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    learned = {key.removeprefix("update/"): value for key, value in record.items()}
    actor, _, _ = load_actor(folder)
    return {
        "steps": int(record["run/env_steps"]),
        "minutes": round(record["run/minutes"], 2),
        "estimate_error_m": learned.get("estimate_error"),
        **{key: value for key, value in learned.items() if key.startswith("imitation")},
        **_judge(actor, config.task, args, swap=True),
    }


def _finished_run(parent: Path, config: RunConfig) -> Path | None:
    """The folder of a run of this config that an interrupted call has left."""
    for folder in parent.glob(f"{config.name}_*/"):
        with suppress(ConfigError):
            if load_state(find_checkpoint(folder))["iteration"] == config.training.iterations:
                return folder
    return None


def _judge(
    policy: Teacher, task: GraspConfig, args: argparse.Namespace, swap: bool = False
) -> dict[str, Any]:
    """Success with fixed and moved cameras; `swap`: also with the images of other environments."""
    jitter = task.image.camera_jitter
    still = CameraJitterConfig(moves_depth=jitter.moves_depth)
    cases = {"moved": (task, False), "fixed": (_with_jitter(task, still), False)}
    if swap:
        cases["swapped_images"] = (cases["fixed"][0], True)
    figures = {}
    for name, (scene, swapped) in cases.items():
        make = actor_policy(policy, swapped)
        result = evaluate(name, make, scene, policy.groups, args.episodes, _SEED, threads=1)
        figures[name] = {
            "success": result.success_rate,
            "interval": [result.success_low, result.success_high],
        }
    return figures


def _with_jitter(task: GraspConfig, jitter: CameraJitterConfig) -> GraspConfig:
    return replace(task, image=replace(task.image, camera_jitter=jitter))


def _successes(student: dict[str, Any], camera: str) -> list[float]:
    return [run[camera]["success"] for run in student["runs"]]


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """The mean over seeds and its 95 % interval by Student's t; null for a single seed."""
    interval = interval_of_mean(values)
    return {"mean": round(statistics.mean(values), 4), "interval": interval and [*interval]}


def _difference(depth: Sequence[float], state: Sequence[float]) -> dict[str, Any]:
    """Difference of two means with its 95 % interval by Welch's t; null for single seeds."""
    difference = round(statistics.mean(depth) - statistics.mean(state), 4)
    spread = statistics.pvariance(depth) + statistics.pvariance(state)
    if min(len(depth), len(state)) < 2 or spread == 0:
        return {"difference": difference, "interval": None}
    test = ttest_ind(depth, state, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return {"difference": difference, "interval": [round(float(low), 4), round(float(high), 4)]}


def _share(student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, float | None]:
    """Mean success of the students divided by their teacher's, which sees a camera at rest."""
    best = teacher["fixed"]["success"]
    return {c: round(student[c]["mean"] / best, 4) if best else None for c in _CAMERAS}
