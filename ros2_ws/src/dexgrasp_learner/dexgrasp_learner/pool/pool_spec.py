"""Which environments a run simulates, and who does it."""

import json
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT, ConfigError
from dexgrasp_sim.environments import env_specs
from dexgrasp_sim.transport.carrier import CarrierName
from dexgrasp_sim.transport.layout import RunLayout, split_envs

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class WorkerSpec:
    """One worker of a run whose workers differ.

    Attributes:
        num_envs: Environments that it simulates.
        threads: CPU threads for physics and images.
        python: Interpreter; "": the learner's own.
        spawn: False: a person starts it, on this host, with the command that the learner prints.
    """

    num_envs: Count
    threads: Count = 1
    python: str = ""
    spawn: bool = True


@dataclass(frozen=True, config=STRICT)
class PoolSpec:
    """Which environments to simulate, and who does it.

    Attributes:
        kind: Kind of environment, see `environments.make_env`.
        config: Plain values of the environment's config.
        groups: Names of the observation groups.
        horizon: Steps per rollout, T.
        num_envs: Environments of all workers together, N.
        num_workers: Workers, W; they share the environments as equally as can be.
        threads_per_worker: CPU threads of each.
        seed: Of the run; how the environments are split changes nothing about a rollout.
        env_offset: Global index of the first environment; other pools of the run have the others.
        transport: `shared_memory`: worker processes; `in_process`: all in this thread; `remote`:
            workers on other hosts, which people start.
        listen: `HOST:PORT` of this host where remote workers connect.
        sim_python: Interpreter of the workers; "": this one.
        log_dir: Folder of the workers' logs; None: the run's folder, which goes with the run.
        timeout_s: A worker that has not answered a step for this long counts as hung.
        start_timeout_s: The same for building and resetting the environments, and for saving.
        spin_us: Busy-wait before blocking; pays only where every process has a free core.
        run_id: Id under which workers and observers find the run; "": a new one is drawn.
        spawn: False: the workers are started by hand, within `start_timeout_s`.
        workers: Where they differ, one by one, instead of `num_workers`, `threads_per_worker`,
            `sim_python` and `spawn`; their environments add up to `num_envs`.
        carrier: How worker processes bring observations to the learner, see `transport.carrier`.
        device: Where the environments compute, for carriers other than `host`.
        pin: Whether to register the shared memory with CUDA, for a learner on a GPU.
        restarts: A worker that dies or hangs in the middle of the run is replaced, but not more
            often than this within 10 minutes; then its loss is an error. 0: it always is.
    """

    kind: str
    config: dict[str, Any]
    groups: tuple[str, ...]
    horizon: Count
    num_envs: Count
    num_workers: Count = 1
    threads_per_worker: Count = 1
    seed: Annotated[int, Field(ge=0)] = 0
    env_offset: Annotated[int, Field(ge=0)] = 0
    transport: Literal["shared_memory", "in_process", "remote"] = "shared_memory"
    listen: str = ""
    sim_python: str = ""
    log_dir: Path | None = None
    timeout_s: Seconds = 60.0
    start_timeout_s: Seconds = 300.0
    spin_us: Annotated[float, Field(ge=0)] = 0.0
    run_id: str = ""
    spawn: bool = True
    workers: tuple[WorkerSpec, ...] = ()
    carrier: CarrierName = "host"
    device: Literal["cpu", "cuda"] = "cpu"
    pin: bool = False
    restarts: Annotated[int, Field(ge=0)] = 0

    def worker_specs(self) -> tuple[WorkerSpec, ...]:
        """All workers, one by one.

        Raises:
            ConfigError: They cannot have `num_envs` environments together.
        """
        if not self.workers:
            try:
                slices = split_envs(self.num_envs, self.num_workers)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            others = self.threads_per_worker, self.sim_python, self.spawn
            return tuple(WorkerSpec(stop - start, *others) for start, stop in slices)
        total = sum(worker.num_envs for worker in self.workers)
        if total != self.num_envs:
            raise ConfigError(
                f"num_envs {self.num_envs} is not the sum {total} of the workers' num_envs; "
                "change one of them"
            )
        return self.workers

    def layout(self) -> RunLayout:
        """The tensors that these environments need.

        Raises:
            ConfigError: The environments' config is wrong, or they cannot be split.
        """
        specs = env_specs(self.kind, self.config, self.groups)
        ends = accumulate((worker.num_envs for worker in self.worker_specs()), initial=0)
        return RunLayout(
            specs.observation_specs,
            specs.action_dim,
            specs.control_dt_s,
            self.horizon,
            tuple(pairwise(ends)),
        )

    def orders(self) -> list[dict[str, Any]]:
        """What each worker must know to build its environments, as plain JSON values."""
        values = {
            "kind": self.kind,
            "config": self.config,
            "groups": self.groups,
            "seed": self.seed,
            "env_offset": self.env_offset,
            "spin_us": self.spin_us,
            "carrier": self.carrier,
            "device": self.device,
        }
        common = json.loads(json.dumps(values))
        return [{**common, "threads": worker.threads} for worker in self.worker_specs()]
