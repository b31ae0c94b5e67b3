"""`dexgrasp bench deploy`: the control loop of a simulated robot, all nodes over DDS.

The nodes are those of `dexgrasp up sim`: drivers with physics in real time, camera, policy. The
policy is a small one of random weights at 60 Hz; what it does to the robot does not matter here.

With `--bundle` it is that policy, and its success on the twin is compared with that of `dexgrasp
evaluate` with the same seed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from benchmarks.deploy_fault_kinds.case import write_small_bundle
from dexgrasp_deploy.processes import EPISODE_NODE
from dexgrasp_learner.storage.bundle import read_manifest
from dexgrasp_sim.arguments import add_seed, number, whole
from dexgrasp_sim.config import STRICT, ConfigError, parse_config

Positive = Annotated[float, Field(gt=0)]
_START_S = 600.0
_EPISODE_S = 300.0
_LIMIT_S = 4 * 3600.0
_CLI = (sys.executable, "-m", "dexgrasp_deploy.commands.cli")
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, config=STRICT)
class DeployConfig:
    """What is measured.

    Attributes:
        seconds: How long the policy acts.
        control_hz: Control rate of the small policy.
    """

    seconds: Positive = 60.0
    control_hz: Positive = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench deploy`."""
    parser.add_argument(
        "--seconds",
        type=number(above=0.0, most=3600.0),
        default=60.0,
        help="time that the policy acts",
    )
    parser.add_argument(
        "--control-hz", type=number(1.0, 1000.0), default=60.0, help="rate of the small policy"
    )
    parser.add_argument("--params", type=Path, help="ROS parameter file on top of the defaults")
    parser.add_argument("--bundle", type=Path, help="policy whose success is to be measured")
    parser.add_argument(
        "--episodes", type=whole(1, 10_000), default=60, help="of the bundle (default 60)"
    )
    add_seed(parser, 0, "the episodes of the bundle")


def result_name(args: argparse.Namespace) -> str:
    """Name of the result file."""
    return "deploy_success" if args.bundle else "deploy"


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    Of the small policy: `control_hz`, `steps`, `deadline_misses` and their share, `ended`,
    `latency` (p50, p90, p99, max and computing time in ms of each stage, with `image to command`)
    and `cpu_ms_per_period` of each node. Of a bundle: `twin`, `evaluation` and the `gap` between
    their success rates.

    Raises:
        ConfigError: An argument is not allowed, or the nodes did not run.
    """
    return _success(args) if args.bundle else _loop(args)


def _loop(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    values = {"seconds": args.seconds, "control_hz": args.control_hz}
    config = parse_config(DeployConfig, values, source="bench deploy")
    with tempfile.TemporaryDirectory(prefix="dexgrasp_bench_deploy_") as folder:
        bundle = write_small_bundle(Path(folder) / "bundle", config.control_hz, config.seconds)
        limit_s = _START_S + config.seconds
        result, samples = _up(["--bundle", str(bundle), "--episodes", "1"], args.params, limit_s)
    (outcome,) = result["outcomes"]
    steps, misses = outcome["steps"], result["deadline_misses"]
    latency = result["latency"] or {"stages": {}}
    figures = {
        "steps": steps,
        "control_hz": result["control_hz"],
        "deadline_misses": misses,
        "deadline_misses_share": round(misses / steps, 5) if steps else None,
        "ended": outcome["ended"],
        "latency": _stages(latency),
        "cpu_ms_per_period": _cpu_ms(samples, config),
    }
    return {**values, "nodes": ["robot_driver_node", "camera_node", "policy_node"]}, figures


def _success(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    manifest = read_manifest(args.bundle)
    chosen = ["--episodes", str(args.episodes), "--seed", str(args.seed)]
    limit_s = _START_S + args.episodes * _EPISODE_S
    result, _ = _up(["--bundle", str(args.bundle), *chosen], args.params, limit_s)
    evaluated = _json([*_CLI, "evaluate", str(args.bundle), *chosen, "--no-control", "--json"])
    names = ("episodes", "refused", "success_rate", "control_hz", "deadline_misses", "safety")
    twin = {name: result[name] for name in names}
    twin["latency"] = _stages(result["latency"] or {"stages": {}})
    names = ("episodes", "success_rate", "success_low", "success_high")
    evaluation = {name: evaluated[name] for name in names}
    rates = twin["success_rate"], evaluation["success_rate"]
    figures = {
        "twin": twin,
        "evaluation": evaluation,
        "gap": None if None in rates else round(rates[0] - rates[1], 4),
    }
    return {"bundle": manifest.bundle_id, "episodes": args.episodes, "seed": args.seed}, figures


def _stages(latency: dict[str, Any]) -> dict[str, Any]:
    """A latency report without its histograms."""
    return {
        name: {key: value for key, value in stage.items() if key != "histogram"}
        for name, stage in latency["stages"].items()
    }


Sample = tuple[float, dict[str, float]]
"""Monotonic time, and the computing time of each node since its start, s."""


def _up(
    arguments: list[str], params: Path | None, limit_s: float
) -> tuple[dict[str, Any], list[Sample]]:
    """The JSON of `dexgrasp up sim`, and what its nodes have computed, once in a second."""
    more = ["--params", str(params)] if params else []
    process = subprocess.Popen(
        [*_CLI, "up", "sim", "--json", *arguments, *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    samples: list[Sample] = []
    end_s = time.monotonic() + limit_s
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=1.0)
                break
            except subprocess.TimeoutExpired:
                samples.append((time.monotonic(), _computed(process.pid)))
                if time.monotonic() > end_s:
                    raise ConfigError(f"dexgrasp up did not end within {limit_s:.0f} s") from None
    finally:
        process.terminate()
        process.wait(_START_S)
    if process.returncode:
        raise ConfigError(f"dexgrasp up ended with exit code {process.returncode}, see above")
    return json.loads(output.splitlines()[-1]), samples


def _json(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=_LIMIT_S
    )
    if done.returncode:
        raise ConfigError(f"{' '.join(command[3:5])} failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def _computed(parent: int) -> dict[str, float]:
    """Computing time of the nodes that a process has started, s."""
    found: dict[str, float] = {}
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        user, system = (int(ticks) for ticks in fields[11:13])
        if "-m" in command:
            module = command[command.index("-m") + 1]
            found[module.rpartition(".")[2]] = _TICK_S * (user + system)
    return found


def _cpu_ms(samples: list[Sample], config: DeployConfig) -> dict[str, float]:
    """Computing time of each node in ms per control period, in the middle of the episode."""
    running = [sample for sample in samples if EPISODE_NODE in sample[1]]
    if not running:
        return {}
    end_s = running[-1][0]  # it ends with the episode
    times_s = (end_s - 0.75 * config.seconds, end_s - 0.25 * config.seconds)
    first, last = (min(running, key=lambda each: abs(each[0] - at)) for at in times_s)
    periods = (last[0] - first[0]) * config.control_hz
    if periods <= 0:
        return {}
    return {
        node: round(1000 * (spent_s - first[1].get(node, 0.0)) / periods, 3)
        for node, spent_s in last[1].items()
    }
