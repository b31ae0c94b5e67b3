"""`dexgrasp bench equivalence`: checks that splitting environments over processes changes nothing.

Trains the same run in one process and with one, two and four workers, and compares every byte of
the last rollout and of the weights.
"""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.assembly import build_ppo, pool_spec
from dexgrasp_sim.arguments import whole
from dexgrasp_sim.config import replace


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of what a run produced."""

    rollout: str
    weights: str


SPLITS = (("in_process", 1), ("shared_memory", 1), ("shared_memory", 2), ("shared_memory", 4))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench equivalence`."""
    parser.add_argument(
        "--config", type=Path, default=Path("config/smoke.yaml"), help="YAML file of the run"
    )
    parser.add_argument("--iterations", type=whole(1), default=10, help="iterations of each run")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures; `equal` is True when all four runs agree in every byte."""
    config = load_run_config(args.config)
    prints: dict[str, Fingerprint] = {}
    for transport, workers in tqdm(SPLITS, desc="bench equivalence", unit="run", disable=None):
        simulators = replace(config.simulators, transport=transport, num_workers=workers)
        split = replace(config, simulators=simulators)
        prints[f"{transport}_{workers}"] = _train(split, args.iterations)
    figures = {
        "equal": len(set(prints.values())) == 1,
        "fingerprints": {name: [p.rollout, p.weights] for name, p in prints.items()},
    }
    settings = {
        "envs": config.simulators.num_envs,
        "iterations": args.iterations,
        "horizon": config.training.horizon,
        "memory": config.network.memory,
        "groups": config.groups,
    }
    return settings, figures


def _train(config: RunConfig, iterations: int) -> Fingerprint:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    algorithm = build_ppo(config)
    pool = make_pool(pool_spec(config, None, algorithm.groups))
    try:
        rollout = Rollout.on(pool.tensors, algorithm.groups, algorithm.memory_sizes)
        pool.start()
        for iteration in range(iterations):
            if iteration:
                pool.roll_over()
            for slot in range(rollout.horizon):
                algorithm.act(rollout, slot)
                pool.send(slot, policy_version=iteration)
                pool.wait(slot)
            algorithm.update(rollout)
        tensors = {name: t for name, t in pool.tensors.items() if name != "sequence"}
        weights = {**algorithm.actor.state_dict(), **algorithm.critic.state_dict()}
        return Fingerprint(_digest(tensors), _digest(weights))
    finally:
        torch.use_deterministic_algorithms(False)
        pool.close()


def _digest(tensors: dict[str, Tensor]) -> str:
    """16 hexadecimal digits over names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        flat = tensors[name].detach().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
