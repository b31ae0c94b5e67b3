"""A pool of worker processes on this or other hosts, which replaces lost workers."""

import atexit
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from typing_extensions import override

from dexgrasp_learner.console import warn
from dexgrasp_learner.pool.pool import ALL, Pool
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.reception import Reception
from dexgrasp_learner.pool.remote_worker import RemoteWorker, start_command
from dexgrasp_learner.pool.restarts import Restart, RestartBudget
from dexgrasp_learner.pool.worker_connection import WorkerConnection, WorkerDied
from dexgrasp_learner.pool.worker_group import Deadline, WorkerGroup, WorkerTimeout
from dexgrasp_learner.pool.worker_process import WorkerProcess
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.learner_link import (
    LearnerLink,
    SharedLearnerLink,
    StreamLearnerLink,
)
from dexgrasp_sim.transport.protocol import Message, MessageType
from dexgrasp_sim.transport.secret import learner_secret
from dexgrasp_sim.transport.shared_memory import run_folder
from dexgrasp_sim.worker.env_slice import state_path


class WorkerPool(Pool):
    """Worker processes of this host, which share memory with the learner, or remote workers.

    A remote worker that is lost must be started again on its host by hand; the learner waits
    `start_timeout_s` for that.

    Attributes:
        run_id: Id under which workers and observers of this host attach.
        address: `HOST:PORT` where remote workers connect, "" without any.
    """

    def __init__(self, spec: PoolSpec, clock: Callable[[], float] = time.monotonic) -> None:
        """Allocates the memory and starts the processes; errors as for `make_pool`.

        Args:
            spec: Of the run.
            clock: Monotonic seconds, for the record of restarts.
        """
        layout = spec.layout()
        self.run_id = spec.run_id or time.strftime("%m%d-%H%M%S-") + secrets.token_hex(3)
        self.address = self._secret_place = ""
        self._reception: Reception | None = None
        self._link: LearnerLink
        if spec.simulators.transport == "remote":
            secret, self._secret_place = learner_secret(spec.secret_path)
            self._reception = Reception(spec.simulators.listen, secret, layout.num_workers)
            self.address = self._reception.address
            self._link = StreamLearnerLink(layout)
        else:
            has_gpu = torch.device(spec.learner_device).type == "cuda"
            self._link = SharedLearnerLink(self.run_id, layout, spec.tensor_device, pin=has_gpu)
        super().__init__(spec, layout, self._link.tensors, self._link.telemetry)
        self._owner_pid = os.getpid()
        self._workers: WorkerGroup | None = None
        self._is_started = False
        self._refused = 0
        self._newest_slot = 0
        self._clock = clock
        self._budget = RestartBudget(spec.simulators.restarts, clock)
        atexit.register(self.close)
        try:
            workers = self._make_workers()
            self._workers = WorkerGroup(workers, self._link, spec.simulators.spin_us)
            self._workers.spawn()
        except BaseException:
            self.close()
            raise

    def _make_workers(self) -> list[WorkerConnection]:
        if self._reception is not None:
            return [RemoteWorker(index, self._reception) for index in range(self.num_workers)]
        folder = self.spec.log_dir or run_folder(self.run_id)
        return [
            WorkerProcess(self.run_id, index, worker, folder / f"worker_{index}.log")
            for index, worker in enumerate(self.spec.simulators.worker_specs)
        ]

    @property
    @override
    def refused_connections(self) -> int:
        if self._reception is not None:
            return self._reception.refused
        if self._workers is not None:
            self._refused = sum(worker.refused for worker in self._workers.workers)
        return self._refused

    @property
    @override
    def workers_alive(self) -> int:
        return self._workers.alive if self._workers else 0

    @override
    def start(self) -> None:
        if not self._is_started:
            timeout_s = self.spec.simulators.start_timeout_s
            if self.address:
                warn(
                    f"waiting {timeout_s:g} s for {self.num_workers} workers; start each of them "
                    f"with: {start_command(self.address, 'K')}, where FILE is a copy of the "
                    f"secret in {self._secret_place}"
                )
            deadline = Deadline.after(timeout_s)
            schema_hash = self.layout.schema_hash
            self._open_workers().welcome(self.spec.orders(), schema_hash, deadline)
            self._is_started = True
        self._steps[:] = 0
        self._order(MessageType.START)
        self._check_sequence(0)

    @override
    def send(self, slot: int, policy_version: int, workers: slice = ALL) -> None:
        sequence = int(self._steps[workers][0]) + 1
        step = Message(MessageType.STEP, slot, sequence, policy_version)
        self._open_workers().send(step, workers=workers)
        self._steps[workers] += 1

    @override
    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        timeout_s = self.spec.simulators.timeout_s if timeout_s is None else timeout_s
        answers = self._collect(timeout_s, slot + 1, workers)
        self.slot_mismatches += sum(answer.slot != slot for answer in answers)
        self._check_sequence(slot + 1, workers)
        self._newest_slot = slot + 1

    @override
    def roll_over(self) -> None:
        super().roll_over()
        self._newest_slot = 0

    @override
    def save_state(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [state_path(folder, index) for index in range(self.num_workers)]
        unsaved = [ALL]
        while unsaved:
            for workers in unsaved:
                self._open_workers().send(Message(MessageType.SAVE), paths, workers)
            before = len(self.restarts)
            answers = self._collect(self.spec.simulators.start_timeout_s, self._newest_slot)
            if reasons := _refusals(answers):
                raise OSError(reasons)
            lost = {restart.index for restart in self.restarts[before:]}
            unsaved = [slice(index, index + 1) for index in lost]

    @override
    def load_state(self, folder: Path) -> None:
        self._check_states(folder)
        self._order(MessageType.LOAD, folder)

    @override
    def close(self) -> None:
        if os.getpid() != self._owner_pid:
            return  # a fork of the learner must not end the learner's workers
        if self._workers is not None:
            self._refused = self.refused_connections
            self._workers.close()
            self._workers = None
        if self._reception is not None:
            self._reception.close()
        self._link.close()
        atexit.unregister(self.close)

    def _order(self, kind: MessageType, folder: Path | None = None) -> None:
        """Lets all workers fill slot 0; ConfigError if one cannot read its saved state."""
        indices = range(self.num_workers)
        paths = [state_path(folder, index) for index in indices] if folder else None
        workers = self._open_workers()
        workers.send(Message(kind), paths)
        answers = workers.collect(Deadline.after(self.spec.simulators.start_timeout_s))
        if reasons := _refusals(answers):
            raise ConfigError(reasons)
        self._newest_slot = 0

    def _collect(self, timeout_s: float, slot: int, workers: slice = ALL) -> list[Message]:
        """The answers of these workers; lost ones are replaced, and the new ones fill `slot`."""
        deadline = Deadline.after(timeout_s)
        before = len(self.restarts)
        while True:
            try:
                answers = self._open_workers().collect(deadline, workers)
            except (WorkerDied, WorkerTimeout) as error:
                self._replace(error, slot)
                continue
            for restart in self.restarts[before:]:
                restart.ready_s = self._clock()
            return answers

    def _replace(self, error: WorkerDied | WorkerTimeout, slot: int) -> None:
        """Replaces lost workers; raises the error if they may not be replaced."""
        group, hung = self._open_workers(), isinstance(error, WorkerTimeout)
        for index in error.indices:
            worker = group.workers[index]
            if not worker.may_be_replaced(hung) or not self._budget.take(index):
                raise error
            self.restarts.append(Restart(index, hung, self._clock()))
            what = f"simulator worker {index} hangs" if hung else str(error).partition(";")[0]
            warn(
                f"{what}; replaced, its environments begin new episodes "
                f"(restart {len(self.restarts)} of this run; {worker.traces})"
            )
            steps = int(self._steps[index])
            payload = {"slot": slot, "sequence": steps}
            order = Message(MessageType.START, slot - 1, steps, payload=payload)
            group.replace(index, order, Deadline.after(self.spec.simulators.start_timeout_s))

    def _open_workers(self) -> WorkerGroup:
        if self._workers is None:
            raise RuntimeError("the pool is closed; make a new one")
        return self._workers


def _refusals(answers: Sequence[Message]) -> str:
    """The reasons of all answers that are refusals, "" without any."""
    refused = [answer.payload or {} for answer in answers if answer.type == MessageType.REFUSED]
    return "; ".join(str(payload.get("text")) for payload in refused)
