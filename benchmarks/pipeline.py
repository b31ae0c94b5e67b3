"""`dexgrasp bench pipeline`: the two overlapping pipelines, compared with the barrier.

The simulator only sleeps: a simulator on its own GPU would not use the learner's processor either.

Double-buffered groups of environments are measured on rollouts without updates. A simulation step
of all environments takes as long as the learner's inference for them, and is proportional to their
number: the barrier has one worker with all environments, double buffering two with half each.

Updates that overlap with the next rollout are measured on whole runs with two workers. All steps
of a rollout together take as long as an update.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from tqdm import tqdm

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pipeline.in_turn import InTurn
from dexgrasp_learner.pipeline.overlapped import Overlapped
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.timing import Stopwatch, rounded
from dexgrasp_sim.arguments import whole
from dexgrasp_sim.specs import TensorSpec

GROUPS = {"barrier": 1, "double_buffered": 2}
RUNS = {"barrier": InTurn, "overlapped": Overlapped}
_SPEC = TensorSpec("state", (180,))
_ACTION_DIM = 11
_HORIZON = 16
_WORKERS = 2
_PPO = PpoConfig(epochs=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench pipeline`."""
    for name, default, text in (
        ("--envs", 512, "environments to simulate"),
        ("--memory", 512, "width of the LSTMs"),
        ("--rollouts", 4, "rollouts of each pipeline per round"),
        ("--rounds", 5, "rounds of all pipelines"),
    ):
        parser.add_argument(name, type=whole(1), default=default, help=text)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `double_buffered_ratio` and `overlap_ratio` are the steps per second over those of the barrier
    (both at most 2), of medians; the first without updates, the second with them.
    """
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {name: [] for name in GROUPS}
    run_rates: dict[str, list[float]] = {name: [] for name in RUNS}
    seconds: dict[str, dict[str, float]] = {}
    inference_s: list[float] = []
    update_s: list[float] = []
    total = args.rounds * (len(GROUPS) + len(RUNS))
    with tqdm(total=total, desc="bench pipeline", unit="run", disable=None) as bar:
        for _ in range(args.rounds):
            inference, update = _learner_s(args)
            inference_s.append(inference)
            update_s.append(update)
            for name, groups in GROUPS.items():
                rates[name].append(_steps_per_s(args, groups, inference / groups))
                bar.update()
            for name, kind in RUNS.items():
                rate, seconds[name] = _run(args, kind, update / _HORIZON)
                run_rates[name].append(rate)
                bar.update()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    run_medians = {name: statistics.median(values) for name, values in run_rates.items()}
    figures = {
        "double_buffered_ratio": round(medians["double_buffered"] / medians["barrier"], 3),
        "overlap_ratio": round(run_medians["overlapped"] / run_medians["barrier"], 3),
        **{f"{name}_steps_per_s": round(rate) for name, rate in medians.items()},
        **{f"{name}_run_steps_per_s": round(rate) for name, rate in run_medians.items()},
        "inference_ms": [round(1e3 * value, 3) for value in inference_s],
        "update_s": [round(value, 3) for value in update_s],
        "run_seconds": {name: rounded(stages) for name, stages in seconds.items()},
        "steps_per_s": {name: [round(rate) for rate in values] for name, values in rates.items()},
        "run_steps_per_s": {
            name: [round(rate) for rate in values] for name, values in run_rates.items()
        },
    }
    settings = {
        "envs": args.envs,
        "memory": args.memory,
        "horizon": _HORIZON,
        "rollouts": args.rollouts,
        "rounds": args.rounds,
        "run_workers": _WORKERS,
        "run_epochs": _PPO.epochs,
    }
    return settings, figures


def _build(args: argparse.Namespace) -> Ppo:
    network = NetworkConfig(
        actor_groups=("state",),
        critic_groups=("state",),
        memory="lstm",
        memory_size=args.memory,
        critic_memory="lstm",
        critic_memory_size=args.memory,
    )
    specs = {"state": _SPEC}
    return Ppo(
        build_actor(network, specs, _ACTION_DIM, view=RunConfig().table_view),
        build_critic(network, specs, view=RunConfig().table_view),
        _PPO,
    )


def _spec(args: argparse.Namespace, transport: Any, workers: int, step_s: float) -> PoolSpec:
    config = {
        "observations": {"state": {"shape": list(_SPEC.shape)}},
        "action_dim": _ACTION_DIM,
        "idle": True,
        "step_s": step_s,
    }
    groups = ("state",)
    simulators = SimulatorsConfig(num_envs=args.envs, num_workers=workers, transport=transport)
    return PoolSpec("synthetic", config, groups, _HORIZON, simulators)


def _learner_s(args: argparse.Namespace) -> tuple[float, float]:
    """Median seconds to act for all environments once, and seconds of an update."""
    pool = make_pool(_spec(args, "in_process", 1, 0.0))
    algorithm = _build(args)
    rollout = Rollout.on(pool.tensors, algorithm.groups, algorithm.memory_sizes)
    pool.start()
    times_s = []
    with torch.inference_mode():
        for slot in range(_HORIZON):
            begin_s = time.perf_counter()
            algorithm.act(rollout, slot)
            times_s.append(time.perf_counter() - begin_s)
            pool.send(slot, 0)
    algorithm.update(rollout)  # loads code and kernels before the clock starts
    begin_s = time.perf_counter()
    algorithm.update(rollout)
    update_s = time.perf_counter() - begin_s
    pool.close()
    return statistics.median(times_s), update_s


def _steps_per_s(args: argparse.Namespace, groups: int, step_s: float) -> float:
    """Control steps per second of all environments together, one worker for each group."""
    pool = make_pool(_spec(args, "shared_memory", groups, step_s))
    try:
        algorithm = _build(args)
        rollout = Rollout.on(pool.tensors, algorithm.groups, algorithm.memory_sizes)
        collector = Collector(pool, rollout, algorithm, groups)
        pool.start()
        collector.collect(policy_version=0)  # loads code and kernels before the clock starts
        begin_s = time.perf_counter()
        for _ in range(args.rollouts):
            pool.roll_over()
            collector.collect(policy_version=0)
        steps = args.rollouts * _HORIZON * args.envs
        return steps / (time.perf_counter() - begin_s)
    finally:
        pool.close()


def _run(
    args: argparse.Namespace, kind: type[InTurn | Overlapped], step_s: float
) -> tuple[float, dict[str, float]]:
    """Control steps per second of a run with updates, and the learner's seconds by stage."""
    pool = make_pool(_spec(args, "shared_memory", _WORKERS, step_s))
    algorithm, watch = _build(args), Stopwatch()
    rollout = Rollout.on(pool.tensors, algorithm.groups, algorithm.memory_sizes)
    collector = Collector(pool, rollout, algorithm, stopwatch=watch)
    pipeline = kind(pool, rollout, collector, algorithm, watch, update_threads=1)
    try:
        pool.start()
        pipeline.iterate(0, look_ahead=True)
        watch.seconds.clear()
        begin_s = time.perf_counter()
        for version in range(1, args.rollouts + 1):
            pipeline.iterate(version, look_ahead=True)
        steps = args.rollouts * _HORIZON * args.envs
        return steps / (time.perf_counter() - begin_s), watch.seconds
    finally:
        pool.close()
        pipeline.close()
