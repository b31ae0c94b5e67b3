"""All workers of a run: started, welcomed, ordered about and awaited together."""

import time
from pathlib import Path
from typing import Any

from dexgrasp_learner.worker_process import WorkerProcess
from dexgrasp_sim.transport.channel import ready_channels
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError

_CONNECT_POLL_S = 0.05
_STOP_TIMEOUT_S = 3.0
ALL = slice(None)


class WorkerTimeout(TimeoutError):
    """A worker has not answered in time; it may hang, or need a longer time-out."""


class WorkerGroup:
    """The workers 0 to W-1 of one run.

    Attributes:
        workers: One by one.
    """

    def __init__(self, run_id: str, num_workers: int, log_dir: Path, spin_us: float) -> None:
        """Listens for all workers, so that none finds nobody listening.

        Args:
            run_id: Of a run whose shared memory is laid out.
            num_workers: W.
            log_dir: Folder of their logs.
            spin_us: Busy-wait before blocking.
        """
        self.workers: list[WorkerProcess] = []
        self._pending: set[int] = set()
        self._spin_us = spin_us
        for index in range(num_workers):
            self.workers.append(WorkerProcess(run_id, index, log_dir / f"worker_{index}.log"))

    def spawn(self, python: str, threads: int) -> None:
        """Starts the processes; see `WorkerProcess.spawn`."""
        for worker in self.workers:
            worker.spawn(python, threads)

    def welcome(self, orders: dict[str, Any], schema_hash: str, timeout_s: float) -> None:
        """Connects the workers and has them build their environments, all at the same time.

        Args:
            orders: What a worker must know to build its environments.
            schema_hash: What the environments must have.
            timeout_s: For all of it.

        Raises:
            WorkerDied: A worker has ended.
            WorkerTimeout: A worker has not connected, or not built its environments in time.
            ProtocolError: A worker is of another version or has another schema.
        """
        deadline_s = time.monotonic() + timeout_s
        self._connect(deadline_s, timeout_s)
        for worker in self.workers:
            self._check_schema(worker, MessageType.HELLO, schema_hash, deadline_s, timeout_s)
            worker.send(Message(MessageType.WELCOME, payload=orders))
        for worker in self.workers:
            self._check_schema(worker, MessageType.READY, schema_hash, deadline_s, timeout_s)

    def send(
        self, message: Message, paths: list[Path] | None = None, workers: slice = ALL
    ) -> None:
        """Gives workers an order, worker k with the path k if there are any.

        Raises:
            WorkerDied: A worker has ended.
            RuntimeError: The workers still owe the answer to another order.
        """
        if busy := self._busy(workers):
            raise RuntimeError(f"workers {sorted(busy)} are busy; call wait() first")
        for worker in self.workers[workers]:
            if paths is not None:
                message = message._replace(payload={"path": str(paths[worker.index].resolve())})
            worker.send(message)
            self._pending.add(worker.index)

    def collect(self, slot: int, timeout_s: float, workers: slice = ALL) -> int:
        """Takes a DONE from each of these that owes one; may be called again after a time-out.

        Returns:
            How many were for another slot.

        Raises:
            WorkerDied: A worker has ended or sent an ERROR.
            WorkerTimeout: A worker has not answered in time.
        """
        deadline_s = time.monotonic() + timeout_s
        wrong = 0
        while due := self._busy(workers):
            pending = {self.workers[index].connected(): index for index in due}
            ready = ready_channels(list(pending), deadline_s - time.monotonic(), self._spin_us)
            if not ready:
                raise self._late(due, timeout_s)
            for channel in ready:
                index = pending[channel]
                done = self.workers[index].expect(MessageType.DONE, timeout_s)
                wrong += done.slot != slot
                self._pending.remove(index)
        return wrong

    def close(self) -> None:
        """Asks all workers to stop and ends by force who does not; idempotent."""
        for worker in self.workers:
            worker.ask_to_stop()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for worker in self.workers:
            worker.end(deadline_s)
        self.workers = []

    def _busy(self, workers: slice) -> set[int]:
        return self._pending & {worker.index for worker in self.workers[workers]}

    def _connect(self, deadline_s: float, timeout_s: float) -> None:
        waiting = self.workers
        while waiting := [w for w in waiting if not w.connect(_CONNECT_POLL_S)]:
            if time.monotonic() > deadline_s:
                raise WorkerTimeout(
                    f"workers {[w.index for w in waiting]} have not connected within "
                    f"{timeout_s:g} s; see {waiting[0].log_path}, or start by hand: "
                    f"python {' '.join(waiting[0].command)}"
                )

    def _check_schema(
        self,
        worker: WorkerProcess,
        kind: MessageType,
        schema_hash: str,
        deadline_s: float,
        timeout_s: float,
    ) -> None:
        try:
            message = worker.expect(kind, max(deadline_s - time.monotonic(), 0.0))
        except TimeoutError:
            raise self._late({worker.index}, timeout_s) from None
        found = (message.payload or {}).get("schema_hash")
        if found != schema_hash:
            text = (
                f"worker {worker.index} has schema {found}, this run has {schema_hash}; "
                "install the same version of dexgrasp on both sides"
            )
            worker.send(Message(MessageType.ERROR, payload={"text": text}))
            raise ProtocolError(text)

    def _late(self, indices: set[int], timeout_s: float) -> WorkerTimeout:
        logs = ", ".join(str(self.workers[index].log_path) for index in sorted(indices))
        return WorkerTimeout(
            f"workers {sorted(indices)} have not answered within {timeout_s:g} s: they hang, or "
            f"need a longer time-out; their logs: {logs}"
        )
