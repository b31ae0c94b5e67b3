"""`dexgrasp bench capacity`: how many environments fit, compared with `plan-capacity`.

Four devices are simulated by four memory budgets beyond that of a bare process, which the kernel
enforces (RLIMIT_DATA). Data parallel: every process simulates, holds a rollout and learns.
Disaggregated: one process learns and three simulate, each with its own budget; the rollout is in
shared memory and counts for the learner. A count fits if a whole rollout and an update succeed.

Simulators on the CPU need almost no memory per environment, so separating them saves nothing; on a
GPU they need most of it. Therefore everything is measured twice: as it is, and with a tensor in
each simulator that takes the memory per environment of the fit to the paper (`costs.py`).
"""

import argparse
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from benchmarks.capacity_probes.calibrate import calibrate, run_probe
from benchmarks.capacity_probes.probe import Probe
from benchmarks.capacity_probes.search import largest_that_fits
from dexgrasp_learner.capacity.costs import Costs, fit_to_paper, load_costs
from dexgrasp_learner.capacity.model import plan_data_parallel, plan_disaggregated
from dexgrasp_learner.capacity.workload import Storage, Workload, plan_config, workload
from dexgrasp_sim.arguments import resolution, whole
from dexgrasp_sim.config import parse_config, replace, to_dict

DEVICES = 4
_MIB = 2**20
_SMALL_MICRO_BATCH = 64


@dataclass(frozen=True)
class Mode:
    """One way to use the devices.

    Attributes:
        name: Key of its figures.
        role: Of the processes that learn, see `Probe`.
        storage: Element type of images.
        in_pieces: Whether an update uses small micro-batches; else it processes as many samples
            at once as there are in a rollout of `data_parallel_float32` on one device.
    """

    name: str
    role: str
    storage: Storage
    in_pieces: bool


MODES = (
    Mode("data_parallel_float32", "data_parallel", "float32", in_pieces=False),
    Mode("disaggregated_float32", "split", "float32", in_pieces=False),
    Mode("data_parallel_ours", "data_parallel", "int16", in_pieces=True),
    Mode("disaggregated_ours", "split", "int16", in_pieces=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dexgrasp bench capacity`."""
    parser.add_argument(
        "--budget-mib", type=whole(1), default=512, help="memory of each of four devices, MiB"
    )
    parser.add_argument(
        "--resolution", type=resolution, default=(160, 120), metavar="WxH", help="size of images"
    )
    parser.add_argument("--horizon", type=whole(1), default=16, help="steps of a rollout")
    parser.add_argument(
        "--costs", help="JSON of `bench capacity_costs`; without it they are measured first"
    )


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and figures.

    For simulators as they are (`cpu_simulators`) and with the memory of GPU ones
    (`gpu_like_simulators`), each mode has the number of environments on four devices, `measured`
    and `predicted`, and `error`, predicted over measured minus 1. `ratio_float32` is
    disaggregated over data parallel, float32 images and the same samples at a time in both;
    `ratio_ours` is ours (int16 images, micro-batches), disaggregated, over the same data parallel
    number; `ratio_both_ours` is over data parallel with ours.

    Raises:
        ConfigError: The file of costs is wrong.
        RuntimeError: A process failed for another reason than lack of memory.
    """
    size = width, height = args.resolution
    costs = load_costs(args.costs) if args.costs else _measured_costs()
    budget = args.budget_mib * _MIB
    extra = round(fit_to_paper().simulator_pixel * width * height)
    with tqdm(desc="bench capacity", unit="process", disable=None) as bar:
        figures = {
            name: _Comparison(costs, size, args.horizon, budget, simulator_env, bar).run()
            for name, simulator_env in (("gpu_like_simulators", extra), ("cpu_simulators", 0))
        }
    settings = {
        "devices": DEVICES,
        "budget_mib": args.budget_mib,
        "resolution": f"{width}x{height}",
        "horizon": args.horizon,
        "small_micro_batch": _SMALL_MICRO_BATCH,
        "gpu_like_simulator_env_bytes": extra,
        "costs": to_dict(costs),
    }
    return settings, figures


def _measured_costs() -> Costs:
    return parse_config(Costs, calibrate(None, "cpu")["costs"])


class _Comparison:
    """All modes with one kind of simulator."""

    def __init__(
        self,
        costs: Costs,
        resolution: tuple[int, int],
        horizon: int,
        budget: int,
        simulator_env_bytes: int,
        bar: tqdm,
    ) -> None:
        # budgets do not include the memory of a bare process
        self._costs = replace(
            costs, process=0, simulator_env=costs.simulator_env + simulator_env_bytes
        )
        self._config = plan_config(None, resolution, horizon)
        self._budget = budget
        self._simulator_env_bytes = simulator_env_bytes
        self._bar = bar
        whole = self._load(MODES[0], micro_batch=2**40)
        per_device = plan_data_parallel(self._costs, whole, 1, budget).environments
        self._whole = max(per_device, 1) * horizon

    def run(self) -> dict[str, Any]:
        """Figures by mode, and their ratios."""
        modes: dict[str, Any] = {mode.name: self._figures(mode) for mode in MODES}
        count = {name: figures["measured"] for name, figures in modes.items()}
        baseline = count["data_parallel_float32"]
        return {
            "ratio_float32": _ratio(count["disaggregated_float32"], baseline),
            "ratio_ours": _ratio(count["disaggregated_ours"], baseline),
            "ratio_both_ours": _ratio(count["disaggregated_ours"], count["data_parallel_ours"]),
            **modes,
        }

    def _figures(self, mode: Mode) -> dict[str, Any]:
        micro_batch = _SMALL_MICRO_BATCH if mode.in_pieces else self._whole
        load = self._load(mode, micro_batch)
        # one learning process is measured; the others hold the same
        learners = DEVICES if mode.role == "data_parallel" else 1
        if mode.role == "data_parallel":
            plan = plan_data_parallel(self._costs, load, DEVICES, self._budget)
        else:
            plan = plan_disaggregated(self._costs, load, DEVICES, self._budget, learners=1)
        predicted = plan.environments // learners
        measured = largest_that_fits(predicted, lambda n: self._fits(mode, micro_batch, n))
        return {
            "measured": learners * measured,
            "predicted": learners * predicted,
            "error": round(predicted / measured - 1, 3) if measured else None,
            "storage": mode.storage,
            "micro_batch": micro_batch,
            "limited_by": plan.limited_by,
        }

    def _load(self, mode: Mode, micro_batch: int) -> Workload:
        return workload(self._config, mode.storage, micro_batch)

    def _fits(self, mode: Mode, micro_batch: int, envs: int) -> bool:
        simulators = DEVICES - 1
        if mode.role == "split" and envs < simulators:
            return False
        probe = Probe(
            role=mode.role,  # type: ignore[arg-type]
            config=to_dict(self._config),
            envs=envs,
            storage=mode.storage,
            micro_batch=micro_batch,
            simulators=simulators,
            simulator_env_bytes=self._simulator_env_bytes,
            budget_bytes=self._budget,
        )
        fits = run_probe(probe) is not None
        self._bar.set_postfix_str(f"{mode.name}: {envs} {'fit' if fits else 'do not fit'}")
        self._bar.update()
        return fits


def _ratio(ours: int, theirs: int) -> float | None:
    return round(ours / theirs, 3) if theirs else None
