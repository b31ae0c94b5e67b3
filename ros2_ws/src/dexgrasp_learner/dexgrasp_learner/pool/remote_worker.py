"""Workers of other hosts: whoever connects by TCP and says which worker it is."""

import select
import time

from dexgrasp_learner.console import warn
from dexgrasp_learner.pool.worker_connection import WorkerConnection, WorkerDied
from dexgrasp_sim.transport.channel import Channel, ChannelClosed
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError
from dexgrasp_sim.transport.tcp import TcpListener, TensorChannel

_HELLO_TIMEOUT_S = 5.0


class Reception:
    """Listens for workers, tells them apart by their HELLO, and sends strangers away.

    It can be polled: there is something to read when somebody connects or says HELLO.
    """

    def __init__(self, address: str) -> None:
        """Listens at `HOST:PORT`; ConfigError where that cannot be."""
        self._listener = TcpListener(address)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._guests: dict[int, tuple[TensorChannel, float]] = {}
        self._expected: set[int] = set()
        self._arrived: dict[int, tuple[TensorChannel, Message]] = {}

    @property
    def address(self) -> str:
        """`HOST:PORT` where workers connect."""
        return self._listener.address

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._epoll.fileno()

    def expect(self, index: int) -> None:
        """From now on there is a place for this worker, once."""
        self._expected.add(index)

    def take(self, index: int) -> tuple[TensorChannel, Message] | None:
        """The connection and the HELLO of this worker if it has come."""
        self._look()
        return self._arrived.pop(index, None)

    def close(self) -> None:
        """Stops listening and sends away who has no place; idempotent."""
        if self._epoll.closed:
            return
        self._listener.close()
        for channel, _ in (*self._guests.values(), *self._arrived.values()):
            channel.close()
        self._epoll.close()

    def _look(self) -> None:
        now_s = time.monotonic()
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._listener.fileno():
                channel = self._listener.accept(0.0)
                if channel is not None:
                    self._epoll.register(channel.fileno(), select.EPOLLIN)
                    self._guests[channel.fileno()] = channel, now_s + _HELLO_TIMEOUT_S
            else:
                self._introduce(descriptor)
        for descriptor, (channel, until_s) in list(self._guests.items()):
            if until_s < now_s:
                self._dismiss(descriptor, channel, "it says nothing")

    def _introduce(self, descriptor: int) -> None:
        """Takes the HELLO that has begun to arrive."""
        channel, _ = self._guests[descriptor]
        try:
            hello = channel.expect(MessageType.HELLO, _HELLO_TIMEOUT_S)
            index = (hello.payload or {}).get("index")
            if index not in self._expected:
                text = f"there is no place for worker {index!r}; free are {sorted(self._expected)}"
                channel.send(Message(MessageType.ERROR, payload={"text": text}))
                raise ProtocolError(text)
        except (ChannelClosed, ProtocolError, TimeoutError) as error:
            self._dismiss(descriptor, channel, str(error))
            return
        self._forget(descriptor)
        self._expected.discard(index)
        self._arrived[index] = channel, hello

    def _dismiss(self, descriptor: int, channel: TensorChannel, why: str) -> None:
        warn(f"{channel.peer} is no worker of this run: {why}")
        self._forget(descriptor)
        channel.close()

    def _forget(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del self._guests[descriptor]


class RemoteWorker(WorkerConnection):
    """A worker of another host; only somebody there can start it, at first and again."""

    def __init__(self, index: int, reception: Reception) -> None:
        """Args:
        index: Worker index.
        reception: Where it comes.
        """
        module = "python -m dexgrasp_sim.worker"
        super().__init__(index, f"{module} --learner {reception.address} --index {index}")
        self._reception = reception
        self._peer = "?"

    @property
    def source(self) -> Channel | Reception:
        """See `WorkerConnection`."""
        return self.channel or self._reception

    @property
    def is_alive(self) -> bool:
        """Whether it is connected."""
        return self.channel is not None

    @property
    def traces(self) -> str:
        """See `WorkerConnection`."""
        if self.channel is None:
            return "see whether a firewall is between"
        return f"worker {self.index} is at {self._peer}; its network may be cut"

    def spawn(self) -> None:
        """See `WorkerConnection`; the pool has said how to start it."""
        self._reception.expect(self.index)

    def may_be_replaced(self, hung: bool) -> bool:
        """See `WorkerConnection`: without a connection it cannot write."""
        return self.channel is not None or not hung

    def replace(self) -> None:
        """See `WorkerConnection`."""
        self.disconnect()
        self._reception.expect(self.index)
        warn(f"worker {self.index} is to be started again at its host: {self.command_line}")

    def hello(self) -> Message | None:
        """See `WorkerConnection`."""
        arrived = self._reception.take(self.index)
        if arrived is None:
            return None
        self.channel, hello = arrived
        self._peer = arrived[0].peer
        return hello

    def died(self, reason: str = "") -> WorkerDied:
        """See `WorkerConnection`."""
        self.disconnect()
        return WorkerDied(self.index, None, [f"at {self._peer}:", *reason.splitlines()])

    def end(self, deadline_s: float) -> None:
        """See `WorkerConnection`; a worker that reads STOP closes first."""
        if isinstance(self.channel, TensorChannel):
            self.channel.drain(max(deadline_s - time.monotonic(), 0.0))
        self.disconnect()
