"""How many environments fit, data parallel and disaggregated, on devices of equal memory."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from dexgrasp_learner.capacity.costs import OPTIMIZER_COPIES, Costs
from dexgrasp_learner.capacity.workload import Workload

_MOST = 2**32


@dataclass(frozen=True)
class Share:
    """What one kind of device holds.

    Attributes:
        role: `simulator`, `learner` or `both`.
        devices: How many of this kind.
        environments: Per device: simulated there, or in the rollout of this learner.
        limit: Number of environments that would fit on a device.
        bytes: Use of a device's memory: name to bytes.
    """

    role: str
    devices: int
    environments: int
    limit: int
    bytes: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """How devices are used, and the total number of environments."""

    environments: int
    shares: tuple[Share, ...]

    @property
    def limited_by(self) -> str:
        """The role whose devices are full."""
        return min(self.shares, key=lambda share: share.devices * share.limit).role


def plan_data_parallel(costs: Costs, load: Workload, devices: int, memory: float) -> Plan:
    """Every device simulates, and learns from its own environments.

    Args:
        costs: Of this software on these devices.
        load: Memory needs of one environment.
        devices: Number of devices.
        memory: Bytes of each device.
    """

    def held(envs: int) -> dict[str, float]:
        return device_bytes(costs, load, envs, envs)

    envs = largest_count(lambda n: sum(held(n).values()), memory)
    return Plan(devices * envs, (_share("both", devices, envs, envs, held(envs)),))


def plan_disaggregated(
    costs: Costs, load: Workload, devices: int, memory: float, learners: int | None = None
) -> Plan:
    """Some devices simulate and the others learn, in the best proportion.

    Several learners share the environments equally and average their gradients. If two
    proportions hold the same number, the one with fewer learners is taken.

    Args:
        costs: Of this software on these devices.
        load: Memory needs of one environment.
        devices: Number of devices, at least two.
        memory: Bytes of each device.
        learners: Number of devices that learn; None: the best number.

    Raises:
        ValueError: There is only one device.
    """
    if devices < 2:
        raise ValueError(f"{devices} device cannot be split into simulators and a learner")

    def simulator(envs: int) -> dict[str, float]:
        return device_bytes(costs, load, envs, None)

    def learner(envs: int) -> dict[str, float]:
        return device_bytes(costs, load, None, envs)

    simulated = largest_count(lambda n: sum(simulator(n).values()), memory)
    learned = largest_count(lambda n: sum(learner(n).values()), memory)
    counts = [learners] if learners else range(1, devices)
    splits = [(devices - count, count) for count in counts]
    totals = [min(sims * simulated, count * learned) for sims, count in splits]
    total = max(totals)
    simulators, learners = splits[totals.index(total)]
    each, mine = -(-total // simulators), -(-total // learners)
    return Plan(
        total,
        (
            _share("simulator", simulators, each, simulated, simulator(each)),
            _share("learner", learners, mine, learned, learner(mine)),
        ),
    )


def device_bytes(
    costs: Costs, load: Workload, simulated: int | None, learned: int | None
) -> dict[str, float]:
    """The memory use of a device that simulates some environments and learns from some.

    An update holds the activations of one micro-batch, or of the whole rollout if that is smaller.
    The memory used by inference is free by then, but fragmented, so both are counted.

    Args:
        costs: Of this software on this device.
        load: Memory needs of one environment.
        simulated: Environments simulated here; None: no simulator.
        learned: Environments in the rollout of this learner; None: no learner.
    """
    held: dict[str, float] = {"process": costs.process}
    if simulated is not None:
        per_env = costs.simulator_env + costs.simulator_pixel * load.pixels
        held["simulator"] = costs.simulator
        held["environments"] = simulated * per_env
    if learned is not None:
        samples = min(load.micro_batch, learned * load.horizon)
        update = samples * (costs.update_sample + costs.update_pixel * load.pixels)
        inference = learned * (costs.inference_env + costs.inference_pixel * load.pixels)
        held["learner"] = costs.learner
        held["nets_and_optimizer"] = OPTIMIZER_COPIES * 4 * load.parameters
        held["rollout"] = learned * load.buffer_bytes
        held["inference"] = inference
        held["update"] = update
    return held


def largest_count(needed: Callable[[int], float], memory: float) -> int:
    """The largest n < 2^32 with `needed(n)` <= `memory` bytes, else 0; `needed` must not fall."""
    return bisect_right(range(1, _MOST), memory, key=needed)


def _share(
    role: str, devices: int, environments: int, limit: int, held: dict[str, float]
) -> Share:
    rounded = {name: round(value) for name, value in held.items()}
    return Share(role, devices, environments, limit, rounded)
