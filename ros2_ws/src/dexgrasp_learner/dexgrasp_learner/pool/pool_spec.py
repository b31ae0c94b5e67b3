"""Which environments a run simulates, and with which workers."""

import json
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_learner.pool.config import Device, SimulatorsConfig, WorkerSpec
from dexgrasp_sim.config import STRICT, ConfigError
from dexgrasp_sim.environments import env_specs
from dexgrasp_sim.transport.carrier import CarrierName
from dexgrasp_sim.transport.layout import RunLayout


@dataclass(frozen=True, config=STRICT)
class PoolSpec:
    """Which environments to simulate, and with which workers.

    Attributes:
        kind: Kind of environment, see `environments.make_env`.
        config: Plain values of the environment's config.
        groups: Names of the observation groups.
        horizon: Steps per rollout, T.
        simulators: Settings of the workers.
        seed: Of the run; a rollout does not depend on how environments are split among workers.
        env_offset: Global index of the first environment; pools of other ranks have others.
        learner_device: Where the learner computes.
        log_dir: Folder of the workers' logs; None: the run's folder, removed when the run ends.
        secret_path: File with the secret that remote workers must know, made if it does not exist;
            None: an environment variable gives the secret, see `transport.secret`.
        run_id: Id under which workers and observers find the run; "": a new one is drawn.
    """

    kind: str
    config: dict[str, Any]
    groups: tuple[str, ...]
    horizon: Annotated[int, Field(gt=0)]
    simulators: SimulatorsConfig = SimulatorsConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    env_offset: Annotated[int, Field(ge=0)] = 0
    learner_device: Device = "cpu"
    log_dir: Path | None = None
    secret_path: Path | None = None
    run_id: str = ""

    def layout(self) -> RunLayout:
        """The tensors that these environments need.

        Raises:
            ConfigError: The environments' config is wrong.
        """
        specs = env_specs(self.kind, self.config, self.groups)
        ends = accumulate(self.simulators.shares, initial=0)
        return RunLayout(specs, self.horizon, tuple(pairwise(ends)))

    def orders(self) -> list[dict[str, Any]]:
        """What each worker must know to build its environments, as plain JSON values."""
        values = {
            "kind": self.kind,
            "config": self.config,
            "groups": self.groups,
            "seed": self.seed,
            "env_offset": self.env_offset,
            "spin_us": self.simulators.spin_us,
        }
        common = json.loads(json.dumps(values))
        return [
            {
                **common,
                "threads": worker.threads,
                "device": str(self.env_device(worker)),
                "carrier": self.carrier_of(worker),
            }
            for worker in self.simulators.worker_specs
        ]

    def env_device(self, worker: WorkerSpec) -> torch.device:
        """Where a worker's environments compute; `cuda` is the current GPU of this process.

        Each rank of a data-parallel run thus has its environments on the GPU of its nets.
        """
        if worker.device == "cuda" and self._uses_our_torch(worker):
            return _with_index(worker.device)
        return torch.device(worker.device)

    @property
    def tensor_device(self) -> torch.device:
        """Where the learner's tensors of observations and results are.

        They are on its GPU if the environments can write there: from this process, or from workers
        by `cuda_ipc`. Otherwise they are in host memory, from which `Rollout` copies.
        """
        simulators = self.simulators
        first = simulators.worker_specs[0]
        carrier = self.carrier_of(first)
        if simulators.transport == "in_process" and carrier == "host":
            return self.env_device(first)
        is_direct = simulators.transport == "in_process" and carrier == "staged"
        if is_direct or carrier == "cuda_ipc":
            return _with_index(self.learner_device)
        return torch.device("cpu")

    def carrier_of(self, worker: WorkerSpec) -> CarrierName:
        """How a worker's tensors get to the learner."""
        simulators = self.simulators
        if simulators.carrier != "auto":
            return simulators.carrier
        if worker.device == "cpu":
            return "host"
        if simulators.transport == "in_process":
            is_same = self.env_device(worker) == _with_index(self.learner_device)
            return "host" if is_same else "staged"
        devices = {spec.device for spec in simulators.worker_specs}
        is_local = simulators.transport == "shared_memory"
        if is_local and "cpu" not in devices and self.learner_device != "cpu":
            return "cuda_ipc"
        return "pinned"

    def check_devices(self) -> None:
        """Makes sure that this host has the devices of those workers that use its torch.

        Raises:
            ConfigError: It does not, or a carrier does not suit the learner's device.
        """
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for index, worker in enumerate(self.simulators.worker_specs):
            if worker.device == "cpu" or not self._uses_our_torch(worker):
                continue
            number = self.env_device(worker).index if found else 0
            if number >= found:
                key = f"workers[{index}].device" if self.simulators.workers else "device"
                raise ConfigError(
                    f"simulators.{key} = {worker.device!r}: torch finds {found} GPUs; say cpu or "
                    "the number of one that is there, or install a torch with CUDA and its driver"
                )
        if self.simulators.carrier == "cuda_ipc" and self.learner_device == "cpu":
            raise ConfigError(
                "simulators.carrier = 'cuda_ipc': brings tensors to a learner on a GPU and "
                "training.device is the CPU; say auto or pinned, or training.device=cuda"
            )

    def _uses_our_torch(self, worker: WorkerSpec) -> bool:
        return self.simulators.transport != "remote" and not worker.python


def _with_index(name: str) -> torch.device:
    """The named device with its index; that of the current GPU if the name has none."""
    device = torch.device(name)
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return device
