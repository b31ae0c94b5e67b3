"""`dexgrasp bench learning`: how fast and how surely the laptop presets learn, and what it costs.

Every training is a `dexgrasp train` of its own. Its policy is judged by its mean action on
episodes that neither training nor the evaluations of the run have drawn, and, where it sees
images, also with those of another environment. Beside wall time stand environment steps and CPU
seconds, which depend less on other load of the machine. On a machine with many cores several
trainings can run at once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import CHECKOUT
from benchmarks.peers.conv_encoder import FormerPpo, make_former
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.assembly import build_ppo
from dexgrasp_sim.arguments import add_overrides, number, whole
from dexgrasp_sim.config import LARGEST_SEED, replace
from dexgrasp_sim.tasks.grasp.observations import all_specs, image_groups

TARGET = 0.95
_SEED = 2_000_003
_SLOWEST_S = 7200.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench learning`."""
    presets = [Path("config/laptop_depth.yaml"), Path("config/laptop_state.yaml")]
    parser.add_argument("--presets", type=Path, nargs="*", default=presets, help="run configs")
    parser.add_argument(
        "--seeds",
        type=whole(0, LARGEST_SEED),
        nargs="+",
        default=[0, 1, 2, 3, 4],
        help="seeds of the runs",
    )
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
    minibatches and optimizers, and their ratio.
    """
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"presets": {}, "update": _update_costs(args.updates)}
    jobs = [(preset, seed) for preset in args.presets for seed in args.seeds]
    with (
        ThreadPoolExecutor(args.at_once) as pool,
        tqdm(total=len(jobs), desc="bench learning", unit="run", disable=None) as bar,
    ):
        results = pool.map(lambda job: _train_and_judge(job[0], job[1], args), jobs)
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


@dataclass(frozen=True)
class Ended:
    """What a `dexgrasp` command printed as JSON, and the CPU time of all its processes."""

    result: dict[str, Any]
    cpu_s: float


def _dexgrasp(*words: str) -> Ended:
    """Runs a command to its end; RuntimeError with its last words if it fails or hangs."""
    command = [sys.executable, "-m", "dexgrasp_deploy.commands.cli", *words, "--json"]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=messages)
        limit = Timer(_SLOWEST_S, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        messages.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: {messages.read()[-500:]}")
        result = json.loads(output.read().splitlines()[-1])
    return Ended(result, usage.ru_utime + usage.ru_stime)


def _train_and_judge(preset: Path, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as runs:
        limits = [f"seed={seed}", f"training.max_minutes={args.minutes}", *args.overrides]
        options = [part for text in limits for part in ("--set", text)]
        began_s = time.monotonic()
        training = _dexgrasp("train", str(preset), "--runs", runs, *options)
        minutes = (time.monotonic() - began_s) / 60
        folder = Path(training.result["run_dir"])
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return {
            "seed": seed,
            "steps": training.result["env_steps"],
            "minutes": round(minutes, 2),
            "cpu_s": round(training.cpu_s, 1),
            **_time_to_target([json.loads(line) for line in lines]),
            **_judge(folder, load_run_config(folder / "config.yaml"), seed, args.episodes),
        }


def _time_to_target(records: list[dict[str, Any]]) -> dict[str, Any]:
    """When an evaluation of the run first reached the target; None where none did."""
    first = next((r for r in records if r.get("evaluation/success_rate", 0.0) >= TARGET), {})
    return {
        "steps_to_target": first.get("run/env_steps"),
        "minutes_to_target": first.get("run/minutes"),
        "exploring_success": records[-1].get("episode/success"),
        "estimate_error_m": records[-1].get("update/estimate_error"),
        "curve": [
            [int(record["run/env_steps"]), record["evaluation/success_rate"]]
            for record in records
            if "evaluation/success_rate" in record
        ],
    }


def _judge(folder: Path, config: RunConfig, seed: int, episodes: int) -> dict[str, Any]:
    words = ["evaluate", str(folder), "--threads", "1", "--seed", str(_SEED + seed)]
    words += ["--episodes", str(episodes)]
    result = _dexgrasp(*words).result
    figures = {
        "success": result["success_rate"],
        "interval": [result["success_low"], result["success_high"]],
        "per_object": {name: item["success_rate"] for name, item in result["per_object"].items()},
    }
    if set(config.network.actor_groups) & set(image_groups()):
        swapped = _dexgrasp(*words, "--swap-images").result
        figures["success_with_swapped_images"] = swapped["success_rate"]
    return figures


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
    former = FormerPpo(nets.actor, nets.critic, replace(config.ppo, micro_batches=2))
    make_former(former)
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
