"""Workers on other hosts, which connect by TCP and tell their worker index."""

import select
import time

from typing_extensions import override

from dexgrasp_learner.console import warn
from dexgrasp_learner.pool.worker_connection import WorkerConnection, WorkerDied
from dexgrasp_sim.transport.channel import Channel, ChannelClosed
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError
from dexgrasp_sim.transport.tcp import TcpListener, TensorChannel

_HELLO_TIMEOUT_S = 5.0


class Reception:
    """Listens for workers, identifies them by their HELLO message, and refuses others.

    Its descriptor is readable when a connection or a HELLO arrives.
    """

    def __init__(self, address: str) -> None:
        """Listens at `HOST:PORT`; raises ConfigError if that is not possible."""
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
        """Accepts one connection of this worker from now on."""
        self._expected.add(index)

    def take(self, index: int) -> tuple[TensorChannel, Message] | None:
        """The connection and the HELLO of this worker, None if it has not connected."""
        self._look()
        return self._arrived.pop(index, None)

    def close(self) -> None:
        """Stops listening and closes connections that were not taken; idempotent."""
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
                self._identify(descriptor)
        for descriptor, (channel, until_s) in list(self._guests.items()):
            if until_s < now_s:
                self._refuse(descriptor, channel, f"no HELLO within {_HELLO_TIMEOUT_S:g} s")

    def _identify(self, descriptor: int) -> None:
        """Reads a HELLO that has begun to arrive."""
        channel, _ = self._guests[descriptor]
        try:
            hello = channel.expect(MessageType.HELLO, _HELLO_TIMEOUT_S)
            index = (hello.payload or {}).get("index")
            if index not in self._expected:
                text = f"there is no place for worker {index!r}; free are {sorted(self._expected)}"
                channel.send(Message(MessageType.ERROR, payload={"text": text}))
                raise ProtocolError(text)
        except (ChannelClosed, ProtocolError, TimeoutError) as error:
            self._refuse(descriptor, channel, str(error))
            return
        self._forget(descriptor)
        self._expected.discard(index)
        self._arrived[index] = channel, hello

    def _refuse(self, descriptor: int, channel: TensorChannel, why: str) -> None:
        warn(f"{channel.peer} is no worker of this run: {why}")
        self._forget(descriptor)
        channel.close()

    def _forget(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del self._guests[descriptor]


class RemoteWorker(WorkerConnection):
    """A worker on another host; it must be started there by hand, also after a loss."""

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
    @override
    def source(self) -> Channel | Reception:
        return self.channel or self._reception

    @property
    @override
    def is_alive(self) -> bool:
        """Whether it is connected."""
        return self.channel is not None

    @property
    @override
    def traces(self) -> str:
        if self.channel is None:
            return "check whether a firewall blocks the connection"
        return f"worker {self.index} is at {self._peer}; its network may be cut"

    @override
    def spawn(self) -> None:
        self._reception.expect(self.index)  # the pool has printed how to start it

    @override
    def may_be_replaced(self, hung: bool) -> bool:
        return self.channel is not None or not hung  # without a connection it cannot write

    @override
    def replace(self) -> None:
        self.disconnect()
        self._reception.expect(self.index)
        warn(f"worker {self.index} is to be started again at its host: {self.command_line}")

    @override
    def hello(self) -> Message | None:
        arrived = self._reception.take(self.index)
        if arrived is None:
            return None
        self.channel, hello = arrived
        self._peer = arrived[0].peer
        return hello

    @override
    def died(self, reason: str = "") -> WorkerDied:
        self.disconnect()
        return WorkerDied(self.index, None, [f"at {self._peer}:", *reason.splitlines()])

    @override
    def end(self, deadline_s: float) -> None:
        # a worker that reads STOP closes its side first
        if isinstance(self.channel, TensorChannel):
            self.channel.drain(max(deadline_s - time.monotonic(), 0.0))
        self.disconnect()
