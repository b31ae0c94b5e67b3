"""All workers of a run: started, welcomed, ordered about, awaited together, and replaced."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dexgrasp_learner.pool.pool_spec import WorkerSpec
from dexgrasp_learner.pool.worker_process import WorkerDied, WorkerProcess
from dexgrasp_sim.transport.channel import ready_channels
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError, require

_CONNECT_POLL_S = 0.05
_STOP_TIMEOUT_S = 3.0
ALL = slice(None)


class WorkerTimeout(TimeoutError):
    """Workers have not answered in time; they may hang, or need a longer time-out.

    Attributes:
        indices: Their worker indices.
    """

    def __init__(self, text: str, indices: list[int]) -> None:
        super().__init__(text)
        self.indices = indices


class Deadline(NamedTuple):
    """When patience ends (monotonic), and how long it has lasted then."""

    at_s: float
    timeout_s: float

    @staticmethod
    def after(timeout_s: float) -> "Deadline":
        """So many seconds from now."""
        return Deadline(time.monotonic() + timeout_s, timeout_s)


class WorkerGroup:
    """The workers 0 to W-1 of one run.

    Attributes:
        workers: One by one.
    """

    def __init__(
        self, run_id: str, specs: Sequence[WorkerSpec], log_dir: Path, spin_us: float
    ) -> None:
        """Listens for all workers, so that none finds nobody listening.

        Args:
            run_id: Of a run whose shared memory is laid out.
            specs: Of the workers.
            log_dir: Folder of their logs.
            spin_us: Busy-wait before blocking.
        """
        self.workers: list[WorkerProcess] = []
        self._spin_us = spin_us
        self._orders: Sequence[dict[str, Any]] = ()
        self._schema_hash = ""
        self._awaited: dict[int, MessageType] = {}
        self._answers: dict[int, Message] = {}
        self._lost: dict[int, WorkerDied] = {}
        self._begin_with: dict[int, Message] = {}
        self._deadlines: dict[int, Deadline] = {}
        for index, spec in enumerate(specs):
            log_path = log_dir / f"worker_{index}.log"
            self.workers.append(WorkerProcess(run_id, index, spec, log_path))

    @property
    def alive(self) -> int:
        """Workers that are there now."""
        return sum(worker.is_alive for worker in self.workers)

    def spawn(self) -> None:
        """Starts the processes; see `WorkerProcess.spawn`."""
        for worker in self.workers:
            worker.spawn()

    def welcome(
        self, orders: Sequence[dict[str, Any]], schema_hash: str, deadline: Deadline
    ) -> None:
        """Connects the workers and has them build their environments, all at the same time.

        Args:
            orders: What each worker must know to build its environments.
            schema_hash: What the environments must have.
            deadline: For all of it.

        Raises:
            WorkerDied: A worker has ended.
            WorkerTimeout: A worker has not connected, or not built its environments in time.
            ProtocolError: A worker is of another version or has another schema.
        """
        self._orders, self._schema_hash = orders, schema_hash
        self._awaited = {worker.index: MessageType.HELLO for worker in self.workers}
        self.collect(deadline)

    def send(
        self, message: Message, paths: list[Path] | None = None, workers: slice = ALL
    ) -> None:
        """Gives workers an order, worker k with the path k if there are any.

        That a worker is lost comes out in `collect`.

        Raises:
            RuntimeError: The workers still owe the answer to another order.
        """
        if busy := self._due(workers):
            raise RuntimeError(f"workers {busy} are busy; call wait() first")
        for worker in self.workers[workers]:
            if paths is not None:
                message = message._replace(payload={"path": str(paths[worker.index].resolve())})
            try:
                worker.send(message)
            except WorkerDied as error:
                self._lost[worker.index] = error
            self._awaited[worker.index] = MessageType.DONE

    def collect(self, deadline: Deadline, workers: slice = ALL) -> list[Message]:
        """Takes the answer of each of these that owes one: DONE or REFUSED.

        May be called again after a `WorkerTimeout`, and after a loss and `replace`.

        Raises:
            WorkerDied: A worker has ended or sent an ERROR, perhaps one that has answered.
            WorkerTimeout: A worker has not answered in time.
            ProtocolError: A worker is of another version or has another schema.
        """
        while due := self._due(workers):
            for index in due:
                if index in self._lost:
                    raise self._lost.pop(index)
            ready = self._ready(due, deadline, workers)
            for index in ready:
                self._advance(self.workers[index])
            if not ready:
                self._check_patience(due, deadline)
        indices = [worker.index for worker in self.workers[workers]]
        return [self._answers.pop(index) for index in indices if index in self._answers]

    def replace(self, index: int, order: Message, deadline: Deadline) -> None:
        """Puts a new process in the place of a worker; `collect` takes it up to its first answer.

        Args:
            index: Of a worker that is lost or hangs.
            order: What it is to do when its environments are built.
            deadline: For all of that.
        """
        self._begin_with[index] = order
        self._deadlines[index] = deadline
        self._awaited[index] = MessageType.HELLO
        self.workers[index].replace()

    def close(self) -> None:
        """Asks all workers to stop and ends by force who does not; idempotent."""
        for worker in self.workers:
            worker.ask_to_stop()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for worker in self.workers:
            worker.end(deadline_s)
        self.workers = []

    def _due(self, workers: slice) -> list[int]:
        return [w.index for w in self.workers[workers] if w.index in self._awaited]

    def _ready(self, due: list[int], deadline: Deadline, workers: slice) -> list[int]:
        """Those of which there is news: a connection, a message or an end."""
        # who has answered is watched too: while another one is replaced, seconds pass
        watched = [w for w in self.workers[workers] if w.channel or w.index in due]
        sources = {worker.source: worker.index for worker in watched}
        until_s = min(self._deadlines.get(index, deadline).at_s for index in due)
        pause_s = until_s - time.monotonic()
        if any(self.workers[index].channel is None for index in due):
            pause_s = min(pause_s, _CONNECT_POLL_S)  # whether it lives must be asked for
        return [sources[s] for s in ready_channels(list(sources), pause_s, self._spin_us)]

    def _advance(self, worker: WorkerProcess) -> None:
        """Takes one worker one message further."""
        if not worker.connect():
            return
        index = worker.index
        message, awaited = worker.receive(), self._awaited.get(index)
        if awaited is None:
            raise ProtocolError(f"worker {index} sent {message.type.name} without being asked")
        if awaited != MessageType.DONE or message.type != MessageType.REFUSED:
            require(message, awaited)
        if awaited != MessageType.DONE:
            self._check_schema(worker, message)
        if awaited == MessageType.HELLO:
            worker.send(Message(MessageType.WELCOME, payload=self._orders[index]))
            self._awaited[index] = MessageType.READY
        elif awaited == MessageType.READY and index in self._begin_with:
            worker.send(self._begin_with.pop(index))
            self._awaited[index] = MessageType.DONE
        else:
            del self._awaited[index]
            self._deadlines.pop(index, None)
            if awaited == MessageType.DONE:
                self._answers[index] = message

    def _check_schema(self, worker: WorkerProcess, message: Message) -> None:
        found = (message.payload or {}).get("schema_hash")
        if found != self._schema_hash:
            text = (
                f"worker {worker.index} has schema {found}, this run has {self._schema_hash}; "
                "install the same version of dexgrasp on both sides"
            )
            worker.send(Message(MessageType.ERROR, payload={"text": text}))
            raise ProtocolError(text)

    def _check_patience(self, due: list[int], deadline: Deadline) -> None:
        for index in due:
            self.workers[index].check_started()
        now_s = time.monotonic()
        deadlines = {index: self._deadlines.get(index, deadline) for index in due}
        late = [index for index in due if deadlines[index].at_s <= now_s]
        if not late:
            return
        timeout_s = deadlines[late[0]].timeout_s
        absent = [self.workers[index] for index in late if self.workers[index].channel is None]
        if absent:
            raise WorkerTimeout(
                f"workers {[w.index for w in absent]} have not connected within {timeout_s:g} s; "
                f"see {absent[0].log_path}, or start by hand: {absent[0].command_line}",
                late,
            )
        logs = ", ".join(str(self.workers[index].log_path) for index in late)
        raise WorkerTimeout(
            f"workers {late} have not answered within {timeout_s:g} s: they hang, or need a "
            f"longer time-out; their logs: {logs}",
            late,
        )
