"""`dexgrasp bench gpu_learner`: one update at the paper's sizes on a GPU, ours against rsl_rl's.

The comparison is that of `bench learner`: the same nets, weights, rollout and minibatches on both
sides, each side in a new process. Every number of environments is a part of the result file, which
is written after each.
"""

import argparse
import importlib.util
import time
from importlib.metadata import version
from typing import Any

from benchmarks.gpu.device import check_device
from benchmarks.gpu.parts import Parts
from benchmarks.learner import compared, run_side
from benchmarks.learner_workload import PPO, Sizes
from dexgrasp_sim.arguments import number, parse_resolution, whole
from dexgrasp_sim.config import ConfigError, replace, to_dict

_SIDES = ("dexgrasp", "rsl_rl", "whole_minibatches")
"""In the order in which they are measured: where time runs out, the first two matter most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench gpu_learner`; the defaults are the paper's sizes."""
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="where to measure"
    )
    parser.add_argument(
        "--envs", type=whole(0), nargs="+", default=[1024, 2048], help="environments to simulate"
    )
    parser.add_argument("--horizon", type=whole(0), default=16, help="steps of a rollout")
    parser.add_argument(
        "--image", default="160x120", metavar="WIDTHxHEIGHT", help="size of images, WIDTHxHEIGHT"
    )
    parser.add_argument("--memory", type=whole(0), default=1024, help="width of the LSTMs")
    parser.add_argument("--updates", type=whole(0), default=4, help="the first one warms up")
    parser.add_argument("--minutes", type=number(0.0), help="after which no further part begins")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures: `comparisons` by number of environments, see `learner.measure`.

    On a GPU the times are seconds of an update and the memory is that of tensors there. A number
    without all sides, for lack of memory for example, has no comparison; `parts` says why. A part
    that lacked time is measured by the next call.

    Raises:
        ConfigError: rsl_rl is not installed, or there is no such device.
    """
    if importlib.util.find_spec("rsl_rl") is None:
        raise ConfigError("rsl_rl is not installed; run `pip install -e '.[dev]'`")
    check_device(args.device)
    width, height = parse_resolution(args.image)
    sizes = Sizes(
        horizon=args.horizon,
        width=width,
        height=height,
        memory=args.memory,
        device=args.device,
        updates=args.updates,
    )
    settings = {
        **to_dict(replace(sizes, envs=PPO.minibatches)),
        "ppo": to_dict(PPO),
        "rsl_rl": version("rsl-rl-lib"),
    }
    settings.pop("envs")
    until_s = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    parts = Parts(args.out, "gpu_learner", settings, until_s)
    comparisons = {}
    for envs in args.envs:
        results = {
            side: parts.run(
                f"{side}/{envs}",
                lambda side=side, envs=envs: run_side(side, replace(sizes, envs=envs)),
            )
            for side in _SIDES
        }
        if all(results.values()):
            by_side = {side: [result] for side, result in results.items()}
            comparisons[str(envs)] = compared(by_side, "update_s")
    return settings, {"comparisons": comparisons, "parts": parts.figures}
