"""One side of `dexgrasp bench learner`, in a separate process: one rollout and one update.

`python -m benchmarks.learner_side SIDE SIZES` prints a `SideResult` as JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch
from pydantic import TypeAdapter

from benchmarks.learner_workload import (
    ACTION_DIM,
    PPO,
    SideResult,
    Sizes,
    build_nets,
    count_parameters,
    drift,
    peak_memory_mib,
    slot_tensors,
    start_measuring_memory,
    timed_updates,
)
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.config import replace

SIDES = ("dexgrasp", "whole_minibatches", "rsl_rl")
"""Ours with its defaults, ours with every minibatch computed in one piece, and rsl_rl's."""

_TINY = Sizes(envs=16, horizon=2, proprio=2, privileged=2, memory=2, hidden=(2,))


def run_ours(sizes: Sizes, micro_batches: int | None = None) -> SideResult:
    """Our PPO on tensors like those of an environment pool, which simulators fill in place.

    Args:
        sizes: Of the rollout and the nets.
        micro_batches: See `PpoConfig`.
    """
    base_mib = start_measuring_memory(sizes.device)
    actor, critic = build_nets(sizes)
    ppo = Ppo(actor, critic, replace(PPO, micro_batches=micro_batches), seed=0)
    slots = sizes.horizon + 1
    tensors = {
        name: tensor.new_zeros(slots, *tensor.shape)
        for name, tensor in slot_tensors(sizes, 0).items()
    }
    tensors["actions"] = torch.zeros(sizes.horizon, sizes.envs, ACTION_DIM, device=sizes.device)
    rollout = Rollout.on(tensors, ppo.groups, ppo.memory_sizes, sizes.device)
    with torch.inference_mode():
        for slot in range(slots):
            for name, tensor in slot_tensors(sizes, slot).items():
                tensors[name][slot] = tensor
            if slot < sizes.horizon:
                ppo.act(rollout, slot)
    drift(actor, critic)
    metrics, update_cpu_s, update_s = timed_updates(lambda: ppo.update(rollout), sizes)
    return SideResult(
        update_cpu_s,
        update_s,
        peak_memory_mib(sizes.device) - base_mib,
        metrics["surrogate"],
        metrics["value"],
        count_parameters(actor, critic),
    )


def _run(side: str, sizes: Sizes) -> SideResult:
    if side == "rsl_rl":
        from benchmarks.peers.rsl_rl import run_theirs

        return run_theirs(sizes)
    return run_ours(sizes, 1 if side == "whole_minibatches" else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one side and prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("sizes", help="JSON of Sizes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = TypeAdapter(Sizes).validate_json(options.sizes)
    _run(
        options.side, replace(_TINY, device=sizes.device)
    )  # loads code that a side would otherwise load during its update
    result = _run(options.side, sizes)
    print(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
