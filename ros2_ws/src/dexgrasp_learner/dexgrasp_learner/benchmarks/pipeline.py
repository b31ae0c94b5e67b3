"""`dexgrasp bench pipeline`: double-buffered groups of environments against the barrier.

The simulator only sleeps, as a GPU of its own would let the learner's processor sleep, and for as
long as the learner infers for all environments. Its time is proportional to its environments: the
barrier has one worker with all of them, double buffering two with half of them each, which never
simulate longer at once than the one does.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from tqdm import tqdm

from dexgrasp_learner.algorithms.ppo import Ppo, PpoConfig
from dexgrasp_learner.collector import Collector
from dexgrasp_learner.env_pool import PoolSpec, make_pool
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.rollout import Rollout
from dexgrasp_sim.specs import TensorSpec

GROUPS = {"barrier": 1, "double_buffered": 2}
_SPEC = TensorSpec("state", (180,))
_ACTION_DIM = 11
_HORIZON = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `dexgrasp bench pipeline --help`."""
    parser.add_argument("--envs", type=int, default=512)
    parser.add_argument("--memory", type=int, default=512, help="width of the LSTMs")
    parser.add_argument("--rollouts", type=int, default=4, help="rollouts of each per round")
    parser.add_argument("--rounds", type=int, default=5)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `double_buffered_ratio` is the steps per second over those of the barrier (at most 2), of
    medians.
    """
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {name: [] for name in GROUPS}
    inference_s: list[float] = []
    with tqdm(total=args.rounds * len(GROUPS), desc="bench pipeline", unit="run") as bar:
        for _ in range(args.rounds):
            inference_s.append(_inference_s(args))
            for name, groups in GROUPS.items():
                rates[name].append(_steps_per_s(args, groups, inference_s[-1] / groups))
                bar.update()
    barrier, double_buffered = (statistics.median(rates[name]) for name in GROUPS)
    figures = {
        "double_buffered_ratio": round(double_buffered / barrier, 3),
        "barrier_steps_per_s": round(barrier),
        "double_buffered_steps_per_s": round(double_buffered),
        "inference_ms": [round(1e3 * seconds, 3) for seconds in inference_s],
        "steps_per_s": {name: [round(rate) for rate in values] for name, values in rates.items()},
    }
    settings = {
        "envs": args.envs,
        "memory": args.memory,
        "horizon": _HORIZON,
        "rollouts": args.rollouts,
        "rounds": args.rounds,
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
    return Ppo(build_actor(network, specs, _ACTION_DIM), build_critic(network, specs), PpoConfig())


def _spec(args: argparse.Namespace, transport: Any, workers: int, step_s: float) -> PoolSpec:
    config = {
        "observations": {"state": {"shape": list(_SPEC.shape)}},
        "action_dim": _ACTION_DIM,
        "idle": True,
        "step_s": step_s,
    }
    groups = ("state",)
    return PoolSpec("synthetic", config, groups, _HORIZON, args.envs, workers, transport=transport)


def _inference_s(args: argparse.Namespace) -> float:
    """Median seconds to act for all environments once."""
    pool = make_pool(_spec(args, "in_process", 1, 0.0))
    algorithm = _build(args)
    rollout = Rollout(pool.tensors, algorithm.groups, algorithm.memory_sizes)
    pool.start()
    times_s = []
    with torch.inference_mode():
        for slot in range(_HORIZON):
            begin_s = time.perf_counter()
            algorithm.act(rollout, slot)
            times_s.append(time.perf_counter() - begin_s)
    pool.close()
    return statistics.median(times_s)


def _steps_per_s(args: argparse.Namespace, groups: int, step_s: float) -> float:
    """Control steps per second of all environments together, one worker for each group."""
    pool = make_pool(_spec(args, "shared_memory", groups, step_s))
    try:
        algorithm = _build(args)
        rollout = Rollout(pool.tensors, algorithm.groups, algorithm.memory_sizes)
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
