"""Measures memory costs on this machine with processes of a few sizes, and fits lines to them."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import CHECKOUT
from benchmarks.capacity_probes.holding import Holding, run_holding
from benchmarks.capacity_probes.probe import FITS, Footprint, Probe, command, is_out_of_memory
from dexgrasp_learner.capacity.costs import OPTIMIZER_COPIES, Costs
from dexgrasp_learner.capacity.workload import plan_config, workload
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.storage.provenance import provenance
from dexgrasp_sim.config import replace, to_dict

STEPS = 4
"""Steps of a rollout here; only the size of the rollout depends on it, which is known exactly."""
MICRO_BATCH_ENVS = 8
_STORAGE = "int16"
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        images: Widths and heights, the last one that of a run.
        simulated: Numbers of environments in simulators.
        inferred: Numbers of environments for which a learner infers.
        learned: Numbers of environments from which it learns.
    """

    images: tuple[tuple[int, int], ...] = ((80, 60), (160, 120))
    simulated: tuple[int, ...] = (16, 64, 128)
    inferred: tuple[int, ...] = (16, 64)
    learned: tuple[int, ...] = (8, 32)


@dataclass(frozen=True)
class Line:
    """bytes = fixed + env * count + pixel * pixels * count, with non-negative coefficients.

    Attributes:
        residual: Largest deviation of a measurement from the line, bytes.
    """

    fixed: float
    env: float
    pixel: float
    residual: float


@dataclass(frozen=True)
class Sample:
    """A measurement: `bytes` taken by `count` environments or samples of `pixels` each."""

    count: int
    pixels: int
    bytes: float


def run_probe(probe: Probe) -> Footprint | None:
    """The footprint of a probe in a separate process; None: memory ran out.

    Raises:
        RuntimeError: It failed for another reason.
    """
    done = subprocess.run(
        command(probe), cwd=CHECKOUT, capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    if is_out_of_memory(done.returncode):
        return None
    if done.returncode != FITS:
        raise RuntimeError(f"a probe ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def fit_line(samples: Sequence[Sample]) -> Line:
    """The least-squares line with non-negative coefficients through measurements."""
    rows = [[1, s.count, s.count * s.pixels] for s in samples]  # [samples, 3]
    columns = np.array(rows, dtype=np.float64)
    measured = np.array([s.bytes for s in samples])
    used = list(range(columns.shape[1]))
    solution = np.zeros(len(used))
    while used:
        best = np.linalg.lstsq(columns[:, used], measured)[0]
        if best.min() >= 0:
            solution[used] = best
            break
        used.remove(used[int(best.argmin())])
    residual = float(np.abs(columns @ solution - measured).max())
    return Line(*(float(value) for value in solution), residual=residual)


def calibrate(
    config_path: Path | None, device: str, backend: str = "mujoco", sizes: Sizes | None = None
) -> dict[str, Any]:
    """Measures the costs; see `Costs` for their meaning.

    Args:
        config_path: YAML file of a run, for its nets and task; None: see `plan_config`.
        device: `cpu` or `cuda`, of simulators and learner.
        backend: Of the physics.
        sizes: None: the usual ones.

    Returns:
        `costs` and `fits` (residual and measurements of each line), plain values.
    """
    sizes = sizes or Sizes()
    counts = (*sizes.inferred, *sizes.learned, *sizes.simulated)
    with tqdm(
        total=len(sizes.images) * len(counts), desc="calibrate", unit="process", disable=None
    ) as bar:
        bench = _Bench(config_path, device, backend, bar.update)
        inferred = [bench.inference(size, n) for size in sizes.images for n in sizes.inferred]
        learned = [bench.update(size, n) for size in sizes.images for n in sizes.learned]
        simulated = [bench.simulator(size, n) for size in sizes.images for n in sizes.simulated]
    simulator, inference, update = map(fit_line, (simulated, inferred, learned))
    machine = provenance()
    name = torch.cuda.get_device_name() if device == "cuda" else machine["hardware"]["cpu"]
    width, height = sizes.images[-1]
    costs = {
        "source": f"measured on {name} at {machine['started'][:10]}, physics {backend}",
        "device": device,
        "process": bench.base,
        "simulator": simulator.fixed,
        "simulator_env": simulator.env,
        "simulator_pixel": simulator.pixel,
        "learner": max(inference.fixed, update.fixed),
        "inference_env": inference.env,
        "inference_pixel": inference.pixel,
        "update_sample": update.env,
        "update_pixel": update.pixel,
        "storage": _STORAGE,
        "micro_batch_pixels": MICRO_BATCH_ENVS * 16 * width * height,
    }
    assert costs.keys() == {field.name for field in fields(Costs)}  # type: ignore[arg-type]
    lines = {"simulator": simulator, "inference": inference, "update": update}
    samples = {"simulator": simulated, "inference": inferred, "update": learned}
    fits = {
        name: {"residual": line.residual, "samples": [vars(s) for s in samples[name]]}
        for name, line in lines.items()
    }
    return {"costs": costs, "fits": fits}


class _Bench:
    """Runs the processes and subtracts the memory that is known exactly.

    Attributes:
        base: Bytes of a process that holds no environments, nets or rollout.
    """

    def __init__(
        self, config_path: Path | None, device: str, backend: str, advance: Callable[[], object]
    ) -> None:
        self.base, self._backend = 0, backend
        self._path = config_path
        self._device = device
        self._advance = advance

    def simulator(self, size: tuple[int, int], envs: int) -> Sample:
        """Memory of simulators; on the CPU without the two slots that they write."""
        config = plan_config(self._path, size, STEPS)
        physics = replace(config.task.physics, backend=self._backend)
        config = replace(config, task=replace(config.task, physics=physics))
        if self._device != "cpu":
            return self._simulator_on_gpu(config, envs)
        peak = self._peak(Probe(role="simulator", config=to_dict(config), envs=envs))
        slots = workload(plan_config(self._path, size, 1), _STORAGE, 1)
        return Sample(envs, slots.pixels, peak - envs * slots.buffer_bytes)

    def _simulator_on_gpu(self, config: RunConfig, envs: int) -> Sample:
        """Memory of a process that simulates, without what `base` holds too."""
        holding = Holding(role="simulator", config=to_dict(config), device="cuda", envs=envs)
        held = run_holding(holding, _TIMEOUT_S)["bytes"]
        self._advance()
        pixels = workload(config, _STORAGE, 1).pixels
        return Sample(envs, pixels, max(held - self.base, 0))

    def inference(self, size: tuple[int, int], envs: int) -> Sample:
        """Memory of inference without rollout and weights."""
        return self._learner(size, envs, samples=1, copies=1, update=False)

    def update(self, size: tuple[int, int], envs: int) -> Sample:
        """Memory of an update without rollout, weights and optimizer, per sample."""
        return self._learner(
            size, envs, samples=envs * STEPS, copies=OPTIMIZER_COPIES, update=True
        )

    def _learner(
        self, size: tuple[int, int], envs: int, samples: int, copies: int, update: bool
    ) -> Sample:
        config = plan_config(self._path, size, STEPS)
        load = workload(config, _STORAGE, samples)
        peak = self._peak(
            Probe(
                role="learner",
                config=to_dict(config),
                envs=envs,
                micro_batch=samples,
                update=update,
                device=self._device,  # type: ignore[arg-type]
            )
        )
        known = envs * load.buffer_bytes + copies * 4 * load.parameters
        return Sample(samples if update else envs, load.pixels, peak - known)

    def _peak(self, probe: Probe) -> int:
        footprint = run_probe(probe)
        self._advance()
        if footprint is None:
            raise RuntimeError(f"a probe of {probe.envs} environments ran out of memory")
        self.base = footprint.base
        return footprint.peak
