"""One process of a capacity measurement: holds environments until it runs out of memory.

`python -m benchmarks.capacity_probes.probe PROBE` does one rollout and one update as described by
the JSON `Probe`, prints a `Footprint`, and ends with code 0 if it fitted, 3 if memory ran out.
"""

import argparse
import json
import math
import resource
import secrets
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.capacity.workload import Storage, is_image
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.pool.env_pool import make_pool
from dexgrasp_learner.pool.pool import EnvPool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_connection import WorkerDied
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.assembly import build_ppo, pool_spec
from dexgrasp_sim.config import STRICT, replace, to_dict
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp import env as _env  # noqa: F401  part of what any process has
from dexgrasp_sim.transport.layout import split_envs
from dexgrasp_sim.transport.worker_link import SharedWorkerLink
from dexgrasp_sim.worker import process as worker

FITS, TOO_MUCH = 0, 3
_SIGNS = ("alloc", "MemoryError", "ut of memory", "start new thread")
"""Parts of the messages with which torch, numpy, C++ and CUDA report a lack of memory."""
_START_TIMEOUT_S = 120.0
_EXIT_TIMEOUT_S = 5.0
_SAMPLE_PERIOD_S = 1e-3

Role = Literal["simulator", "learner", "data_parallel", "split", "worker"]


@validated(frozen=True, config=STRICT)
class Probe:
    """What a process holds.

    Attributes:
        role: `simulator`: environments only. `learner`: rollout and nets only, on artificial
            observations. `data_parallel`: both in one process. `split`: a learner with simulators
            in separate processes. `worker`: one of these.
        config: The run, plain values.
        envs: Environments.
        storage: Element type of images in the rollout.
        micro_batch: Samples whose activations are held at a time.
        update: Whether to learn from the rollout too.
        simulators: Processes that simulate, for `split`.
        simulator_env_bytes: Additional memory of each simulated environment, to imitate a GPU.
        budget_bytes: Memory of each process beyond that of a bare one; None: no limit.
        device: Where the learner computes.
        run_id: Of the learner, for `worker`.
        index: For `worker`.
    """

    role: Role
    config: dict[str, Any]
    envs: int = 1
    storage: Storage = "int16"
    micro_batch: int = 128
    update: bool = True
    simulators: int = 1
    simulator_env_bytes: int = 0
    budget_bytes: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    run_id: str = ""
    index: int = 0


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes: `base` of the bare process, and the `peak` of what was added."""

    base: int
    peak: int


def hold(probe: Probe) -> Footprint:
    """Carries out a probe.

    Raises:
        MemoryError, RuntimeError: It does not fit.
    """
    torch.set_num_threads(1)
    config = TypeAdapter(RunConfig).validate_python(probe.config)
    if probe.role == "split":
        probe = replace(probe, run_id=f"capacity-{secrets.token_hex(4)}")
    base = _status_bytes("VmRSS") - _status_bytes("RssFile") - _status_bytes("RssShmem")
    if probe.budget_bytes is not None:
        # with separate simulators the rollout is shared memory, which a process limit ignores
        shared = _pool_spec(probe, config).layout().nbytes if probe.role == "split" else 0
        limit_memory(probe.budget_bytes - shared)
    with CommittedPeak() as peak:
        _hold_as(probe, config)
    if probe.device == "cuda":
        return Footprint(_cuda_context_bytes(), torch.cuda.max_memory_allocated())
    return Footprint(base, peak.bytes)


def _hold_as(probe: Probe, config: RunConfig) -> None:
    if probe.role == "worker":
        start, stop = split_envs(probe.envs, probe.simulators)[probe.index]
        with _extra_memory(probe, stop - start):
            print("ready", flush=True)
            worker.serve(SharedWorkerLink(probe.run_id, probe.index))
    elif probe.role == "simulator":
        _simulate(probe, config)
    elif probe.role == "learner":
        _learn(probe, config)
    else:
        _run(probe, config)


def limit_memory(budget_bytes: int) -> None:
    """Limits this process to `budget_bytes` more private memory than it has now.

    Raises:
        MemoryError: The budget is negative.
    """
    if budget_bytes < 0:
        raise MemoryError(f"{-budget_bytes} bytes more than the budget are shared memory")
    limit = _status_bytes("VmData") + budget_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _simulate(probe: Probe, config: RunConfig) -> None:
    with _extra_memory(probe, probe.envs), ExitStack() as stack:
        pool = make_pool(replace(_pool_spec(probe, config), horizon=1))
        stack.callback(pool.close)
        pool.start()
        for _ in range(config.training.horizon):
            pool.send(0, policy_version=0)
            pool.wait(0)
            pool.roll_over()


@contextmanager
def _extra_memory(probe: Probe, envs: int) -> Iterator[None]:
    """Holds the additional memory `simulator_env_bytes` of a probe's environments."""
    extra = torch.ones(envs * probe.simulator_env_bytes, dtype=torch.uint8)
    yield
    del extra


def _learn(probe: Probe, config: RunConfig) -> None:
    ppo = _build_learner(probe, config)
    layout = _pool_spec(probe, config).layout()
    tensors = {
        block.name: torch.ones(block.shape, dtype=block.torch_dtype, device=ppo.device)
        for block in layout.rollout_blocks
    }
    rollout = Rollout.on(tensors, ppo.groups, ppo.memory_sizes, ppo.device)
    with torch.inference_mode():
        for slot in range(2):  # the second step allocates while the first one's memory is held
            ppo.act(rollout, slot)
    if probe.update:
        ppo.update(rollout)


def _run(probe: Probe, config: RunConfig) -> None:
    """A rollout and an update on real environments.

    Raises:
        MemoryError: A simulator ran out of memory.
    """
    spec = _pool_spec(probe, config)
    images = [s.name for s in spec.layout().observation_specs if _is_converted(s, probe.storage)]
    horizon = config.training.horizon
    ppo = _build_learner(probe, config)
    with ExitStack() as stack:
        pool = make_pool(replace(spec, horizon=1) if images else spec)
        stack.callback(pool.close)
        if probe.role == "split":
            stack.enter_context(_workers(probe, spec.run_id))
        else:
            stack.enter_context(_extra_memory(probe, probe.envs))
        pool.start()
        own = _converted(pool, horizon, images, probe.storage) if images else {}
        rollout = Rollout.on(own or pool.tensors, ppo.groups, ppo.memory_sizes)
        with torch.inference_mode():
            for slot in range(horizon):
                _step(pool, ppo, rollout, slot, own)
        pool.close()  # so that a failing update is not taken for a failing simulator
        ppo.update(rollout)


def _step(pool: EnvPool, ppo: Ppo, rollout: Rollout, slot: int, own: dict[str, Tensor]) -> None:
    """One step in the pool's tensors, or in `own` if given, which is copied from its one slot."""
    if not own:
        ppo.act(rollout, slot)
        pool.send(slot, policy_version=0)
        pool.wait(slot)
        return
    if slot == 0:
        _convert(pool, own, 0)
    ppo.act(rollout, slot)
    pool.tensors["actions"][0] = own["actions"][slot]
    pool.send(0, policy_version=0)
    pool.wait(0)
    pool.roll_over()
    _convert(pool, own, slot + 1)


def _convert(pool: EnvPool, own: dict[str, Tensor], slot: int) -> None:
    for name in own.keys() - {"actions"}:
        own[name][slot].copy_(pool.tensors[name][0])


def _converted(
    pool: EnvPool, horizon: int, images: Sequence[str], storage: Storage
) -> dict[str, Tensor]:
    """Rollout tensors whose images have another element type than the pool's."""
    tensors = {}
    for name in pool.tensors.keys() - {"sequence"}:
        like = pool.tensors[name]
        slots = horizon if name == "actions" else horizon + 1
        dtype = getattr(torch, storage) if name in images else like.dtype
        tensors[name] = torch.zeros(slots, *like.shape[1:], dtype=dtype)
    return tensors


def _is_converted(spec: TensorSpec, storage: Storage) -> bool:
    return is_image(spec) and spec.dtype != storage


def _build_learner(probe: Probe, config: RunConfig) -> Ppo:
    samples = probe.envs * config.training.horizon
    pieces = min(math.ceil(samples / probe.micro_batch), probe.envs)
    ppo = replace(config.ppo, epochs=1, minibatches=1, micro_batches=pieces)
    training = replace(config.training, device=probe.device)
    # num_envs must only be large enough for the number of pieces; the nets do not depend on it
    envs = max(probe.envs, config.simulators.num_envs)
    simulators = replace(config.simulators, num_envs=envs, num_workers=1)
    return build_ppo(replace(config, ppo=ppo, training=training, simulators=simulators))


def _pool_spec(probe: Probe, config: RunConfig) -> PoolSpec:
    is_split = probe.role == "split"
    simulators = replace(
        config.simulators,
        num_envs=probe.envs,
        num_workers=probe.simulators if is_split else 1,
        transport="shared_memory" if is_split else "in_process",
        spawn=False,
        start_timeout_s=_START_TIMEOUT_S,
    )
    config = replace(config, simulators=simulators)
    return pool_spec(config, None, config.groups, probe.run_id)


@contextmanager
def _workers(probe: Probe, run_id: str) -> Iterator[None]:
    """Simulators that each have the probe's budget, which ordinary workers do not enforce."""
    processes = [
        subprocess.Popen(
            command(replace(probe, role="worker", run_id=run_id, index=index)),
            stdout=subprocess.PIPE,
        )
        for index in range(probe.simulators)
    ]
    try:
        for process in processes:
            _wait_until_ready(process)
        yield
    except WorkerDied as error:
        if any(is_out_of_memory(_end(process)) for process in processes):
            raise MemoryError(str(error)) from error
        raise
    finally:
        for process in processes:
            _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Waits for a worker's first line, to notice if it dies before it connects."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
    if ready and process.stdout.readline():
        return
    code = _end(process)
    if is_out_of_memory(code):
        raise MemoryError("the budget of a simulator is too small for its environments")
    raise RuntimeError(f"a simulator ended with code {code} before it began")


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(_EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(_EXIT_TIMEOUT_S)


def is_out_of_memory(returncode: int) -> bool:
    """Whether a probe ended for lack of memory; C++ then ends the process with a signal."""
    return returncode in (TOO_MUCH, -signal.SIGABRT, -signal.SIGSEGV)


def command(probe: Probe) -> list[str]:
    """The command line of a probe."""
    return [sys.executable, "-m", "benchmarks.capacity_probes.probe", json.dumps(to_dict(probe))]


class CommittedPeak:
    """The peak of private memory allocated by this process since the start, touched or not.

    RLIMIT_DATA counts this memory; the kernel records no peak of it, so a thread samples it.
    """

    def __enter__(self) -> "CommittedPeak":
        """Starts sampling."""
        self.bytes = 0
        self._before = _status_bytes("VmData")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops sampling."""
        self._over.set()
        self._thread.join(_EXIT_TIMEOUT_S)

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_PERIOD_S):
            self.bytes = max(self.bytes, _status_bytes("VmData") - self._before)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}; run this on Linux")


def _cuda_context_bytes() -> int:
    """Memory of this process on an otherwise idle GPU, without its tensors."""
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries out one probe; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("probe", help="JSON of Probe")
    options = parser.parse_args(arguments)
    try:
        footprint = hold(TypeAdapter(Probe).validate_json(options.probe))
    except Exception as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS):
            print(error, file=sys.stderr)
            return TOO_MUCH
        raise
    print(json.dumps(asdict(footprint)))
    return FITS


if __name__ == "__main__":
    sys.exit(main())
