"""All workers of a run: starting, connecting, sending orders, awaiting answers, replacing."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dexgrasp_learner.pool.pool import ALL
from dexgrasp_learner.pool.worker_connection import WorkerConnection, WorkerDied
from dexgrasp_sim.transport.channel import ready_channels
from dexgrasp_sim.transport.learner_link import LearnerLink
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError, text_message

_ERROR = frozenset({MessageType.ERROR})
_READY = frozenset({MessageType.READY, MessageType.ERROR})
_DONE = frozenset({MessageType.DONE, MessageType.ERROR})
_DONE_OR_NOT = _DONE | {MessageType.REFUSED}
_CONNECT_POLL_S = 0.05
_STOP_TIMEOUT_S = 3.0


class WorkerTimeout(TimeoutError):
    """Workers have not answered in time; they may hang, or need a longer time-out.

    Attributes:
        indices: Their worker indices.
    """

    def __init__(self, text: str, indices: list[int]) -> None:
        super().__init__(text)
        self.indices = indices


class Deadline(NamedTuple):
    """When a time-out ends (monotonic seconds), and its length for messages."""

    at_s: float
    timeout_s: float

    @staticmethod
    def after(timeout_s: float) -> "Deadline":
        """The deadline `timeout_s` from now."""
        return Deadline(time.monotonic() + timeout_s, timeout_s)


class WorkerGroup:
    """The workers 0 to W-1 of one run.

    Attributes:
        workers: One by one.
    """

    def __init__(
        self, workers: Sequence[WorkerConnection], link: LearnerLink, spin_us: float
    ) -> None:
        """Starts nothing yet.

        Args:
            workers: In the order of their indices; the learner already listens for each of them.
            link: How tensors get to and from them.
            spin_us: Busy-waiting before blocking.
        """
        self.workers = list(workers)
        self._link = link
        self._spin_us = spin_us
        self._orders: Sequence[dict[str, Any]] = ()
        self._schema_hash = ""
        self._awaited: dict[int, MessageType] = {}
        self._sent: dict[int, Message] = {}
        self._answers: dict[int, Message] = {}
        self._lost: dict[int, WorkerDied] = {}
        self._begin_with: dict[int, Message] = {}
        self._deadlines: dict[int, Deadline] = {}

    @property
    def alive(self) -> int:
        """Number of workers that are running now."""
        return sum(worker.is_alive for worker in self.workers)

    def spawn(self) -> None:
        """Starts the workers, or tells the user how to start them."""
        for worker in self.workers:
            worker.spawn()

    def welcome(
        self, orders: Sequence[dict[str, Any]], schema_hash: str, deadline: Deadline
    ) -> None:
        """Connects the workers and has them build their environments, all at the same time.

        Args:
            orders: What each worker must know to build its environments.
            schema_hash: The hash that the environments must have.
            deadline: For all of it.

        Raises:
            WorkerDied: A worker has ended.
            WorkerTimeout: A worker has not connected, or not built its environments in time.
            ProtocolError: A worker is of another version or has another schema.
        """
        common = self._link.orders()
        self._orders = [{**order, **common} for order in orders]
        self._schema_hash = schema_hash
        self._awaited = {worker.index: MessageType.HELLO for worker in self.workers}
        self.collect(deadline)

    def send(
        self, message: Message, paths: list[Path] | None = None, workers: slice = ALL
    ) -> None:
        """Sends workers an order, with `paths[k]` for worker k if paths are given.

        The loss of a worker is raised by `collect`.

        Raises:
            RuntimeError: Workers have not answered an earlier order.
        """
        if busy := self._due(workers):
            raise RuntimeError(f"workers {busy} are busy; call wait() first")
        for worker in self.workers[workers]:
            if paths is not None:
                message = message._replace(payload={"path": str(paths[worker.index].resolve())})
            self._order(worker, message)

    def collect(self, deadline: Deadline, workers: slice = ALL) -> list[Message]:
        """Waits for the answers (DONE or REFUSED) that these workers still have to give.

        May be called again after a `WorkerTimeout`, and after a loss and `replace`.

        Raises:
            WorkerDied: A worker has ended or sent an ERROR, even if it had answered.
            WorkerTimeout: A worker has not answered in time.
            ProtocolError: A worker is of another version or has another schema.
        """
        while due := self._due(workers):
            for index in due:
                if index in self._lost:
                    raise self._lost.pop(index)
            for index in due:
                if self._awaited[index] == MessageType.HELLO:
                    self._hear(self.workers[index], self._greet)
            ready = self._ready(due, deadline, workers)
            for index in ready:
                if self._awaited.get(index) != MessageType.HELLO:
                    self._hear(self.workers[index], self._advance)
            if not ready:
                self._check_deadlines(due, deadline)
        indices = [worker.index for worker in self.workers[workers]]
        return [self._answers.pop(index) for index in indices if index in self._answers]

    def replace(self, index: int, order: Message, deadline: Deadline) -> None:
        """Replaces a worker; `collect` connects the new one and awaits its first answer.

        Args:
            index: Of a worker that is lost or hangs.
            order: The first order for the new worker, after it has built its environments.
            deadline: For connecting, building and the order.
        """
        self._begin_with[index] = order
        self._deadlines[index] = deadline
        self._awaited[index] = MessageType.HELLO
        self._answers.pop(index, None)
        self.workers[index].replace()

    def close(self) -> None:
        """Asks all workers to stop and kills those that do not; idempotent."""
        for worker in self.workers:
            worker.ask_to_stop()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for worker in self.workers:
            worker.end(deadline_s)
        self.workers = []

    def _due(self, workers: slice) -> list[int]:
        return [w.index for w in self.workers[workers] if w.index in self._awaited]

    def _ready(self, due: list[int], deadline: Deadline, workers: slice) -> list[int]:
        """Indices of the workers with a new connection, a message or a closed connection."""
        # workers that have answered are watched too: replacing another one takes seconds
        watched = [w for w in self.workers[workers] if w.channel or w.index in due]
        sources = {worker.source: worker.index for worker in watched}
        until_s = min(self._deadlines.get(index, deadline).at_s for index in due)
        pause_s = until_s - time.monotonic()
        if any(self.workers[index].channel is None for index in due):
            pause_s = min(pause_s, _CONNECT_POLL_S)  # `hello` checks whether its process lives
        return [sources[s] for s in ready_channels(list(sources), pause_s, self._spin_us)]

    def _order(self, worker: WorkerConnection, message: Message) -> None:
        try:
            worker.order(self._link, message)
        except WorkerDied as error:
            self._lost[worker.index] = error
        self._sent[worker.index] = message
        self._awaited[worker.index] = MessageType.DONE

    def _hear(self, worker: WorkerConnection, act: Callable[[WorkerConnection], None]) -> None:
        try:
            act(worker)
        except ProtocolError as error:
            raise worker.broken(error) from None

    def _greet(self, worker: WorkerConnection) -> None:
        """Answers a worker's HELLO with its orders."""
        hello = worker.hello()
        if hello is None:
            return
        if "schema_hash" in (hello.payload or {}):  # a remote worker does not know it yet
            self._check_schema(worker, hello)
        worker.send(Message(MessageType.WELCOME, payload=self._orders[worker.index]))
        self._awaited[worker.index] = MessageType.READY

    def _advance(self, worker: WorkerConnection) -> None:
        """Handles the next message of a worker."""
        index = worker.index
        awaited = self._awaited.get(index)
        if awaited is None:
            self._refuse_word_of(worker)
            return
        if awaited == MessageType.DONE:
            may_refuse = self._sent[index].type in (MessageType.SAVE, MessageType.LOAD)
            message = worker.receive(_DONE_OR_NOT if may_refuse else _DONE)
            self._answers[index] = worker.take(self._link, message, self._sent[index])
        else:
            self._check_schema(worker, worker.receive(_READY))
            if index in self._begin_with:
                self._order(worker, self._begin_with.pop(index))
                return
        del self._awaited[index]
        self._deadlines.pop(index, None)

    def _refuse_word_of(self, worker: WorkerConnection) -> None:
        """Reads from a worker that has nothing to say but that it has ended."""
        try:
            worker.receive(_ERROR)
        except ProtocolError as error:
            text = f"worker {worker.index} has sent something without being asked: {error}"
            raise ProtocolError(text) from None

    def _check_schema(self, worker: WorkerConnection, message: Message) -> None:
        found = (message.payload or {}).get("schema_hash")
        if found != self._schema_hash:
            text = (
                f"worker {worker.index} has schema {found}, this run has {self._schema_hash}; "
                "install the same version of dexgrasp on both sides"
            )
            worker.send(text_message(MessageType.ERROR, text))
            raise ProtocolError(text)

    def _check_deadlines(self, due: list[int], deadline: Deadline) -> None:
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
                f"{absent[0].traces}, or start by hand: {absent[0].command_line}",
                late,
            )
        traces = "; ".join(self.workers[index].traces for index in late)
        raise WorkerTimeout(
            f"workers {late} have not answered within {timeout_s:g} s: they hang, or need a "
            f"longer time-out; {traces}",
            late,
        )
