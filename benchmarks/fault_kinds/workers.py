"""A training run whose simulator workers are killed and stopped.

Small recurrent PPO on synthetic environments, in worker processes. At random times a random worker
is killed (SIGKILL) or stopped (SIGSTOP, so that it hangs). The last worker gets no such faults;
one of its environments gives NaN at a fixed interval of steps. A fault counts as survived when the
new worker has filled the missing slot, a NaN when its environment was reset.
"""

import argparse
import math
import os
import random
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.pipeline.collector import Collector
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.restarts import Restart
from dexgrasp_learner.pool.worker_pool import WorkerPool
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_sim.arguments import LONGEST_S, add_seed, number, whole
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.shared_memory import run_folder
from dexgrasp_sim.transport.telemetry import read_statuses

_ENVS_PER_WORKER = 4
_HORIZON = 16
_STEP_S = 0.005
_NAN_EVERY = 20
_LAST_ITERATIONS = 3
"""Rollouts and updates after the last fault, which must be free of errors."""
_POLL_S = 0.01
_STOP_TIMEOUT_S = 10.0
_NETWORK = NetworkConfig(
    actor_groups=("state",),
    critic_groups=("state",),
    memory="lstm",
    memory_size=16,
    hidden=(16,),
    critic_memory="lstm",
    critic_memory_size=16,
    critic_hidden=(16,),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the run."""
    parser.add_argument("--kills", type=whole(0), default=20, help="workers to kill")
    parser.add_argument("--hangs", type=whole(0), default=3, help="workers to stop")
    parser.add_argument("--workers", type=whole(2), default=4, help="workers, at least 2")
    parser.add_argument(
        "--groups", type=whole(1), default=1, help="groups of workers that take turns"
    )
    seconds = number(above=0.0, most=LONGEST_S)
    parser.add_argument("--timeout-s", type=seconds, default=2.0, help="when a worker hangs")
    parser.add_argument("--pause-s", type=seconds, default=5.0, help="longest between two faults")
    parser.add_argument("--limit-s", type=seconds, default=900.0, help="then the run is given up")
    add_seed(parser, 0, "the faults")


def measure_workers(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `injected` and `survived` count kills, hangs and NaNs together; `notice_s` is the longest time
    from a kill to the learner's notice, `notice_hang_s` the same from a stop; `restart_s` from the
    notice until the slot was complete. `leaked_segments` and `leaked_processes` are what is left
    of the run after its end.

    Raises:
        ConfigError: There are more groups than workers.
    """
    _check(args)
    torch.set_num_threads(1)
    pool = WorkerPool(_pool_spec(args))
    try:
        algorithm, injector = _build(pool, args.seed), Injector(pool, args)
        invalid, iterations = _train(pool, algorithm, injector, args)
        resets = [int(timing["resets_not_finite"]) for timing in pool.timings()]
        steps = [int(timing["steps"]) for timing in pool.timings()]
    finally:
        pool.close()
    survived = [fault for fault in injector.faults if fault.survived]
    weights = [*algorithm.actor.parameters(), *algorithm.critic.parameters()]
    nans = steps[-1] // _NAN_EVERY
    figures = {
        "injected": len(injector.faults) + nans,
        "survived": len(survived) + sum(resets),
        "leaked_segments": int(run_folder(pool.run_id).exists()),
        "leaked_processes": sum(Path(f"/proc/{pid}").exists() for pid in injector.seen),
        "weights_finite": all(bool(weight.isfinite().all()) for weight in weights),
        "kills": sum(not fault.hang for fault in injector.faults),
        "hangs": sum(fault.hang for fault in injector.faults),
        "nans": nans,
        "resets_not_finite": sum(resets),
        "notice_s": _longest(fault.notice_s for fault in survived if not fault.hang),
        "notice_hang_s": _longest(fault.notice_s for fault in survived if fault.hang),
        "restart_s": [round(restart.ready_s - restart.noticed_s, 3) for restart in pool.restarts],
        "iterations": iterations,
        "invalid_steps": invalid,
        "slot_mismatches": pool.slot_mismatches,
    }
    names = ("kills", "hangs", "workers", "groups", "timeout_s", "pause_s", "seed")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"envs_per_worker": _ENVS_PER_WORKER, "horizon": _HORIZON, "step_s": _STEP_S}
    return settings, figures


@dataclass
class Fault:
    """A worker that was killed, or stopped if `hang`, and the restart that followed."""

    index: int
    hang: bool
    injected_s: float
    restart: Restart | None = None

    @property
    def survived(self) -> bool:
        """Whether a new worker has replaced this one."""
        return self.restart is not None and math.isfinite(self.restart.ready_s)

    @property
    def notice_s(self) -> float:
        """Seconds from the fault to the learner's notice; NaN without one."""
        return self.restart.noticed_s - self.injected_s if self.restart else math.nan


class Injector:
    """Kills and stops workers from a separate thread during the run.

    Attributes:
        faults: Faults injected so far.
        seen: Process ids of all workers of the run.
    """

    def __init__(self, pool: WorkerPool, args: argparse.Namespace) -> None:
        """Draws the order of faults; `start` begins to inject them."""
        self.faults: list[Fault] = []
        self.seen: set[int] = set()
        self._pool = pool
        self._pause_s = args.pause_s
        self._random = random.Random(args.seed)
        self._hangs = [False] * args.kills + [True] * args.hangs
        self._random.shuffle(self._hangs)
        self._targets = range(args.workers - 1)  # the last one is for the NaNs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins to inject faults."""
        self._thread.start()

    def stop(self) -> None:
        """Stops injecting faults."""
        self._stop.set()
        self._thread.join(_STOP_TIMEOUT_S)

    @property
    def is_done(self) -> bool:
        """Whether all faults are injected, noticed and survived."""
        return not self._thread.is_alive() and all(fault.survived for fault in self.faults)

    def _run(self) -> None:
        for hang in self._hangs:
            if self._stop.wait(self._random.uniform(0.0, self._pause_s)):
                return
            while not self._inject(hang):
                if self._stop.wait(_POLL_S):
                    return

    def _inject(self, hang: bool) -> bool:
        """Kills or stops a worker without an open fault; False if there is none."""
        free = self._without_open_fault()
        if not free:
            return False
        index = self._random.choice(free)
        pid = read_statuses(self._pool.telemetry)[index].pid
        fault = Fault(index, hang, time.monotonic())
        try:
            os.kill(pid, signal.SIGSTOP if hang else signal.SIGKILL)
        except ProcessLookupError:  # on a busy machine a slow worker may have counted as hung
            return False
        self.seen.add(pid)
        self.faults.append(fault)
        return True

    def _without_open_fault(self) -> list[int]:
        """Workers without a fault that is not survived yet."""
        self.attribute()
        faulty = {fault.index for fault in self.faults if not fault.survived}
        return [index for index in self._targets if index not in faulty]

    def attribute(self) -> None:
        """Assigns each fault its restart; for each worker both are in the same order."""
        for index in self._targets:
            faults = [fault for fault in self.faults if fault.index == index]
            restarts = [restart for restart in self._pool.restarts if restart.index == index]
            for fault, restart in zip(faults, restarts):
                fault.restart = restart


def _check(args: argparse.Namespace) -> None:
    if args.groups > args.workers:
        raise ConfigError(f"--groups {args.groups}: must be at most --workers {args.workers}")


def _pool_spec(args: argparse.Namespace) -> PoolSpec:
    envs = args.workers * _ENVS_PER_WORKER
    config = {
        "observations": {"state": {"shape": [16]}},
        "episode_length": 20,
        "step_s": _STEP_S,
        "nan_every": _NAN_EVERY,
        "fault_env": envs - 1,
    }
    return PoolSpec(
        kind="synthetic",
        config=config,
        groups=("state",),
        horizon=_HORIZON,
        simulators=SimulatorsConfig(
            num_envs=envs,
            num_workers=args.workers,
            timeout_s=args.timeout_s,
            restarts=args.kills + args.hangs,
        ),
        seed=args.seed,
    )


def _build(pool: WorkerPool, seed: int) -> Ppo:
    specs = {spec.name: spec for spec in pool.observation_specs}
    actor = build_actor(_NETWORK, specs, pool.action_dim, seed=seed, view=RunConfig().table_view)
    critic = build_critic(_NETWORK, specs, seed=seed + 1, view=RunConfig().table_view)
    return Ppo(actor, critic, PpoConfig(minibatches=2), seed)


def _train(
    pool: WorkerPool, algorithm: Ppo, injector: Injector, args: argparse.Namespace
) -> tuple[int, int]:
    """Trains until all faults are over; returns steps that were not valid, and iterations."""
    rollout = Rollout.on(pool.tensors, algorithm.groups, algorithm.memory_sizes)
    collector = Collector(pool, rollout, algorithm, args.groups)
    pool.start()
    injector.seen.update(status.pid for status in read_statuses(pool.telemetry))
    injector.start()
    deadline_s = time.monotonic() + args.limit_s
    invalid = iterations = 0
    left = _LAST_ITERATIONS
    total = args.kills + args.hangs
    try:
        with tqdm(total=total, desc="bench faults", unit="fault", disable=None) as bar:
            while left and time.monotonic() < deadline_s:
                collector.collect(policy_version=iterations)
                invalid += int((~pool.tensors["valid"][1:]).sum())
                algorithm.update(rollout)
                pool.roll_over()
                iterations += 1
                injector.attribute()
                left -= injector.is_done
                bar.update(len(pool.restarts) - bar.n)
    finally:
        injector.stop()
    injector.seen.update(status.pid for status in read_statuses(pool.telemetry))
    return invalid, iterations


def _longest(seconds: Iterable[float]) -> float | None:
    values = [*seconds]
    return round(max(values), 3) if values else None
