"""How many environments fit: data parallel against disaggregated, on devices of one size."""

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
        environments: On each: simulated there, or in the rollout of this learner.
        limit: How many would fit.
        bytes: What fills a device: name to bytes.
    """

    role: str
    devices: int
    environments: int
    limit: int
    bytes: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """How devices are used, and how many environments that makes."""

    environments: int
    shares: tuple[Share, ...]

    @property
    def limited_by(self) -> str:
        """The role whose devices are full."""
        return min(self.shares, key=lambda share: share.devices * share.limit).role


def plan_data_parallel(costs: Costs, load: Workload, devices: int, memory: float) -> Plan:
    """Every device simulates and learns from what it simulates.

    Args:
        costs: Of this software on these devices.
        load: What one environment asks for.
        devices: Devices.
        memory: Bytes of each.
    """

    def held(envs: int) -> dict[str, float]:
        return device_bytes(costs, load, envs, envs)

    envs = largest_count(lambda n: sum(held(n).values()), memory)
    return Plan(devices * envs, (_share("both", devices, envs, envs, held(envs)),))


def plan_disaggregated(
    costs: Costs, load: Workload, devices: int, memory: float, learners: int | None = None
) -> Plan:
    """Devices that simulate and devices that learn, in the best proportion.

    Several learners share the environments equally and average their gradients. Where two
    proportions hold the same number, the one with fewer learners is taken.

    Args:
        costs: Of this software on these devices.
        load: What one environment asks for.
        devices: Devices, at least two.
        memory: Bytes of each.
        learners: How many learn; None: as many as is best.

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
    """What a device holds that simulates some environments and learns from some.

    An update holds the activations of one micro-batch, or of all there is if that is less. What
    inference took is free by then, but in pieces too small for it.

    Args:
        costs: Of this software on this device.
        load: What one environment asks for.
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
    """The largest n below 2^32 with `needed(n)`, bytes that grow with n, within `memory`; or 0."""
    return bisect_right(range(1, _MOST), memory, key=needed)


def _share(
    role: str, devices: int, environments: int, limit: int, held: dict[str, float]
) -> Share:
    rounded = {name: round(value) for name, value in held.items()}
    return Share(role, devices, environments, limit, rounded)
