"""`dexgrasp bench gpu_transport`: a lock-step between simulators and a learner on GPUs.

A step sends actions from the learner's GPU to worker processes, and their observations from a GPU
back to it; nothing is simulated. Three ways are compared: through ordinary shared memory
(`pageable`), through shared memory that both sides have registered with CUDA (`pinned`), and from
device to device (`cuda_ipc`).
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.peers.transport import ACTION_DIM, Payload
from benchmarks.transport import make_payloads, spread
from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_pool import WorkerPool
from dexgrasp_sim.arguments import whole
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.synthetic_env import expected_observation
from dexgrasp_sim.transport.carrier import CarrierName

_HORIZON = 4
_WARM_UP_STEPS = 10


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

    `step_ms` by image size and way; `pinned_speedup` and `cuda_ipc_speedup` are the median step of
    `pageable` over theirs at the larger images, `gb_per_s` observations over the median step.
    Each way is checked to transfer the workers' observations exactly before it is timed. On the
    CPU there is only `pageable`.

    Raises:
        ConfigError: There is no GPU.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "bench gpu_transport needs an NVIDIA GPU and a torch with CUDA; there is none here. "
            "`dexgrasp bench transport` measures the same lock-step on CPUs"
        )
    payloads = make_payloads(*args.envs)
    sizes = [name for name in payloads if payloads[name].num_envs >= args.workers]
    ways = WAYS if args.device == "cuda" else {"pageable": WAYS["pageable"]}
    step_ms: dict[str, dict[str, dict[str, float]]] = {}
    with tqdm(
        total=len(sizes) * len(ways) * args.rounds, desc="bench gpu_transport", disable=None
    ) as bar:
        for size in sizes:
            samples: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(args.rounds):
                for name, way in ways.items():
                    samples[name] += _turn(payloads[size], way, args)
                    bar.update()
            step_ms[size] = {name: spread(values) for name, values in samples.items()}
    largest = sizes[-1]
    median = {name: row["median"] for name, row in step_ms[largest].items()}
    figures = {
        **{
            f"{name}_speedup": round(median["pageable"] / median[name], 3)
            for name in ways
            if name != "pageable"
        },
        "gb_per_s": {
            name: round(payloads[largest].nbytes / ms / 1e6, 3) for name, ms in median.items()
        },
        "step_ms": step_ms,
    }
    settings = {
        "device": args.device,
        "envs": {size: payloads[size].num_envs for size in sizes},
        "workers": args.workers,
        "rounds": args.rounds,
        "steps": args.steps,
    }
    return settings, figures


class Link:
    """A learner and its workers; the learner's tensors are on one device, `device`."""

    def __init__(
        self, payload: Payload, way: Way, workers: int, device: Literal["cpu", "cuda"]
    ) -> None:
        """Starts the workers and fills slot 0.

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
            self._pool.start()
        except BaseException:
            self.close()
            raise
        self._slot = 0

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
        """Ends the workers; idempotent."""
        self._pool.close()


def _turn(payload: Payload, way: Way, args: argparse.Namespace) -> list[float]:
    """Milliseconds of every step after the first ones."""
    link = Link(payload, way, args.workers, args.device)
    try:
        link.clear()
        for _ in range(_WARM_UP_STEPS):
            link.step()
        link.check()
        return [_milliseconds(link) for _ in range(args.steps)]
    finally:
        link.close()


def _milliseconds(link: Link) -> float:
    begin_s = time.perf_counter()
    link.step()
    return 1e3 * (time.perf_counter() - begin_s)
