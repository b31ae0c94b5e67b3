"""`dexgrasp bench gpu_transport`: a lock-step between simulators and a learner on GPUs.

A step sends actions from the learner's GPU to worker processes, and their observations from a GPU
back to it; nothing is simulated. Three ways are compared: through ordinary shared memory
(`pageable`), through shared memory that both sides have registered with CUDA (`pinned`), and from
device to device (`cuda_ipc`).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.gpu.parts import Parts
from benchmarks.peers.transport import ACTION_DIM, Payload
from benchmarks.transport import LARGE, MEDIUM, make_payloads, spread
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_pool import WorkerPool
from dexgrasp_sim.arguments import whole
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport.carrier import CarrierName

_HORIZON = 4
_WARM_UP_STEPS = 10
_START_TIMEOUT_S, _STEP_TIMEOUT_S = 60.0, 10.0


@dataclass(frozen=True)
class Way:
    """How observations are transferred: the workers' carrier, and whether memory is pinned."""

    carrier: CarrierName
    pin: bool = False


WAYS = {
    "pageable": Way("staged"),
    "pinned": Way("pinned", pin=True),
    "cuda_ipc": Way("cuda_ipc", pin=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench gpu_transport`."""
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the program"
    )
    parser.add_argument(
        "--envs",
        type=whole(1),
        nargs=2,
        default=(2048, 8400),
        help="environments with 64x48 and with 160x120 pixels of one byte",
    )
    parser.add_argument("--workers", type=whole(1), default=2, help="processes on the same GPU")
    parser.add_argument("--rounds", type=whole(1), default=3, help="rounds of all ways")
    parser.add_argument("--steps", type=whole(1), default=50, help="steps of each way per round")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `step_ms` by image size and way: medians over the rounds; `pinned_speedup` and
    `cuda_ipc_speedup` are the median step of `pageable` over theirs at the larger images,
    `gb_per_s` observations over the median step. Each way is checked to transfer the workers'
    observations exactly before it is timed. On the CPU there is only `pageable`. `parts` by
    `size/way/round`; a second call with the same settings does what is missing.

    Raises:
        ConfigError: There is no GPU.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "bench gpu_transport needs an NVIDIA GPU and a torch with CUDA; there is none here. "
            "`dexgrasp bench transport` measures the same lock-step on CPUs"
        )
    payloads = {name: make_payloads(*args.envs)[name] for name in (LARGE, MEDIUM)}
    ways = WAYS if args.device == "cuda" else {"pageable": WAYS["pageable"]}
    settings = {
        "device": args.device,
        "envs": {size: payload.num_envs for size, payload in payloads.items()},
        "workers": args.workers,
        "rounds": args.rounds,
        "steps": args.steps,
    }
    parts = Parts(args.out, "gpu_transport", settings)
    for size, payload in payloads.items():
        _rounds(size, payload, ways, args, parts)
    step_ms = {size: _over_rounds(size, ways, parts.figures) for size in payloads}
    median = {name: row["median"] for name, row in step_ms[LARGE].items()}
    figures = {
        **{
            f"{name}_speedup": round(median["pageable"] / median[name], 3)
            for name in ways
            if name != "pageable" and {"pageable", name} <= set(median)
        },
        "gb_per_s": {
            name: round(payloads[LARGE].nbytes / ms / 1e6, 3) for name, ms in median.items()
        },
        "step_ms": step_ms,
        "parts": parts.figures,
    }
    return settings, figures


def _rounds(
    size: str, payload: Payload, ways: dict[str, Way], args: argparse.Namespace, parts: Parts
) -> None:
    """Measures all ways in turn; their workers start together, once, unless nothing is missing."""
    names = [f"{size}/{name}/{turn}" for turn in range(args.rounds) for name in ways]
    if all("failed" not in parts.figures.get(name, {"failed": ""}) for name in names):
        return
    with ExitStack() as stack:
        links = {
            name: _started(payload, way, args.workers, args.device, stack)
            for name, way in ways.items()
        }
        for turn in range(args.rounds):
            for name in ways:
                parts.run(
                    f"{size}/{name}/{turn}",
                    lambda name=name: spread(_turn(links[name](), args.steps)),
                )


def _started(
    payload: Payload, way: Way, workers: int, device: Literal["cpu", "cuda"], stack: ExitStack
) -> Callable[[], "Link"]:
    """The link of a way, whose workers begin to start now, or the reason why there is none."""
    try:
        link = Link(payload, way, workers, device)
    except Exception as error:  # reported at its turn, with what fails then

        def refuse(reason: Exception = error) -> "Link":
            raise reason

        return refuse
    stack.callback(link.close)
    return lambda: link


def _over_rounds(
    size: str, ways: dict[str, Way], figures: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """By way the medians over the rounds that have not failed."""
    found = {}
    for name in ways:
        rows = [row for key, row in figures.items() if key.startswith(f"{size}/{name}/")]
        rows = [row for row in rows if "median" in row]
        if rows:
            found[name] = {
                key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]
            }
    return found


class Link:
    """A learner and its workers; the learner's tensors are on one device, `device`."""

    def __init__(
        self, payload: Payload, way: Way, workers: int, device: Literal["cpu", "cuda"]
    ) -> None:
        """Lets the workers begin to start, which `start` waits for.

        Args:
            payload: Observations of a step.
            way: How they are transferred.
            workers: Processes.
            device: Of the learner and of the workers' environments.
        """
        groups = {
            n: {"shape": shape, "dtype": dtype} for n, (shape, dtype) in payload.groups.items()
        }
        self._spec = PoolSpec(
            kind="synthetic",
            config={
                "observations": groups,
                "action_dim": ACTION_DIM,
                "idle": True,
            },
            groups=tuple(groups),
            horizon=_HORIZON,
            simulators=SimulatorsConfig(
                num_envs=payload.num_envs,
                num_workers=workers,
                carrier=way.carrier,
                device=device,
                timeout_s=_STEP_TIMEOUT_S,
                start_timeout_s=_START_TIMEOUT_S,
                restarts=0,
            ),
            # a pool whose learner is on the CPU does not pin its memory
            learner_device=device if way.pin else "cpu",
        )
        self._device = device
        self._is_shared = way.carrier == "cuda_ipc"
        self._pool = WorkerPool(self._spec)
        try:
            self.local = {name: self._pool.tensors[name] for name in groups}
            if not self._is_shared:
                self.local = {
                    name: torch.zeros_like(tensor, device=device)
                    for name, tensor in self.local.items()
                }
            self._actions = torch.zeros(payload.num_envs, ACTION_DIM, device=device)
        except BaseException:
            self.close()
            raise
        self._slot, self._is_started = 0, False

    def start(self) -> None:
        """Waits for the workers, which fill slot 0; does nothing the second time."""
        if not self._is_started:
            self._pool.start()
            self._is_started = True

    def step(self) -> None:
        """Actions to the workers, observations back; returns when they are on the device."""
        slot = self._slot
        self._pool.tensors["actions"][slot].copy_(self._actions)
        self._pool.send(slot, policy_version=0)
        self._pool.wait(slot)
        if not self._is_shared:
            for name, tensor in self.local.items():
                tensor[slot + 1].copy_(self._pool.tensors[name][slot + 1], non_blocking=True)
        if self._device == "cuda":
            torch.cuda.synchronize()
        self._slot = (slot + 1) % _HORIZON

    def check(self) -> None:
        """Compares the newest slot with what the workers hold.

        Raises:
            RuntimeError: It differs.
        """
        slot = self._slot or _HORIZON
        for spec in self._pool.observation_specs:
            for env in (0, self._pool.num_envs - 1):
                expected = expected_observation(spec, self._spec.seed, env, steps=0)
                if not torch.equal(self.local[spec.name][slot, env].cpu(), expected):
                    raise RuntimeError(f"{spec.name} of environment {env} did not arrive intact")

    def clear(self) -> None:
        """Zeroes all observations, so that only new ones can pass `check`."""
        tensors: list[Tensor] = [*self.local.values()]
        for tensor in (*tensors, *(self._pool.tensors[name] for name in self.local)):
            tensor.zero_()

    def close(self) -> None:
        """Ends the workers, then gives back what they had opened; idempotent."""
        self._pool.close()
        self.local = {}
        if self._is_shared:
            torch.cuda.ipc_collect()


def _turn(link: Link, steps: int) -> list[float]:
    """Milliseconds of every step after the first ones."""
    link.start()
    link.clear()
    for _ in range(_WARM_UP_STEPS):
        link.step()
    link.check()
    return [_milliseconds(link) for _ in range(steps)]


def _milliseconds(link: Link) -> float:
    begin_s = time.perf_counter()
    link.step()
    return 1e3 * (time.perf_counter() - begin_s)
