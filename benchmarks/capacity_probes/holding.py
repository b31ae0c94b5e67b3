"""One process of `dexgrasp bench gpu_capacity`: what simulators and a learner hold on a device.

`python -m benchmarks.capacity_probes.holding HOLDING` prints a JSON object of figures.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor

from benchmarks import CHECKOUT
from benchmarks.capacity_probes.search import largest_that_fits
from benchmarks.gpu.device import check_device, footprint_bytes, release
from benchmarks.gpu.parts import is_out_of_memory
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.capacity.workload import Storage, is_image
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.assembly import build_ppo, pool_spec
from dexgrasp_sim.config import STRICT, replace, to_dict
from dexgrasp_sim.environments import make_env
from dexgrasp_sim.vec_env import allocate

_STEPS = 4


@dataclass(frozen=True, config=STRICT)
class Holding:
    """What a process holds.

    Attributes:
        role: `simulator`: environments. `learner`: as many environments' rollout and update as
            fit, on artificial observations. `run`: simulators and a learner, for a whole rollout
            and update.
        config: The run, plain values.
        device: Of the process.
        envs: Environments; for `learner` where the search begins.
        most: Largest number that the search tries.
        storage: Element type of images in the rollout.
        micro_batch: Samples whose activations are held at a time; None: the whole rollout.
        budget_bytes: For `learner`, of the emulated device; enforced on GPUs only.
        simulator_fixed: Bytes that simulators on the same device hold, for `learner`.
        simulator_env: The same per environment.
        workers: For `run`, processes that simulate; 0: this one.
    """

    role: Literal["simulator", "learner", "run"]
    config: dict[str, Any]
    device: str
    envs: int
    most: int = 2**20
    storage: Storage = "int16"
    micro_batch: int | None = None
    budget_bytes: float = 0.0
    simulator_fixed: float = 0.0
    simulator_env: float = 0.0
    workers: int = 0


def hold(holding: Holding) -> dict[str, Any]:
    """Carries out a holding; its figures."""
    device = check_device(holding.device)
    torch.set_num_threads(1)
    config = TypeAdapter(RunConfig).validate_python(holding.config)
    if holding.role == "simulator":
        return {"bytes": _simulate(holding, config, device)}
    if holding.role == "learner":
        return _search(holding, config, device)
    return {"bytes": _run(holding, config, device)}


@torch.inference_mode()
def _simulate(holding: Holding, config: RunConfig, device: torch.device) -> int:
    """Bytes of a process that simulates."""
    env = make_env(
        "grasp", to_dict(config.task), holding.envs, 0, 1, config.groups, 0, str(device)
    )
    out = allocate(env)
    env.reset(out)
    actions = torch.zeros(holding.envs, env.action_dim, device=device)
    for _ in range(_STEPS):
        env.step(actions, out)
    env.reset_envs(torch.arange(holding.envs, device=device), out)
    held = footprint_bytes(device)
    env.close()
    return held


def _search(holding: Holding, config: RunConfig, device: torch.device) -> dict[str, Any]:
    """The largest number of environments from which a learner learns within its budget."""
    _learn(holding, config, device, 2)  # loads code, which is part of the context
    release(device)
    context = 0 if holding.simulator_fixed else footprint_bytes(device)
    tried: dict[int, bool] = {}

    def fits(envs: int) -> bool:
        if envs > holding.most:
            return False
        taken = context + holding.simulator_fixed + holding.simulator_env * envs
        if envs not in tried:
            tried[envs] = _fits(holding, config, device, envs, holding.budget_bytes - taken)
            print(f"{envs} {'fit' if tried[envs] else 'do not fit'}", file=sys.stderr)
        return tried[envs]

    largest = largest_that_fits(min(holding.envs, holding.most), fits)
    return {"environments": largest, "context_bytes": context, "tried": len(tried)}


def _fits(
    holding: Holding, config: RunConfig, device: torch.device, envs: int, budget: float
) -> bool:
    if budget <= 0:
        return False
    release(device)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(budget / total, 1.0), device)
    try:
        _learn(holding, config, device, envs)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _learn(holding: Holding, config: RunConfig, device: torch.device, envs: int) -> None:
    """Two steps of inference and one update on artificial observations."""
    sized = _sized(holding, config, envs)
    ppo = build_ppo(sized)
    layout = pool_spec(sized, None, sized.groups).layout()
    images = {spec.name for spec in layout.observation_specs if is_image(spec)}
    tensors: dict[str, Tensor] = {}
    for block in layout.rollout_blocks:
        dtype = getattr(torch, holding.storage) if block.name in images else block.torch_dtype
        tensors[block.name] = torch.ones(block.shape, dtype=dtype, device=device)
    rollout = Rollout.on(tensors, ppo.groups, ppo.memory_sizes, device)
    with torch.inference_mode():
        for slot in range(2):
            ppo.act(rollout, slot)
    ppo.update(rollout)


def _run(holding: Holding, config: RunConfig, device: torch.device) -> int:
    """Bytes of all processes of a real rollout and update together."""
    sized = _sized(holding, config, holding.envs)
    own = "in_process" if holding.workers == 0 else "shared_memory"
    simulators = replace(
        sized.simulators, num_workers=max(holding.workers, 1), transport=own, device=str(device)
    )
    sized = replace(sized, simulators=simulators)
    ppo: Ppo = build_ppo(sized)
    with ExitStack() as stack:
        pool = make_pool(pool_spec(sized, None, sized.groups))
        stack.callback(pool.close)
        pool.start()
        rollout = Rollout.on(pool.tensors, ppo.groups, ppo.memory_sizes, ppo.device)
        Collector(pool, rollout, ppo).collect(0)
        ppo.update(rollout)
        return footprint_bytes(device)


def _sized(holding: Holding, config: RunConfig, envs: int) -> RunConfig:
    """The run with so many environments, its update in pieces of the holding's micro-batch."""
    samples = envs * config.training.horizon
    pieces = min(math.ceil(samples / (holding.micro_batch or samples)), envs)
    ppo = replace(config.ppo, epochs=1, minibatches=1, micro_batches=pieces)
    learner = "cpu" if holding.device == "cpu" else "cuda"
    training = replace(config.training, device=learner)
    simulators = replace(config.simulators, num_envs=envs, num_workers=1)
    return replace(config, ppo=ppo, training=training, simulators=simulators)


def run_holding(holding: Holding, timeout_s: float) -> dict[str, Any]:
    """The figures of a holding in a process of its own.

    Raises:
        RuntimeError: It failed; the message is the end of its error text.
    """
    module = "benchmarks.capacity_probes.holding"
    command = [sys.executable, "-m", module, json.dumps(to_dict(holding))]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        raise RuntimeError(done.stderr.strip()[-800:] or f"code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries out one holding and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("holding", help="JSON of Holding")
    options = parser.parse_args(arguments)
    print(json.dumps(hold(TypeAdapter(Holding).validate_json(options.holding))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
