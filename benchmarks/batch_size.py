"""`dexgrasp bench batch_size`: as many and twice as many environments at equal samples.

The paper's comparison (arXiv 2509.16434): what its disaggregation buys is room for twice the
environments, i.e. rollouts and minibatches of twice the size and half as many updates. All other
settings are equal, steps of the environments too, so this says what the larger batch is worth by
itself, not what it saves in time. What a run exports is the better of its newest and averaged
weights, by one evaluation at its end.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.intervals import interval_of_mean
from benchmarks.trainings import train_and_judge
from dexgrasp_learner.config import load_run_config
from dexgrasp_sim.arguments import add_overrides, add_seeds, whole

_FACTORS = (1, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench batch_size`."""
    parser.add_argument(
        "--preset", type=Path, default=Path("config/laptop_depth.yaml"), help="run config"
    )
    add_seeds(parser, 3, "the runs")
    parser.add_argument(
        "--steps", type=whole(1), default=180_000, help="environment steps of a run"
    )
    parser.add_argument("--episodes", type=whole(1), default=400, help="of the final evaluations")
    add_overrides(parser)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `1x` and `2x`: environments, updates, the runs, and the mean of their success with its 95 %
    interval over seeds. `difference`: 2x minus 1x, paired by seed.
    """
    config = load_run_config(args.preset, args.overrides)
    envs, horizon = config.simulators.num_envs, config.training.horizon
    figures: dict[str, Any] = {}
    jobs = len(_FACTORS) * len(args.seeds)
    with tqdm(total=jobs, desc="bench batch_size", unit="run", disable=None) as bar:
        for factor in _FACTORS:
            # the first rollout only begins the normalisation
            updates = max(round(args.steps / (factor * envs * horizon)) - 1, 1)
            overrides = [
                *args.overrides,
                f"simulators.num_envs={factor * envs}",
                f"training.iterations={updates}",
                f"training.evaluate_every={updates}",
            ]
            runs = []
            for seed in args.seeds:
                runs.append(train_and_judge(args.preset, seed, args.episodes, overrides))
                bar.update()
            figures[f"{factor}x"] = {
                "num_envs": factor * envs,
                "updates": updates,
                "runs": runs,
                "success": mean_with_interval([run["success"] for run in runs]),
                "cpu_s": mean_with_interval([run["cpu_s"] for run in runs]),
            }
    once, twice = (figures[f"{factor}x"]["runs"] for factor in _FACTORS)
    pairs = zip(once, twice, strict=True)
    figures["difference"] = mean_with_interval([b["success"] - a["success"] for a, b in pairs])
    settings = {
        "preset": str(args.preset),
        "seeds": args.seeds,
        "steps": args.steps,
        "episodes": args.episodes,
        "overrides": args.overrides,
    }
    return settings, figures


def mean_with_interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its 95 % confidence interval by Student's t; None for the ends of one value."""
    low, high = interval_of_mean(values) or (None, None)
    return {"mean": round(statistics.fmean(values), 4), "low": low, "high": high}
