"""All environments in the learner's own process."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from typing_extensions import override

from dexgrasp_learner.pool.pool import ALL, Pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_sim.environments import make_env
from dexgrasp_sim.transport.carrier import make_carrier
from dexgrasp_sim.transport.layout import Block
from dexgrasp_sim.transport.learner_link import private_tensors
from dexgrasp_sim.transport.telemetry import WorkerTelemetry
from dexgrasp_sim.worker.env_slice import EnvSlice, state_path

_ENV_ORDERS = ("kind", "config", "groups", "seed", "threads", "device")


class InProcessPool(Pool):
    """Steps all environments in the caller's thread; same split, seeds and tensors as workers.

    `send` simulates before it returns, and `wait` never waits. The tensors are on
    `PoolSpec.tensor_device`, so that environments on the learner's GPU write them in place.
    """

    def __init__(self, spec: PoolSpec) -> None:
        """Builds the environments; errors as for `make_pool`."""
        layout = spec.layout()
        tensors = _rollout_tensors(layout.rollout_blocks, spec.tensor_device)
        super().__init__(spec, layout, tensors, private_tensors(layout.telemetry_blocks))
        self._slices = [self._build(index) for index in range(self.num_workers)]

    def _build(self, index: int) -> EnvSlice:
        orders = self.spec.orders()[index]
        start, stop = self.layout.slices[index]
        env = make_env(
            num_envs=stop - start,
            env_offset=orders["env_offset"] + start,
            **{name: orders[name] for name in _ENV_ORDERS},
        )
        telemetry = WorkerTelemetry(self.telemetry, index)
        telemetry.count(pid=os.getpid())
        return EnvSlice(
            env,
            self.layout,
            self.tensors,
            telemetry,
            index,
            carrier=lambda slots: make_carrier(slots, orders),
        )

    @property
    @override
    def workers_alive(self) -> int:
        return self.num_workers

    @override
    def start(self) -> None:
        self._steps[:] = 0
        self._each(EnvSlice.reset)
        self._check_sequence(0)

    @override
    def send(self, slot: int, policy_version: int, workers: slice = ALL) -> None:
        self._steps[workers] += 1
        self._each(lambda envs: envs.step(slot, policy_version), workers)
        self._each(EnvSlice.report, workers)

    @override
    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        del timeout_s
        self._check_sequence(slot + 1, workers)

    @override
    def save_state(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for index, envs in enumerate(self._slices):
            envs.save(state_path(folder, index))

    @override
    def load_state(self, folder: Path) -> None:
        self._check_states(folder)
        paths = iter([state_path(folder, index) for index in range(self.num_workers)])
        self._each(lambda envs: envs.load(next(paths)))

    @override
    def close(self) -> None:
        for envs in self._slices:
            envs.close()

    def _each(self, act: Callable[[EnvSlice], None], workers: slice = ALL) -> None:
        # tensors made in a caller's inference mode could not be changed by the environments later
        with torch.inference_mode(False), torch.no_grad():
            for envs in self._slices[workers]:
                act(envs)


def _rollout_tensors(blocks: tuple[Block, ...], device: torch.device) -> dict[str, torch.Tensor]:
    """On a device; but for the sequence numbers, which the pool looks at on the CPU."""
    on_cpu = tuple(block for block in blocks if block.name == "sequence")
    others = tuple(block for block in blocks if block.name != "sequence")
    return {**private_tensors(others, device), **private_tensors(on_cpu)}
