"""`dexgrasp bench rollout`: control steps per second with and without worker processes.

Both sides run the same loop: policy inference for all environments, then a control step. All
environments follow one tape of actions that approaches, grasps and lifts an object at the spawn
centre.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.grasp_tape import grasp_config, grasp_tape
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.assembly import build_ppo
from dexgrasp_sim.arguments import number, whole
from dexgrasp_sim.config import replace, to_dict

_HORIZON = 16
OBSERVATIONS = {"state": ("proprio", "state"), "depth": ("proprio", "depth")}


@dataclass(frozen=True)
class Side:
    """One way to run the loop."""

    name: str
    transport: str
    workers: int


SIDES = (Side("one_process", "in_process", 1), Side("two_workers", "shared_memory", 2))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench rollout`."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("config/laptop_depth.yaml"),
        help="YAML of the run",
    )
    parser.add_argument("--envs", type=whole(1), default=128, help="environments to simulate")
    parser.add_argument(
        "--control-hz", type=number(above=0.0, most=1000.0), default=60.0, help="control rate, Hz"
    )
    parser.add_argument("--repeats", type=whole(1), default=3, help="runs of each kind")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures; `ratio` is two workers over one process for depth, wall clock."""
    config = grasp_config(args.config, args.control_hz)
    config = replace(config, simulators=replace(config.simulators, num_envs=args.envs))
    rates: dict[str, dict[str, list[int]]] = {
        observation: {side.name: [] for side in SIDES} for observation in OBSERVATIONS
    }
    rounds = args.repeats * len(OBSERVATIONS) * len(SIDES)
    with tqdm(total=rounds, desc="bench rollout", unit="run", disable=None) as bar:
        for _ in range(args.repeats):
            for observation, groups in OBSERVATIONS.items():
                for side in SIDES:
                    rate = round(_steps_per_s(config, groups, side))
                    rates[observation][side.name].append(rate)
                    bar.update()
    median = {
        observation: {name: statistics.median(values) for name, values in sides.items()}
        for observation, sides in rates.items()
    }
    figures = {
        "ratio": round(median["depth"]["two_workers"] / median["depth"]["one_process"], 3),
        "state_ratio": round(median["state"]["two_workers"] / median["state"]["one_process"], 3),
        "depth_steps_per_s": round(median["depth"]["two_workers"]),
        "state_steps_per_s": round(median["state"]["two_workers"]),
        "steps_per_s": rates,
    }
    settings = {
        "envs": args.envs,
        "control_hz": args.control_hz,
        "image": [config.task.camera.width, config.task.camera.height],
        "physics": to_dict(config.task.physics),
        "repeats": args.repeats,
        "threads_per_worker": 1,
    }
    return settings, figures


def _steps_per_s(config: RunConfig, groups: tuple[str, ...], side: Side) -> float:
    """Control steps per second of all environments together, over one grasp."""
    torch.set_num_threads(1)
    network = replace(
        config.network, actor_groups=groups, critic_groups=("proprio",), auxiliary_group=None
    )
    algorithm = build_ppo(replace(config, network=network))
    pool = make_pool(
        PoolSpec(
            kind="grasp",
            config=to_dict(config.task),
            groups=algorithm.groups,
            horizon=_HORIZON,
            simulators=SimulatorsConfig(
                num_envs=config.simulators.num_envs,
                num_workers=side.workers,
                transport=side.transport,  # type: ignore[arg-type]
            ),
            seed=config.seed,
        )
    )
    try:
        rollout = Rollout.on(pool.tensors, algorithm.groups, algorithm.memory_sizes)
        tape = grasp_tape(config.task)
        pool.start()
        algorithm.act(rollout, 0)  # loads code and kernels before the clock starts
        started_s = time.perf_counter()
        for step, action in enumerate(tape):
            slot = step % _HORIZON
            if step and slot == 0:
                pool.roll_over()
            algorithm.act(rollout, slot)
            pool.tensors["actions"][slot] = action
            pool.send(slot, policy_version=0)
            pool.wait(slot)
        return len(tape) * pool.num_envs / (time.perf_counter() - started_s)
    finally:
        pool.close()
