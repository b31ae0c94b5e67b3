"""Settings of the simulators: workers, devices, and how tensors get to the learner."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.transport.layout import split_envs
from dexgrasp_sim.yaml_file import absolute_path

Count = Annotated[int, Field(gt=0)]
Threads = Annotated[int, Field(gt=0, le=1024)]
Seconds = Annotated[float, Field(gt=0)]


def _find_interpreter(given: Any) -> Any:
    """Names without a slash are looked up in PATH, others are paths."""
    is_path = isinstance(given, str) and "/" in given
    return str(absolute_path(given)) if is_path else given


Interpreter = Annotated[str, BeforeValidator(_find_interpreter)]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]
"""`cpu`, `cuda` (the current GPU) or `cuda:K`."""


@dataclass(frozen=True, config=STRICT)
class WorkerSpec:
    """Settings of one worker, for runs whose workers differ.

    Attributes:
        num_envs: Environments that it simulates.
        threads: CPU threads for physics and images.
        python: Interpreter; "": the learner's own. A relative path counts from the file that says
            so, one on the command line from the working folder.
        spawn: False: it is started by hand on this host, with the command the learner prints.
        device: Where its environments compute.
    """

    num_envs: Count
    threads: Threads = 1
    python: Interpreter = ""
    spawn: bool = True
    device: Device = "cpu"


@dataclass(frozen=True, config=STRICT)
class SimulatorsConfig:
    """Settings of the simulators.

    Attributes:
        num_envs: Environments of all workers together; computed if `workers` is given.
        num_workers: Simulator processes, which share the environments as equally as possible;
            computed if `workers` is given.
        threads_per_worker: CPU threads of a worker for physics and images.
        python: Interpreter of the workers; empty: the learner's own. Paths as in `workers`.
        spawn: False: workers are started by hand on this host, with commands the learner prints.
        device: Where the environments compute: `cpu`, `cuda` or `cuda:K`.
        workers: Settings of each worker if they differ, instead of `num_envs`, `num_workers`,
            `threads_per_worker`, `python`, `spawn` and `device`.
        carrier: How tensors get from the environments to the learner, see
            `dexgrasp_sim.transport.carrier`. `auto`: in place for environments on the CPU; for
            those on GPUs from device to device where the learner computes on one too, else
            through page-locked memory.
        transport: `shared_memory`: worker processes; `in_process`: no processes, one device for
            all; `remote`: workers on other hosts, started there by hand with
            `python -m dexgrasp_sim.worker --learner HOST:PORT --index K --secret-file FILE`.
        listen: `HOST:PORT` of the learner's host where remote workers connect. They must know the
            secret of the run, see `dexgrasp_sim.transport.handshake`.
        timeout_s: A worker that has not answered a step for this long counts as hung.
        start_timeout_s: The same for building and resetting the environments, and for saving. The
            learner also waits this long for a lost remote worker to be started again.
        restarts: How often each worker that dies or hangs is replaced within 10 minutes; the next
            loss stops the run. The new process begins new episodes in its environments. 0: the
            first loss stops the run.
        spin_us: Busy-waiting before blocking on a worker, yielding to other processes; saves the
            wake-up time of about 50 us per step if a core is free.
        pipeline: `barrier`: all workers simulate, then the learner infers for all environments.
            `double_buffered`: one half of the workers simulates while the learner infers for the
            other; still on-policy. Useful if a worker's device is idle during inference: start two
            workers on each device. `overlapped`: the next rollout is collected during the update,
            with the weights from before it, so that the policy lags by one update; not across
            checkpoints. Useful if simulators would be idle during updates; needs memory for a
            second rollout.
    """

    num_envs: Count = 128
    num_workers: Count = 2
    threads_per_worker: Threads = 1
    python: Interpreter = ""
    spawn: bool = True
    device: Device = "cpu"
    workers: tuple[WorkerSpec, ...] = ()
    carrier: Literal["auto", "host", "staged", "pinned", "cuda_ipc"] = "auto"
    transport: Literal["shared_memory", "in_process", "remote"] = "shared_memory"
    listen: str = ""
    timeout_s: Seconds = 60.0
    start_timeout_s: Seconds = 300.0
    restarts: Annotated[int, Field(ge=0)] = 3
    spin_us: Annotated[float, Field(ge=0)] = 200.0
    pipeline: Literal["barrier", "double_buffered", "overlapped"] = "barrier"

    @model_validator(mode="before")
    @classmethod
    def _count_workers(cls, given: Any) -> Any:
        """Fills in the totals that follow from `workers`, unless they are given."""
        values = given if isinstance(given, Mapping) else getattr(given, "kwargs", None)
        if not values or not values.get("workers"):
            return given
        try:
            workers = list(values["workers"])
            counts = [w["num_envs"] if isinstance(w, Mapping) else w.num_envs for w in workers]
            totals = {"num_envs": sum(counts), "num_workers": len(workers)}
        except (TypeError, KeyError, AttributeError):
            return given  # the check of the field reports the error
        return {**totals, **values}

    @model_validator(mode="after")
    def _check(self) -> "SimulatorsConfig":
        total = sum(worker.num_envs for worker in self.workers)
        if self.workers and (self.num_workers, self.num_envs) != (len(self.workers), total):
            raise ValueError(
                f"num_workers {self.num_workers} and num_envs {self.num_envs} contradict workers, "
                f"which are {len(self.workers)} with {total} environments; leave the two out"
            )
        split_envs(self.num_envs, self.num_workers)
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
        self._check_carrier()
        return self

    def _check_carrier(self) -> None:
        devices = [worker.device for worker in self.worker_specs]
        on_gpu = [device != "cpu" for device in devices]
        if self.transport == "in_process" and len({*devices}) > 1:
            raise ValueError(
                f"transport in_process with environments on {', '.join(sorted({*devices}))}: all "
                "are on one device then; give all workers the same"
            )
        if self.carrier in ("pinned", "cuda_ipc") and not all(on_gpu):
            raise ValueError(
                f"carrier {self.carrier!r} brings tensors from GPUs and there are environments on "
                "the CPU; say auto, host or staged, or device: cuda"
            )
        if self.carrier == "host" and any(on_gpu) and self.transport != "in_process":
            raise ValueError(
                "carrier 'host' is for environments on the CPU, a GPU cannot write into the "
                "memory of another process; say auto, staged, pinned or cuda_ipc"
            )
        if self.carrier == "cuda_ipc" and self.transport != "shared_memory":
            raise ValueError(
                f"carrier 'cuda_ipc' needs worker processes on the learner's host and transport "
                f"is {self.transport!r}; say auto, or transport: shared_memory"
            )

    @property
    def worker_specs(self) -> tuple[WorkerSpec, ...]:
        """All workers, one by one."""
        if self.workers:
            return self.workers
        others = self.threads_per_worker, self.python, self.spawn, self.device
        slices = split_envs(self.num_envs, self.num_workers)
        return tuple(WorkerSpec(stop - start, *others) for start, stop in slices)

    @property
    def shares(self) -> tuple[int, ...]:
        """Environments of each worker."""
        return tuple(worker.num_envs for worker in self.worker_specs)
