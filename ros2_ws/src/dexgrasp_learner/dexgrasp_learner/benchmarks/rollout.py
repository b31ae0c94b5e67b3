"""`dexgrasp bench rollout`: control steps per second with and without worker processes.

Both sides run the same loop: policy inference for all environments, then a control step. All
environments follow one tape of actions that approaches, grasps and lifts an object at the spawn
centre, so that contacts, which cost most of the physics, weigh as in an episode.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.env_pool import PoolSpec, make_pool
from dexgrasp_learner.rollout import Rollout
from dexgrasp_learner.runner import build_ppo
from dexgrasp_sim.config import replace, to_dict

_HORIZON = 16
_APPROACH_S, _CLOSE_S, _LIFT_S = 0.7, 0.8, 1.0
_DESCENT_M_S = 0.16
"""The grasp centre starts 17 cm above the table; the objects' centres are 3.5 to 5 cm above it."""
OBSERVATIONS = {"state": ("proprio", "state"), "depth": ("proprio", "depth")}


@dataclass(frozen=True)
class Side:
    """One way to run the loop."""

    name: str
    transport: str
    workers: int


SIDES = (Side("one_process", "in_process", 1), Side("two_workers", "shared_memory", 2))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `dexgrasp bench rollout --help`."""
    parser.add_argument("--config", type=Path, default=Path("config/laptop_depth.yaml"))
    parser.add_argument("--envs", type=int, default=128)
    parser.add_argument("--control-hz", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=3)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures; `ratio` is two workers over one process for depth, wall clock."""
    config = _config(args)
    rates: dict[str, dict[str, list[int]]] = {
        observation: {side.name: [] for side in SIDES} for observation in OBSERVATIONS
    }
    rounds = args.repeats * len(OBSERVATIONS) * len(SIDES)
    with tqdm(total=rounds, desc="bench rollout", unit="run") as bar:
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


def _config(args: argparse.Namespace) -> RunConfig:
    """The task at the asked rate on the reference physics, objects where the tape grasps."""
    config = load_run_config(
        args.config,
        [
            f"task.control_hz={args.control_hz}",
            "task.physics.integrator=implicitfast",
            f"task.physics.timestep_s={1 / 120}",
            "task.spawn.half_width_m=[0.0, 0.0]",
            "task.stagger_starts=false",
        ],
    )
    return replace(config, simulators=replace(config.simulators, num_envs=args.envs))


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
            num_envs=config.simulators.num_envs,
            num_workers=side.workers,
            seed=config.seed,
            transport=side.transport,  # type: ignore[arg-type]
        )
    )
    try:
        rollout = Rollout(pool.tensors, algorithm.groups, algorithm.memory_sizes)
        tape = _grasp_tape(config)
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


def _grasp_tape(config: RunConfig) -> Tensor:
    """Actions [T, A]: down, close, up."""
    action, rate_hz = config.task.action, config.task.control_hz
    names = action.dimensions
    tape = torch.zeros(round((_APPROACH_S + _CLOSE_S + _LIFT_S) * rate_hz), len(names))
    closing, lifting = round(_APPROACH_S * rate_hz), round((_APPROACH_S + _CLOSE_S) * rate_hz)
    tape[:closing, names.index("palm_z")] = -_DESCENT_M_S / action.palm_speed_m_s
    tape[closing:, names.index("finger_closure")] = 1.0
    tape[closing:, names.index("thumb_closure")] = 1.0
    tape[lifting:, names.index("palm_z")] = _DESCENT_M_S / action.palm_speed_m_s
    return tape
