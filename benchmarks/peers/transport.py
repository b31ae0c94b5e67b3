"""Other ways to bring a batch of observations from a simulator process to the learner.

All carry out the same lock-step: actions go out, observations come back. Their simulators hold
finished observations, so that a step is transport only, and the observations are not copied into
a rollout afterwards: both favour the peers. Gymnasium and Ray are used if installed.
"""

import importlib
import importlib.util
import multiprocessing
import os
import queue
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import prod
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed
from torch import multiprocessing as torch_multiprocessing
from typing_extensions import override

ACTION_DIM = 11
TIMEOUT_S = 120.0
"""Longest wait of a peer; its simulator ends if it receives nothing for this long."""
_RAY_END_S = 5.0
"""Ray's processes are still ending when its shutdown returns, and would disturb the next peer."""


@dataclass(frozen=True)
class Payload:
    """What one step carries.

    Attributes:
        num_envs: Environments, N.
        groups: Observation groups by name: shape for one environment, and data type.
    """

    num_envs: int
    groups: dict[str, tuple[tuple[int, ...], str]]

    @property
    def nbytes(self) -> int:
        """Bytes of the observations of all environments."""
        sizes = (prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.groups.values())
        return self.num_envs * sum(sizes)

    def observations(self) -> dict[str, np.ndarray]:
        """Arrays [N, *shape] that differ between elements."""
        return {
            name: np.resize(np.arange(251), (self.num_envs, *shape)).astype(dtype)
            for name, (shape, dtype) in self.groups.items()
        }

    def actions(self) -> np.ndarray:
        """float32 [N, ACTION_DIM]."""
        return np.zeros((self.num_envs, ACTION_DIM), dtype=np.float32)


class Carrier(Protocol):
    """The learner's end of a lock-step."""

    def step(self) -> Mapping[str, Any]:
        """Sends actions; returns the observations, arrays or tensors [N, *shape] by name."""
        ...

    def close(self) -> None:
        """Ends the simulator."""
        ...


class PipeCarrier(Carrier):
    """A `multiprocessing.Pipe`, which pickles the arrays."""

    def __init__(self, payload: Payload) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, far = context.Pipe()
        self._process = context.Process(target=_serve_pipe, args=(far, payload), daemon=True)
        self._process.start()
        far.close()
        self._actions = payload.actions()

    @override
    def step(self) -> Mapping[str, Any]:
        self._connection.send(self._actions)
        if not self._connection.poll(TIMEOUT_S):
            raise TimeoutError(f"the pipe's simulator has not answered within {TIMEOUT_S:g} s")
        return self._connection.recv()

    @override
    def close(self) -> None:
        _end(self._process)
        self._connection.close()


def _serve_pipe(connection: Connection, payload: Payload) -> None:
    observations = payload.observations()
    with suppress(EOFError):
        while connection.poll(TIMEOUT_S):
            connection.recv()
            connection.send(observations)


class TorchQueueCarrier(Carrier):
    """Two `torch.multiprocessing` queues: tensors go through shared memory, new for each."""

    def __init__(self, payload: Payload) -> None:
        context = torch_multiprocessing.get_context("spawn")
        self._requests, self._replies = context.Queue(), context.Queue()
        arguments = (self._requests, self._replies, payload)
        self._process = context.Process(target=_serve_queue, args=arguments, daemon=True)
        self._process.start()
        self._actions = torch.from_numpy(payload.actions())

    @override
    def step(self) -> Mapping[str, Any]:
        self._requests.put(self._actions)
        return self._replies.get(timeout=TIMEOUT_S)

    @override
    def close(self) -> None:
        _end(self._process)


def _serve_queue(requests: Any, replies: Any, payload: Payload) -> None:
    torch.set_num_threads(1)
    sources = {name: torch.from_numpy(a) for name, a in payload.observations().items()}
    with suppress(queue.Empty):
        while True:
            requests.get(timeout=TIMEOUT_S)
            # a tensor that was sent is shared from then on; sending it again would copy nothing
            replies.put({name: source.clone() for name, source in sources.items()})


class GlooCarrier(Carrier):
    """Point-to-point messages of `torch.distributed` with gloo over the loopback device."""

    def __init__(self, payload: Payload) -> None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        self._folder = tempfile.TemporaryDirectory()
        store = Path(self._folder.name) / "store"
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve_gloo, args=(store, payload), daemon=True)
        self._process.start()
        _join_gloo(store, rank=0)
        self._actions = torch.from_numpy(payload.actions())
        self._received = {n: torch.from_numpy(a) for n, a in payload.observations().items()}

    @override
    def step(self) -> Mapping[str, Any]:
        distributed.send(self._actions, 1)
        for tensor in self._received.values():
            distributed.recv(tensor, 1)
        return self._received

    @override
    def close(self) -> None:
        _end(self._process)
        distributed.destroy_process_group()
        self._folder.cleanup()


def _join_gloo(store: Path, rank: int) -> None:
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=TIMEOUT_S),
    )


def _serve_gloo(store: Path, payload: Payload) -> None:
    torch.set_num_threads(1)
    _join_gloo(store, rank=1)
    actions = torch.from_numpy(payload.actions())
    sources = [torch.from_numpy(a) for a in payload.observations().values()]
    while True:
        distributed.recv(actions, 0)
        for source in sources:
            distributed.send(source, 0)


class GymnasiumCarrier(Carrier):
    """Gymnasium's `AsyncVectorEnv` with shared memory, its results not copied.

    Here its single environment is the whole batch, so that it needs only one process.
    """

    def __init__(self, payload: Payload) -> None:
        vector = importlib.import_module("gymnasium.vector")
        self._envs = vector.AsyncVectorEnv(
            [partial(_make_gymnasium_env, payload)],
            shared_memory=True,
            copy=False,
            context="spawn",
        )
        self._envs.reset_async()
        self._envs.reset_wait(timeout=TIMEOUT_S)
        self._actions = payload.actions()[None]

    @override
    def step(self) -> Mapping[str, Any]:
        self._envs.step_async(self._actions)
        observations, *_ = self._envs.step_wait(timeout=TIMEOUT_S)
        return {name: array[0] for name, array in observations.items()}

    @override
    def close(self) -> None:
        self._envs.close(timeout=TIMEOUT_S)


def _make_gymnasium_env(payload: Payload) -> Any:
    gymnasium = importlib.import_module("gymnasium")
    observations, actions = payload.observations(), payload.actions()
    box = gymnasium.spaces.Box

    class Batch(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(
            {name: box(0, 255, a.shape, a.dtype.type) for name, a in observations.items()}
        )
        action_space = box(-1, 1, actions.shape, np.float32)

        def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, ...]:
            return observations, {}

        def step(self, action: np.ndarray) -> tuple[Any, ...]:
            return observations, 0.0, False, False, {}

    return Batch()


class RayCarrier(Carrier):
    """A Ray actor; arrays come back through Ray's object store."""

    def __init__(self, payload: Payload) -> None:
        self._ray = importlib.import_module("ray")
        self._ray.init(
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=400 * 2**20,
        )
        self._simulator = self._ray.remote(_RaySimulator).remote(payload)
        self._actions = payload.actions()

    @override
    def step(self) -> Mapping[str, Any]:
        return self._ray.get(self._simulator.step.remote(self._actions), timeout=TIMEOUT_S)

    @override
    def close(self) -> None:
        self._ray.shutdown()
        time.sleep(_RAY_END_S)


class _RaySimulator:
    def __init__(self, payload: Payload) -> None:
        self._observations = payload.observations()

    def step(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        del actions
        return self._observations


def _end(process: BaseProcess) -> None:
    process.terminate()
    process.join(5.0)
    if process.is_alive():
        process.kill()
        process.join(5.0)


@dataclass(frozen=True)
class Peer:
    """How to make a carrier; `package` must be installed for it, "" if nothing else is needed."""

    make: Callable[[Payload], Carrier]
    package: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether it can be made."""
        return not self.package or importlib.util.find_spec(self.package) is not None


PEERS = {
    "gymnasium": Peer(GymnasiumCarrier, "gymnasium"),
    "pipe": Peer(PipeCarrier),
    "torch_queue": Peer(TorchQueueCarrier),
    "gloo": Peer(GlooCarrier),
    "ray": Peer(RayCarrier, "ray"),
}
