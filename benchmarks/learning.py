"""`dexgrasp bench learning`: how fast and how surely the laptop presets learn, and what it costs.

Every training is a `dexgrasp train` of its own. Its policy is judged by its mean action on
episodes that neither training nor the evaluations of the run have drawn, and, where it sees
images, also with those of another environment. Beside wall time stand environment steps and CPU
seconds, which depend less on other load of the machine. On a machine with many cores several
trainings can run at once.
"""

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import CHECKOUT
from benchmarks.peers.conv_encoder import former_ppo
from benchmarks.trainings import train_and_judge
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.assembly import build_ppo
from dexgrasp_sim.arguments import add_overrides, add_seeds, number, whole
from dexgrasp_sim.config import replace
from dexgrasp_sim.tasks.grasp.observations import all_specs

TARGET = 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench learning`."""
    presets = [Path("config/laptop_depth.yaml"), Path("config/laptop_state.yaml")]
    parser.add_argument("--presets", type=Path, nargs="*", default=presets, help="run configs")
    add_seeds(parser, 5, "the runs")
    parser.add_argument("--episodes", type=whole(1), default=400, help="of the final evaluations")
    parser.add_argument("--minutes", type=number(above=0.0), default=10.0, help="longest training")
    parser.add_argument(
        "--at-once", type=whole(1, 256), default=1, help="trainings that run at the same time"
    )
    parser.add_argument("--updates", type=whole(1), default=3, help="repetitions of the update")
    add_overrides(parser)


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `presets`: for each its `runs`, how many of them end at 0.95 or more (`reached`), and medians.
    `update`: CPU seconds of an update of `laptop_depth` as it is and with the former encoder,
    minibatches, optimizers and precision, and their ratio.
    """
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"presets": {}, "update": _update_costs(args.updates)}
    jobs = [(preset, seed) for preset in args.presets for seed in args.seeds]
    with (
        ThreadPoolExecutor(args.at_once) as pool,
        tqdm(total=len(jobs), desc="bench learning", unit="run", disable=None) as bar,
    ):
        results = pool.map(lambda job: _run(job[0], job[1], args), jobs)
        runs: dict[str, list[dict[str, Any]]] = {preset.stem: [] for preset in args.presets}
        for (preset, _), result in zip(jobs, results, strict=True):
            runs[preset.stem].append(result)
            bar.update()
    for name, each in runs.items():
        figures["presets"][name] = {"runs": each, **_summary(each)}
    settings = {
        "seeds": args.seeds,
        "episodes": args.episodes,
        "minutes": args.minutes,
        "at_once": args.at_once,
        "overrides": args.overrides,
        "target": TARGET,
    }
    return settings, figures


def _run(preset: Path, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    limits = [f"training.max_minutes={args.minutes}", *args.overrides]
    run = train_and_judge(preset, seed, args.episodes, limits)
    reached = next((point for point in run["curve"] if point[1] >= TARGET), (None,) * 4)
    names = ("steps_to_target", "success_there", "minutes_to_target", "cpu_minutes_to_target")
    return {**run, **dict(zip(names, reached, strict=True))}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "reached": sum(run["success"] >= TARGET for run in runs),
        "of": len(runs),
        "lowest_success": min(run["success"] for run in runs),
        **{
            f"median_{name}": statistics.median(run[name] for run in runs)
            for name in ("success", "steps", "minutes", "cpu_s")
        },
    }


def _update_costs(repeats: int) -> dict[str, Any]:
    """CPU seconds of updates of one synthetic rollout, one thread; both kinds take turns."""
    config = load_run_config(CHECKOUT / "config" / "laptop_depth.yaml")
    present = build_ppo(config)
    nets = build_ppo(config)
    settings = replace(config.ppo, micro_batches=2, precision="float32")
    former = former_ppo(nets.actor, nets.critic, settings)
    passes = config.ppo.epochs * config.training.horizon * config.simulators.num_envs
    seconds = {"present": [], "former": []}
    for _ in range(repeats + 1):  # the first one warms up
        for name, ppo in (("present", present), ("former", former)):
            rollout = _rollout(ppo, config)
            began_s = time.process_time()
            ppo.learn(rollout)
            seconds[name].append(time.process_time() - began_s)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {
        "passes": passes,
        **{f"{name}_cpu_s": round(value, 3) for name, value in medians.items()},
        "ratio": round(medians["present"] / medians["former"], 3),
    }


def _rollout(ppo: Ppo, config: RunConfig) -> Rollout:
    """A finished rollout of random observations, equal in every call."""
    generator = torch.Generator().manual_seed(0)
    specs, steps = all_specs(config.task), config.training.horizon
    slots = (steps + 1, config.simulators.num_envs)
    tensors = {
        "reward": torch.rand(slots, generator=generator),
        "terminated": torch.rand(slots, generator=generator) < 0.01,
        "truncated": torch.zeros(slots, dtype=torch.bool),
        "actions": torch.zeros(steps, slots[1], ppo.actor.action_dim),
    }
    for name in ppo.groups:
        shape = (*slots, *specs[name].shape)
        if specs[name].dtype == "int16":
            depth = torch.randint(200, 950, shape, generator=generator)
            tensors[name] = depth.to(torch.int16)
        else:
            tensors[name] = torch.randn(shape, generator=generator)
    rollout = Rollout.on(tensors, ppo.groups, ppo.memory_sizes)
    for slot in range(steps):
        ppo.act(rollout, slot)
    ppo.finish(rollout)
    return rollout
