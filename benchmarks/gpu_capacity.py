"""`dexgrasp bench gpu_capacity`: how many environments fit on four devices, emulated on one GPU.

Each emulated device has a budget of memory. What simulators take is measured in processes with a
few numbers of environments, context and code included, and a line is fitted. What a learner can
hold is searched for with torch limited to the budget, less what simulators on the same device
take. Data parallel, every device simulates and learns; disaggregated, three simulate and one
learns. At the end a rollout and an update are run with real simulators at the number found.

As in the paper's table, 160x120 and 320x240 images; `float32` images and one whole rollout of a
data-parallel device per step of the optimizer, as there, and `ours`: 16-bit images and gradients
accumulated over pieces. Every part is in the result file as soon as it is measured.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.capacity import DEVICES, MODES, Mode
from benchmarks.capacity_probes.calibrate import Sample, fit_line
from benchmarks.capacity_probes.holding import Holding, run_holding
from benchmarks.gpu.device import check_device
from benchmarks.gpu.parts import Parts
from dexgrasp_learner.capacity.workload import plan_config, workload
from dexgrasp_learner.config import RunConfig
from dexgrasp_sim.arguments import number, parse_resolution, whole
from dexgrasp_sim.config import replace, to_dict

_GIB = 2**30
_SHARE = 0.22
"""Of the GPU's memory that each device has by default: four, and some spare."""
_GUESS_SHARE = 0.5
"""Of a budget that a rollout is guessed to take, where the search begins."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench gpu_capacity`."""
    parser.add_argument("--device", default="cuda", help="cuda, cuda:K or cpu")
    parser.add_argument("--backend", default="mujoco_warp", help="physics backend to measure")
    parser.add_argument(
        "--config", type=Path, help="YAML of the run; default: recurrent, on depth images"
    )
    parser.add_argument(
        "--images", nargs="+", default=["160x120", "320x240"], help="sizes of images, WIDTHxHEIGHT"
    )
    parser.add_argument("--horizon", type=whole(0), default=16, help="steps of a rollout")
    parser.add_argument(
        "--budget-gib", type=number(0.0), help="of each device; default: 22 % of the GPU"
    )
    parser.add_argument(
        "--simulated",
        type=whole(0),
        nargs=2,
        default=(128, 512),
        help="environments in the simulator's measurements",
    )
    parser.add_argument("--micro-batch", type=whole(0), default=1024, help="samples, in ours")
    parser.add_argument("--most", type=whole(0), default=2**20, help="largest number tried")
    parser.add_argument("--timeout-s", type=number(0.0), default=240.0, help="of each part")
    parser.add_argument("--minutes", type=number(0.0), help="after which no further part begins")


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    `tables` by image size: each mode's number of environments on four devices, `ratio_float32`
    and `ratio_ours` as in `bench capacity`, and the simulators' bytes per process and environment.
    `parts` holds every measurement.

    Raises:
        ConfigError: There is no such device, or the config is wrong.
    """
    device = check_device(args.device)
    budget = _GIB * args.budget_gib if args.budget_gib else _SHARE * _total_bytes(device)
    settings = {
        "device": args.device,
        "backend": args.backend,
        "config": str(args.config) if args.config else None,
        "devices": DEVICES,
        "horizon": args.horizon,
        "budget_gib": round(budget / _GIB, 3),
        "micro_batch": args.micro_batch,
        "simulated": list(args.simulated),
    }
    until_s = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    parts = Parts(args.out, "gpu_capacity", settings, until_s)
    tables = {text: _Table(args, text, budget, parts).fill() for text in args.images}
    return settings, {"tables": tables, "parts": parts.figures}


class _Table:
    """All modes with one size of images."""

    def __init__(self, args: argparse.Namespace, image: str, budget: float, parts: Parts) -> None:
        self._args, self._image, self._budget, self._parts = args, image, budget, parts
        config = plan_config(args.config, parse_resolution(image), args.horizon)
        physics = replace(config.task.physics, backend=args.backend)
        self._config: RunConfig = replace(config, task=replace(config.task, physics=physics))

    def fill(self) -> dict[str, Any]:
        """The figures that could be measured."""
        table: dict[str, Any] = {}
        simulated = [self._simulators(count) for count in self._args.simulated]
        if None in simulated:
            return table
        pixels = workload(self._config, "int16", 1).pixels
        line = fit_line(
            [Sample(n, pixels, float(b)) for n, b in zip(self._args.simulated, simulated)]  # type: ignore[arg-type]
        )
        per_env = line.env + line.pixel * pixels
        fitting = int(max(self._budget - line.fixed, 0.0) / max(per_env, 1.0))
        table["simulator_gib"] = round(line.fixed / _GIB, 3)
        table["simulator_kib_per_env"] = round(per_env / 1024, 1)
        table["simulators_per_device"] = fitting
        counts: dict[str, int] = {}
        for mode in MODES:
            counts[mode.name] = self._count(mode, line.fixed, per_env, fitting, counts)
            table[mode.name] = counts[mode.name]
        table["ratio_float32"] = _ratio(
            counts["disaggregated_float32"], counts["data_parallel_float32"]
        )
        table["ratio_ours"] = _ratio(counts["disaggregated_ours"], counts["data_parallel_float32"])
        table["ratio_both_ours"] = _ratio(
            counts["disaggregated_ours"], counts["data_parallel_ours"]
        )
        table["confirmed"] = self._confirm(counts)
        return table

    def _simulators(self, count: int) -> int | None:
        holding = self._holding("simulator", count)
        figures = self._run(f"simulators_{count}", holding)
        return figures["bytes"] if figures else None

    def _count(
        self, mode: Mode, fixed: float, per_env: float, fitting: int, counts: dict[str, int]
    ) -> int:
        """Environments on all devices in one mode; 0 if it was not measured."""
        together = mode.role == "data_parallel"
        whole = counts.get("data_parallel_float32", 0) // DEVICES * self._args.horizon
        micro_batch = self._args.micro_batch if mode.in_pieces else (whole or None)
        load = workload(self._config, mode.storage, 1)
        guess = max(int(_GUESS_SHARE * self._budget / load.buffer_bytes), 1)
        holding = replace(
            self._holding("learner", guess),
            storage=mode.storage,
            micro_batch=micro_batch,
            budget_bytes=self._budget,
            most=self._args.most,
            simulator_fixed=fixed if together else 0.0,
            simulator_env=per_env if together else 0.0,
        )
        figures = self._run(mode.name, holding)
        if figures is None:
            return 0
        learned = figures["environments"]
        return DEVICES * learned if together else min(learned, (DEVICES - 1) * fitting)

    def _confirm(self, counts: dict[str, int]) -> dict[str, float | None]:
        """Memory of real runs of ours over that of their devices."""
        shares: dict[str, float | None] = {}
        for name, workers, devices in (
            ("data_parallel_ours", 0, 1),
            ("disaggregated_ours", DEVICES - 1, DEVICES),
        ):
            envs = counts[name] // (DEVICES if workers == 0 else 1)
            if envs < max(workers, 1):
                continue
            holding = replace(
                self._holding("run", envs), workers=workers, micro_batch=self._args.micro_batch
            )
            figures = self._run(f"run_{name}", holding)
            held = figures["bytes"] / (devices * self._budget) if figures else None
            shares[name] = None if held is None else round(held, 3)
        return shares

    def _holding(self, role: str, envs: int) -> Holding:
        config, device = to_dict(self._config), self._args.device
        return Holding(role=role, config=config, device=device, envs=envs)  # type: ignore[arg-type]

    def _run(self, name: str, holding: Holding) -> dict[str, Any] | None:
        measure = partial(run_holding, holding, self._args.timeout_s)
        return self._parts.run(f"{self._image}/{name}", measure)


def _total_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return 8.0 * _GIB


def _ratio(ours: int, theirs: int) -> float | None:
    return round(ours / theirs, 3) if ours and theirs else None
