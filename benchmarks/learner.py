"""`dexgrasp bench learner`: one update of our PPO compared with one of rsl_rl's.

Both use the same nets, weights, rollout and minibatches. Each side runs in a new process, to
measure its memory; time is in CPU seconds, which depend less on other load of the machine.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from importlib.metadata import version
from typing import Any

from tqdm import tqdm

from benchmarks import CHECKOUT
from benchmarks.learner_side import SIDES
from benchmarks.learner_workload import PPO, Sizes
from dexgrasp_sim.arguments import number, whole
from dexgrasp_sim.config import ConfigError, to_dict

_TIMEOUT_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench learner`."""
    defaults = Sizes()
    for name, default, text in (
        ("--envs", defaults.envs, "environments to simulate"),
        ("--horizon", defaults.horizon, "steps of a rollout"),
        ("--memory", defaults.memory, "width of the LSTMs"),
        ("--repeats", 3, "updates of each side"),
    ):
        parser.add_argument(name, type=whole(1), default=default, help=text)
    parser.add_argument(
        "--end-probability",
        type=number(0.0, 1.0),
        default=defaults.end_probability,
        help="probability that an episode ends in a step",
    )


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `time_ratio` and `memory_ratio` are ours over theirs (below 1: ours needs less), of medians, at
    our default, which computes minibatches in pieces; `whole_time_ratio` and `whole_memory_ratio`
    without that. `loss_difference` is the largest absolute difference from theirs of the surrogate
    and value losses.

    Raises:
        ConfigError: rsl_rl is not installed.
        RuntimeError: A side failed; its error text was printed before.
    """
    if importlib.util.find_spec("rsl_rl") is None:
        raise ConfigError("rsl_rl is not installed; run `pip install -e '.[dev]'`")
    sizes = Sizes(
        envs=args.envs,
        horizon=args.horizon,
        memory=args.memory,
        end_probability=args.end_probability,
    )
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tqdm(
        total=args.repeats * len(SIDES), desc="bench learner", unit="run", disable=None
    ) as bar:
        for _ in range(args.repeats):
            for side in SIDES:
                results[side].append(run_side(side, sizes))
                bar.update()
    figures = compared(results, "update_cpu_s")
    settings = {
        **to_dict(sizes),
        "ppo": to_dict(PPO),
        "threads": 1,
        "repeats": args.repeats,
        "rsl_rl": version("rsl-rl-lib"),
    }
    return settings, figures


def compared(results: dict[str, list[dict[str, Any]]], time_name: str) -> dict[str, Any]:
    """The figures of `measure`.

    Args:
        results: Of each side, `SideResult` as plain values.
        time_name: Which of its times is compared.
    """
    ours, whole, theirs = (_medians(results[side]) for side in SIDES)
    return {
        "time_ratio": _ratio(ours, theirs, time_name),
        "memory_ratio": _ratio(ours, theirs, "memory_mib"),
        "whole_time_ratio": _ratio(whole, theirs, time_name),
        "whole_memory_ratio": _ratio(whole, theirs, "memory_mib"),
        "loss_difference": max(
            abs(side[loss] - theirs[loss])
            for side in (ours, whole)
            for loss in ("surrogate", "value")
        ),
        "sides": results,
    }


def run_side(side: str, sizes: Sizes) -> dict[str, Any]:
    """Runs one side in a new process; `SideResult` as plain values.

    Raises:
        RuntimeError: It failed; its error text was printed before.
    """
    module = "benchmarks.learner_side"
    command = [sys.executable, "-m", module, side, json.dumps(to_dict(sizes))]
    done = subprocess.run(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT_S
    )
    if done.returncode:
        raise RuntimeError(f"side {side} of the benchmark ended with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _medians(results: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def _ratio(ours: dict[str, float], theirs: dict[str, float], name: str) -> float:
    return round(ours[name] / theirs[name], 3)
