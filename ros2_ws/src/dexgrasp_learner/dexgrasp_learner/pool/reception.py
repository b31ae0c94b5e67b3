"""Where workers of other hosts come in: those that know the secret; others are refused.

It has a thread of its own, so that a worker is answered while the learner computes, and so that
nobody who connects can hold the learner up. The thread sleeps while nobody connects.
"""

import os
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from dexgrasp_learner.console import warn
from dexgrasp_sim.transport.handshake import (
    HANDSHAKE_TIMEOUT_S,
    REFUSAL,
    Dialogue,
    WrongSecret,
    as_learner,
)
from dexgrasp_sim.transport.protocol import (
    Message,
    MessageType,
    ProtocolError,
    encode,
    text_message,
)
from dexgrasp_sim.transport.tcp import TcpListener, TensorChannel

MAX_GUESTS = 16
"""Connections that may be in their handshake; one more takes the place of the oldest."""

_CLOSE_TIMEOUT_S = 5.0
_UNREAD_BYTES = 64 * 2**10
_SAID_IN_FULL = 10


@dataclass
class _Guest:
    """A connection whose handshake is not over."""

    connection: socket.socket
    peer: str
    dialogue: Dialogue
    until_s: float


class Reception:
    """Listens for workers, each of which says its index after the handshake.

    A worker whose place is still taken waits until it is free: its predecessor's loss may not have
    been noticed yet. Its descriptor is readable after a worker has come in.

    Attributes:
        refused: Connections that were refused.
    """

    def __init__(self, address: str, secret: bytes, num_workers: int) -> None:
        """Listens at `HOST:PORT`; raises ConfigError if that is not possible.

        Args:
            address: An address of this host; port 0 lets the operating system choose.
            secret: Of the run.
            num_workers: Workers have the indices from 0 to this.
        """
        self.refused = 0
        self._listener = TcpListener(address)
        self._secret = secret
        self._num_workers = num_workers
        self._guests: dict[int, _Guest] = {}
        self._arrived: dict[int, tuple[TensorChannel, Message]] = {}
        self._lock = threading.Lock()  # of the arrived, which both threads change
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        for source in (self._listener.fileno(), self._end):
            self._epoll.register(source, select.EPOLLIN)
        self._thread = threading.Thread(target=self._serve, name="reception", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """`HOST:PORT` where workers connect."""
        return self._listener.address

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._news

    def take(self, index: int) -> tuple[TensorChannel, Message] | None:
        """The connection and the HELLO of this worker, None if it has not come; never waits."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._news)
        with self._lock:
            arrived = self._arrived.pop(index, None)
            if arrived is not None:
                self._epoll.unregister(arrived[0].fileno())
        return arrived

    def close(self) -> None:
        """Stops listening and closes connections that were not taken; idempotent."""
        if self._epoll.closed:
            return
        os.eventfd_write(self._end, 1)
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._listener.close()
        for guest in self._guests.values():
            guest.connection.close()
        for channel, _ in self._arrived.values():
            channel.close()
        self._epoll.close()
        os.close(self._news)
        os.close(self._end)

    def _serve(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll(self._pause_s()):
                if descriptor == self._end:
                    return
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._guests:
                    self._listen_to(self._guests[descriptor])
                else:
                    self._forget_arrived(descriptor)
            now_s = time.monotonic()
            for guest in [g for g in self._guests.values() if g.until_s <= now_s]:
                self._refuse(guest, f"it said nothing more within {HANDSHAKE_TIMEOUT_S:g} s")

    def _pause_s(self) -> float | None:
        """Until the first guest must have said the next thing."""
        if not self._guests:
            return None
        return max(min(g.until_s for g in self._guests.values()) - time.monotonic(), 0.0)

    def _accept(self) -> None:
        connection = self._listener.accept()
        if connection is None:
            return
        if len(self._guests) == MAX_GUESTS:
            oldest = min(self._guests.values(), key=lambda guest: guest.until_s)
            self._refuse(oldest, f"{MAX_GUESTS} others have connected after it")
        until_s = time.monotonic() + HANDSHAKE_TIMEOUT_S
        guest = _Guest(connection, _peer(connection), Dialogue(as_learner(self._secret)), until_s)
        self._guests[connection.fileno()] = guest
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        self._say(guest, guest.dialogue.outgoing)

    def _listen_to(self, guest: _Guest) -> None:
        """Goes on with the handshake by what has arrived, which may be any part of what is due."""
        try:
            data = guest.connection.recv(guest.dialogue.wanted)
        except BlockingIOError:
            return
        except OSError as error:
            self._refuse(guest, f"connection lost: {error.strerror}")
            return
        if not data:
            self._refuse(guest, "it has closed the connection")
            return
        try:
            answer = guest.dialogue.feed(data)
        except ProtocolError as error:
            if isinstance(error, WrongSecret):
                with suppress(OSError):
                    guest.connection.send(REFUSAL)
            self._refuse(guest, str(error))
            return
        if answer:
            self._say(guest, answer)
        elif not guest.dialogue.wanted:
            self._admit(guest)

    def _say(self, guest: _Guest, data: bytes) -> None:
        """Sends a few bytes, for which there is place unless the other side does not read."""
        try:
            sent = guest.connection.send(data)
        except OSError:
            sent = 0
        if sent < len(data):
            self._refuse(guest, "it does not read")

    def _admit(self, guest: _Guest) -> None:
        hello = guest.dialogue.result
        assert hello is not None
        index = (hello.payload or {}).get("index")
        if type(index) is not int or not 0 <= index < self._num_workers:
            last = self._num_workers - 1
            self._turn_away(guest, f"there is no worker {index!r}; this run has 0 to {last}")
            return
        if index in self._arrived:
            self._turn_away(guest, f"another worker {index} has come before")
            return
        self._forget(guest)
        channel = TensorChannel(guest.connection)
        with self._lock:
            self._arrived[index] = channel, hello
            self._epoll.register(channel.fileno(), select.EPOLLRDHUP)
        os.eventfd_write(self._news, 1)

    def _turn_away(self, guest: _Guest, why: str) -> None:
        """Refuses one of ours, who is told why."""
        with suppress(OSError):
            guest.connection.send(encode(text_message(MessageType.ERROR, why)))
        self._refuse(guest, why)

    def _refuse(self, guest: _Guest, why: str) -> None:
        self.refused += 1
        count = self.refused
        # a scan of ports must not fill the log: after the first ones, the counts of 2, 4, 8, ...
        if count <= _SAID_IN_FULL or count & (count - 1) == 0:
            warn(f"{guest.peer} is refused: {why[:200]} (connection {count} that was refused)")
        self._forget(guest)
        with suppress(OSError):
            # bytes that nobody has read would turn the end of the connection into a reset, by
            # which the other side would lose what was sent to it
            guest.connection.recv(_UNREAD_BYTES)
        guest.connection.close()

    def _forget(self, guest: _Guest) -> None:
        self._epoll.unregister(guest.connection.fileno())
        del self._guests[guest.connection.fileno()]

    def _forget_arrived(self, descriptor: int) -> None:
        """Drops a worker that has left before it was taken."""
        with self._lock:
            for index, (channel, _) in list(self._arrived.items()):
                if channel.fileno() == descriptor:
                    self._epoll.unregister(descriptor)
                    del self._arrived[index]
                    channel.close()


def _peer(connection: socket.socket) -> str:
    try:
        host, port = connection.getpeername()[:2]
    except OSError:
        return "?"
    return f"{host}:{port}"
