"""`dexgrasp bench teachers`: teachers that see state or depth, with and without a memory.

Short trainings by PPO from scratch of the laptop presets as they are, and with an LSTM in the
actor, all for the same time. Each is judged on fresh episodes, those that see images also with the
images of another environment.
"""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.trainings import train_and_judge
from dexgrasp_sim.arguments import add_overrides, add_seed, number, whole

_MEMORIES = ("none", "lstm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench teachers`."""
    presets = [Path("config/laptop_state.yaml"), Path("config/laptop_depth.yaml")]
    parser.add_argument("--presets", type=Path, nargs="*", default=presets, help="run configs")
    parser.add_argument(
        "--memories", nargs="+", choices=_MEMORIES, default=list(_MEMORIES), help="of the actor"
    )
    add_seed(parser, 1, "all runs")
    parser.add_argument("--minutes", type=number(above=0.0), default=4.0, help="longest training")
    parser.add_argument("--episodes", type=whole(1), default=400, help="of the final evaluations")
    add_overrides(parser)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: for each preset and memory, the figures of `train_and_judge`."""
    figures: dict[str, Any] = {}
    jobs = [(preset, memory) for preset in args.presets for memory in args.memories]
    for preset, memory in tqdm(jobs, desc="bench teachers", unit="run", disable=None):
        overrides = [
            f"network.memory={memory}",
            f"training.max_minutes={args.minutes}",
            *args.overrides,
        ]
        run = train_and_judge(preset, args.seed, args.episodes, overrides)
        figures.setdefault(preset.stem, {})[memory] = run
    settings = {
        "seed": args.seed,
        "minutes": args.minutes,
        "episodes": args.episodes,
        "overrides": args.overrides,
    }
    return settings, figures
