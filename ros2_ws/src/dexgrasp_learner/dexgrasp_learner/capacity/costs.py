"""Memory costs of simulating and learning: measured on a machine, or fitted to the paper."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_learner.capacity.workload import Storage, plan_config, workload
from dexgrasp_sim.config import STRICT, ConfigError, parse_config

Bytes = Annotated[float, Field(ge=0)]
GIB = 2**30
OPTIMIZER_COPIES = 4
"""Adam holds weight, gradient and two moments of each parameter."""
PAPER = "paper"


@dataclass(frozen=True, config=STRICT)
class Costs:
    """Bytes on a device, except those that `Workload` gives exactly.

    Attributes:
        source: What was measured on which hardware, or what was assumed.
        device: `cpu`, `cuda` or `fit`.
        process: Per process on a device: interpreter and libraries, or a CUDA context.
        simulator: Fixed cost of a simulator.
        simulator_env: Per environment.
        simulator_pixel: Per pixel of each environment.
        learner: Fixed cost of a learner, without the nets.
        inference_env: Per environment during inference.
        inference_pixel: Per pixel of each environment during inference.
        update_sample: Per sample of a micro-batch: activations and gradients.
        update_pixel: Per pixel of each sample of a micro-batch.
        storage: Default element type of images in the rollout.
        micro_batch_pixels: Default number of pixels in a micro-batch.
    """

    source: str
    device: Annotated[str, Field(pattern="^(cpu|cuda|fit)$")]
    process: Bytes
    simulator: Bytes
    simulator_env: Bytes
    simulator_pixel: Bytes
    learner: Bytes
    inference_env: Bytes
    inference_pixel: Bytes
    update_sample: Bytes
    update_pixel: Bytes
    storage: Storage
    micro_batch_pixels: Annotated[int, Field(gt=0)]


def load_costs(name: str) -> Costs:
    """A set of costs.

    Args:
        name: JSON file that `dexgrasp bench capacity_costs` has written, or `paper`.

    Raises:
        ConfigError: There is no such file, it does not hold costs, or a cost was not measured.
    """
    if name == PAPER:
        return fit_to_paper()
    path = Path(name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["costs"]
    except FileNotFoundError:
        raise ConfigError(
            f"no costs at {path}; measure them with `dexgrasp bench capacity_costs` in a "
            f"checkout, or name `--costs {PAPER}`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} holds no costs ({error}); measure again") from None
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise ConfigError(
            f"{path} has null for {', '.join(missing)}: not measured ({values.get('source')}); "
            "fill them in from a measurement of your simulator on its device"
        )
    return parse_config(Costs, values, source=str(path))


_RESOLUTION = (160, 120)
_HORIZON = 16
_DATA_PARALLEL, _SIMULATORS = 1024, 2800
"""Environments per GPU of the paper at 160x120; at 320x240 a quarter of both."""
_CARD = 48 * GIB
_PROCESS, _SIMULATOR, _LEARNER = 0.5 * GIB, 2.5 * GIB, 0.5 * GIB


def fit_to_paper() -> Costs:
    """Fits the two unknown costs per pixel to the paper's two figures per resolution.

    Its project page gives 1024 environments per GPU in data parallel and 2800 on a GPU that only
    simulates at 160x120, 256 and 700 at 320x240. Everything else is assumed, see `source`. All
    four numbers scale with the pixels, so the costs are taken as proportional to pixels. The
    published minibatch of 16384 equals 1024 x 16 samples, so an update is assumed to process the
    rollout of one GPU at once; the disaggregated learner must use the same size, or its 8400
    environments would not fit.
    """
    samples = _DATA_PARALLEL * _HORIZON
    load = workload(plan_config(None, _RESOLUTION, _HORIZON), "float32", samples)
    free = _CARD - _PROCESS - _SIMULATOR
    # the limit is assumed halfway between this number, which fits, and the next one
    simulated = free / (_SIMULATORS + 0.5)
    nets = OPTIMIZER_COPIES * 4 * load.parameters
    per_env = simulated + load.buffer_bytes
    update = free - _LEARNER - nets - (_DATA_PARALLEL + 0.5) * per_env
    return Costs(
        source=(
            "a fit, not a measurement: the paper's 1024 and 2800 environments per GPU at 160x120 "
            "(256 and 700 at 320x240); assumed are cards of 48 GiB, 0.5 GiB for a CUDA context, "
            "2.5 GiB for a simulator and 0.5 GiB for a learner without environments, float32 "
            "images, 16 steps, updates of 16384 samples (4096), costs that grow with the pixels"
        ),
        device="fit",
        process=_PROCESS,
        simulator=_SIMULATOR,
        simulator_env=0,
        simulator_pixel=simulated / load.pixels,
        learner=_LEARNER,
        inference_env=0,
        inference_pixel=0,
        update_sample=0,
        update_pixel=update / (samples * load.pixels),
        storage="float32",
        micro_batch_pixels=samples * load.pixels,
    )
