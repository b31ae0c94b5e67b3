"""Configuration of a training run: the task, the simulators, the networks and the update."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_learner.algorithms.config import DistillationConfig, PpoConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.pool.pool_spec import WorkerSpec
from dexgrasp_learner.run.config import AdrConfig, TrainingConfig
from dexgrasp_sim.config import STRICT, load_config
from dexgrasp_sim.tasks.grasp.config import GraspConfig

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class SimulatorsConfig:
    """Who simulates.

    Attributes:
        num_envs: Environments of all workers together.
        num_workers: Simulator processes; each holds an equal share of the environments, unless
            `workers` says otherwise.
        threads_per_worker: CPU threads of a worker for physics and images.
        transport: `shared_memory`: worker processes; `in_process`: no processes, one device for
            all; `remote`: workers on other hosts, which people start with
            `python -m dexgrasp_sim.worker.remote`.
        listen: `HOST:PORT` of the learner's host where remote workers connect.
        python: Interpreter of the workers; empty: the learner's own.
        workers: One by one, where they differ, instead of `threads_per_worker` and `python`.
        timeout_s: A worker that has not answered a step for this long counts as hung.
        restarts: A worker that dies or hangs is replaced by a new process whose environments
            begin new episodes, but not more often than this within 10 minutes: then the run
            stops. 0: it stops at once.
        spin_us: Busy-wait before blocking on a worker; pays only with a free core each.
        pipeline: `barrier`: all workers simulate, then the learner infers for all environments.
            `double_buffered`: one half of the workers simulates while the learner infers for the
            other; still on-policy. Pays where a worker's device idles during inference: start two
            workers on each. `overlapped`: the update goes on while the next rollout is collected
            with the weights from before it, so that learning lags by one update; between
            checkpoints only. Pays where simulators would idle during updates; takes the memory of
            a second rollout.
    """

    num_envs: Count = 128
    num_workers: Count = 2
    threads_per_worker: Count = 1
    transport: Literal["shared_memory", "in_process", "remote"] = "shared_memory"
    listen: str = ""
    python: str = ""
    workers: tuple[WorkerSpec, ...] = ()
    timeout_s: Positive = 60.0
    restarts: Annotated[int, Field(ge=0)] = 3
    spin_us: Annotated[int, Field(ge=0)] = 0
    pipeline: Literal["barrier", "double_buffered", "overlapped"] = "barrier"

    @model_validator(mode="after")
    def _check(self) -> "SimulatorsConfig":
        total = sum(worker.num_envs for worker in self.workers)
        if self.workers and (self.num_workers, self.num_envs) != (len(self.workers), total):
            raise ValueError(
                f"num_workers {self.num_workers} and num_envs {self.num_envs} must be what "
                f"workers has: {len(self.workers)} with {total} environments; change one of them"
            )
        if not self.workers and self.num_envs % self.num_workers:
            raise ValueError(
                f"num_envs {self.num_envs} is no multiple of num_workers {self.num_workers}"
            )
        if (self.transport == "remote") != bool(self.listen):
            raise ValueError(
                f"transport {self.transport!r} with listen {self.listen!r}: remote workers need "
                "HOST:PORT to connect to, others do not; change one of them"
            )
        if self.pipeline == "double_buffered" and self.num_workers % 2:
            raise ValueError(
                f"pipeline double_buffered halves the workers and num_workers is "
                f"{self.num_workers}; make it even"
            )
        return self

    @property
    def shares(self) -> tuple[int, ...]:
        """Environments of each worker."""
        if self.workers:
            return tuple(worker.num_envs for worker in self.workers)
        return (self.num_envs // self.num_workers,) * self.num_workers


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """A training run. Every key has a default here; a YAML file holds what differs.

    Attributes:
        name: Run folders start with it; short and without slashes.
        seed: All random draws of the run come from generators that this seeds.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")] = "run"
    seed: Annotated[int, Field(ge=0)] = 0
    task: GraspConfig = GraspConfig()
    simulators: SimulatorsConfig = SimulatorsConfig()
    network: NetworkConfig = NetworkConfig()
    ppo: PpoConfig = PpoConfig()
    distillation: DistillationConfig = DistillationConfig()
    training: TrainingConfig = TrainingConfig()
    adr: AdrConfig = AdrConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        camera, network = self.task.camera, self.network
        if (network.depth_near_m, network.depth_far_m) != (camera.near_m, camera.far_m):
            raise ValueError(
                f"network.depth_near_m and depth_far_m {network.depth_near_m}, "
                f"{network.depth_far_m} must be those of task.camera {camera.near_m}, "
                f"{camera.far_m}; change one pair"
            )
        for name, algorithm in (("ppo", self.ppo), ("distillation", self.distillation)):
            pieces = algorithm.minibatches * (algorithm.micro_batches or 1)
            if pieces > self.simulators.num_envs:
                raise ValueError(
                    f"{name}.minibatches * micro_batches = {pieces} is more than "
                    f"simulators.num_envs {self.simulators.num_envs}; lower them"
                )
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """Observation groups that the simulators must write: the nets' inputs and targets."""
        network = self.network
        auxiliary = (network.auxiliary_group,) if network.auxiliary_group else ()
        return tuple(dict.fromkeys((*network.actor_groups, *network.critic_groups, *auxiliary)))


def load_run_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """See `dexgrasp_sim.config.load_config`."""
    return load_config(RunConfig, path, overrides)
