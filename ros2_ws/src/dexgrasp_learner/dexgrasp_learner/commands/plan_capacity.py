"""`dexgrasp plan-capacity`: how many environments fit into the memory of a host's GPUs."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexgrasp_sim.arguments import add_json, number, resolution, whole

if TYPE_CHECKING:
    from dexgrasp_learner.capacity.costs import Costs
    from dexgrasp_learner.capacity.model import Plan

STORAGES = ("float32", "float16", "int16", "uint8")
MOST_MEMORY_GB = 10_000.0
"""Fifty times what the largest GPUs have; more is a mistake in the unit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp plan-capacity`."""
    parser.add_argument(
        "--gpus", type=whole(2, 1024), default=4, help="GPUs of the host, at least 2 (default 4)"
    )
    parser.add_argument(
        "--gpu-memory-gb",
        type=number(above=0.0, most=MOST_MEMORY_GB),
        default=48.0,
        help="memory of each GPU, GiB (default 48)",
    )
    parser.add_argument(
        "--resolution",
        type=resolution,
        default=(160, 120),
        metavar="WxH",
        help="size of the images (default 160x120)",
    )
    parser.add_argument(
        "--horizon", type=whole(1, 100_000), default=16, help="steps of a rollout (default 16)"
    )
    parser.add_argument(
        "--storage", choices=STORAGES, help="type of stored images (default: as in the costs)"
    )
    parser.add_argument(
        "--micro-batch",
        type=whole(1),
        metavar="SAMPLES",
        help="environments x steps in one forward and backward pass; default: as in the costs",
    )
    parser.add_argument(
        "--network", type=Path, metavar="CONFIG", help="YAML of the run whose nets and task to use"
    )
    parser.add_argument(
        "--costs",
        default="paper",
        help="JSON file of `dexgrasp bench capacity_costs`, or `paper`: a fit to the four "
        "published figures (default)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a plan; returns the exit code."""
    plan = make_plan(args)
    print(json.dumps(plan) if args.json else as_table(plan))
    return 0


def make_plan(args: argparse.Namespace) -> dict[str, Any]:
    """Plans both ways to use the GPUs.

    Returns:
        `data_parallel` and `disaggregated`, environments of all GPUs together; `ratio` of the
        second to the first, None if none fits; `per_gpu`, memory use of the devices in each way;
        `costs`, their source; `settings`.

    Raises:
        ConfigError: A value is not allowed or the costs are incomplete.
    """
    from dexgrasp_learner.capacity.costs import GIB, load_costs
    from dexgrasp_learner.capacity.model import plan_data_parallel, plan_disaggregated
    from dexgrasp_learner.capacity.workload import plan_config, workload

    costs = load_costs(args.costs)
    storage = args.storage or costs.storage
    config = plan_config(args.network, args.resolution, args.horizon)
    load = workload(config, storage, args.micro_batch or 1)
    micro_batch = args.micro_batch or max(1, costs.micro_batch_pixels // max(load.pixels, 1))
    load = load.with_micro_batch(micro_batch)
    memory = args.gpu_memory_gb * GIB
    together = plan_data_parallel(costs, load, args.gpus, memory)
    split = plan_disaggregated(costs, load, args.gpus, memory)
    return {
        "data_parallel": together.environments,
        "disaggregated": split.environments,
        "ratio": _ratio(split, together),
        "limited_by": split.limited_by,
        "per_gpu": {
            "data_parallel": [asdict(share) for share in together.shares],
            "disaggregated": [asdict(share) for share in split.shares],
        },
        "costs": {"source": costs.source, "device": costs.device, "caveat": _caveat(costs)},
        "settings": {
            "gpus": args.gpus,
            "gpu_memory_gb": args.gpu_memory_gb,
            "resolution": "{}x{}".format(*args.resolution),
            "horizon": args.horizon,
            "storage": storage,
            "micro_batch": micro_batch,
        },
    }


def as_table(plan: dict[str, Any]) -> str:
    """A plan as a readable table."""
    settings, costs = plan["settings"], plan["costs"]
    lines = [
        "{gpus} GPUs of {gpu_memory_gb:g} GiB, images {resolution} {storage}, {horizon} steps, "
        "{micro_batch} samples at a time".format(**settings),
        f"costs: {costs['source']}",
        f"note:  {costs['caveat']}",
    ]
    for name in ("data_parallel", "disaggregated"):
        lines += ["", f"{name.replace('_', '-')}: {plan[name]} environments"]
        lines += [_row(share) for share in plan["per_gpu"][name]]
    ratio = "none fits" if plan["ratio"] is None else f"{plan['ratio']:.2f}"
    lines += ["", f"ratio: {ratio}; disaggregated, the limit is the {plan['limited_by']}"]
    return "\n".join(lines)


def _row(share: dict[str, Any]) -> str:
    role = {"both": "simulate and learn", "simulator": "simulate", "learner": "learn"}
    parts = ", ".join(f"{n.replace('_', ' ')} {b / 2**30:.2f}" for n, b in share["bytes"].items())
    return (
        f"  {share['devices']} x {role[share['role']]}: {share['environments']} of at most "
        f"{share['limit']}; GiB: {parts}"
    )


def _caveat(costs: "Costs") -> str:
    if costs.device == "cuda":
        return "learner measured on a GPU; the simulator's costs were filled in by hand"
    if costs.device == "cpu":
        return "host memory of the CPU backend: no cost of a GPU was measured"
    return "nothing here was measured with this software on a GPU"


def _ratio(split: "Plan", together: "Plan") -> float | None:
    if not together.environments:
        return None
    return round(split.environments / together.environments, 3)
