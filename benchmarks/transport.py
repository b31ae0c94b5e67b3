"""`dexgrasp bench transport`: one lock-step of learner and simulator process, without simulation.

A step sends actions to the simulator and the observations of all environments back. The same
bytes go through our shared memory, through other carriers, and through one memcpy in one process,
which is the lower bound for any transport that writes its observations once.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from typing_extensions import override

from benchmarks.peers.transport import ACTION_DIM, PEERS, Carrier, Payload
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_sim.arguments import whole

FIXED, MEDIUM, LARGE = "1_kb", "1_mb", "10_mb"
_VECTORS = ((180,), "float32")
_WARM_UP_STEPS = 10
"""Steps that are not counted, because their caches are cold, unlike in a training run."""
INSTALL_PEERS = "pip install -c scripts/lock/python.txt -e '.[bench]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench transport`."""
    parser.add_argument(
        "--envs",
        type=whole(1),
        nargs=2,
        default=(256, 512),
        help="environments with 64x48 pixels (1 MB) and with 160x120 pixels (10 MB)",
    )
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=tuple(PEERS), help="what to compare with"
    )
    parser.add_argument("--rounds", type=whole(1), default=3, help="rounds of all carriers")
    parser.add_argument("--steps", type=whole(1), default=100, help="steps of each per round")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `memcpy_fraction` is the time of the memcpy over that of our step at 10 MB, `fixed_cost_ms`
    our step at 1 kB, `vs_NAME` the peer's step over ours, the smaller of the ratios at 1 and at
    10 MB, None where the peer was not measured. All of medians.
    """
    torch.set_num_threads(1)
    payloads = make_payloads(*args.envs)
    makers: dict[str, Callable[[Payload], Carrier]] = {
        "memcpy": MemcpyCarrier,
        "dexgrasp": PoolCarrier,
    }
    makers |= {name: PEERS[name].make for name in args.peers if PEERS[name].is_installed}
    with tqdm(
        total=len(payloads) * args.rounds, desc="bench transport", unit="round", disable=None
    ) as bar:
        step_ms = {
            name: _step_ms(payload, makers, args.rounds, args.steps, bar)
            for name, payload in payloads.items()
        }
    median = {
        name: {carrier: row["median"] for carrier, row in rows.items()}
        for name, rows in step_ms.items()
    }
    figures = {
        "memcpy_fraction": round(median[LARGE]["memcpy"] / median[LARGE]["dexgrasp"], 3),
        "fixed_cost_ms": median[FIXED]["dexgrasp"],
        **{f"vs_{name}": _ratio(median, name) for name in PEERS},
        "not_installed": {
            name: INSTALL_PEERS for name, peer in PEERS.items() if not peer.is_installed
        },
        "step_ms": step_ms,
    }
    settings = {
        "bytes_per_step": {name: payload.nbytes for name, payload in payloads.items()},
        "envs": {name: payload.num_envs for name, payload in payloads.items()},
        "rounds": args.rounds,
        "warm_up_steps": _WARM_UP_STEPS,
        "steps_per_round": args.steps,
        "workers": 1,
    }
    return settings, figures


def make_payloads(medium_envs: int, large_envs: int) -> dict[str, Payload]:
    """The three sizes by name; the names hold for 256 and 512 environments."""
    return {
        FIXED: Payload(1, {"state": ((256,), "float32")}),
        MEDIUM: Payload(medium_envs, {"image": ((48, 64), "uint8"), "state": _VECTORS}),
        LARGE: Payload(large_envs, {"image": ((120, 160), "uint8"), "state": _VECTORS}),
    }


class MemcpyCarrier(Carrier):
    """The lower bound: one thread copies the observations from one buffer to another."""

    def __init__(self, payload: Payload) -> None:
        self._sources = payload.observations()
        self._copies = {name: np.zeros_like(array) for name, array in self._sources.items()}

    @override
    def step(self) -> Mapping[str, Any]:
        for name, source in self._sources.items():
            np.copyto(self._copies[name], source)
        return self._copies

    @override
    def close(self) -> None:
        pass  # there is no simulator


class PoolCarrier(Carrier):
    """Our environment pool with one worker.

    Like the other carriers it fills the same buffer again and again: a rollout of one step.
    """

    def __init__(self, payload: Payload) -> None:
        observations = {
            name: {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in payload.groups.items()
        }
        config = {"observations": observations, "action_dim": ACTION_DIM, "idle": True}
        self._names = tuple(payload.groups)
        simulators = SimulatorsConfig(num_envs=payload.num_envs, num_workers=1)
        self._pool = make_pool(PoolSpec("synthetic", config, self._names, 1, simulators))
        self._actions = torch.from_numpy(payload.actions())
        try:
            self._pool.start()
        except BaseException:
            self._pool.close()
            raise

    @override
    def step(self) -> Mapping[str, Any]:
        self._pool.tensors["actions"][0].copy_(self._actions)
        self._pool.send(0, policy_version=0)
        self._pool.wait(0)
        return {name: self._pool.tensors[name][1] for name in self._names}

    @override
    def close(self) -> None:
        self._pool.close()


def _step_ms(
    payload: Payload,
    makers: Mapping[str, Callable[[Payload], Carrier]],
    rounds: int,
    steps: int,
    bar: tqdm,
) -> dict[str, dict[str, float]]:
    """Median and percentiles of a step in milliseconds by carrier.

    The carriers take turns, each opened only for its turn, so that the processes of one carrier
    (Ray has many) do not disturb another.
    """
    samples: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            samples[name] += _turn(make(payload), steps)
        bar.update()
    return {name: spread([1e3 * s for s in values]) for name, values in samples.items()}


def _turn(carrier: Carrier, steps: int) -> list[float]:
    """Seconds of every step after the first ones; closes the carrier."""
    try:
        for _ in range(_WARM_UP_STEPS):
            carrier.step()
        return [_seconds(carrier) for _ in range(steps)]
    finally:
        carrier.close()


def _seconds(carrier: Carrier) -> float:
    begin_s = time.perf_counter()
    carrier.step()
    return time.perf_counter() - begin_s


def spread(values: list[float]) -> dict[str, float]:
    """Median and the percentiles 10 and 90."""
    p10, median, p90 = np.percentile(values, (10, 50, 90)).tolist()
    return {"median": round(median, 4), "p10": round(p10, 4), "p90": round(p90, 4)}


def _ratio(median: Mapping[str, Mapping[str, float]], name: str) -> float | None:
    if name not in median[LARGE]:
        return None
    return round(min(median[s][name] / median[s]["dexgrasp"] for s in (MEDIUM, LARGE)), 3)
