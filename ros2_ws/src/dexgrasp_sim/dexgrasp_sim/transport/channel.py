"""Unix-domain stream sockets that carry the messages of `protocol`."""

import os
import select
import socket
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Protocol, TypeVar

from dexgrasp_sim.transport.ownership import peer_user
from dexgrasp_sim.transport.protocol import (
    ANY_TYPE,
    HEADER,
    Message,
    MessageType,
    decode_header,
    decode_payload,
    encode,
    require,
)

TRANSFER_TIMEOUT_S = 5.0
"""Time-out for the rest of a message after its first byte, and for handing one to the OS."""


class ChannelClosed(ConnectionError):
    """The other side has closed the connection or its process has ended."""


class Channel:
    """One end of a connection; messages arrive whole and in order."""

    def __init__(self, connection: socket.socket, spin_us: float = 0.0) -> None:
        """Takes over a connected stream socket.

        Args:
            connection: Closed by `close`.
            spin_us: Microseconds of polling before the process sleeps. It saves the wake-up, about
                50 us, and uses a CPU core meanwhile.
        """
        self.spin_us = spin_us
        self._socket = connection
        self._socket.settimeout(TRANSFER_TIMEOUT_S)

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Hands a message to the operating system.

        Raises:
            ChannelClosed: The other side is gone, or has not read for `TRANSFER_TIMEOUT_S`.
        """
        try:
            self._socket.sendall(encode(message))
        except OSError as error:
            raise ChannelClosed(f"cannot send {message.type.name}: {error}") from None

    def receive(self, timeout_s: float, expected: Set[MessageType] = ANY_TYPE) -> Message:
        """The next message.

        Args:
            timeout_s: For its first byte.
            expected: Types that may come now; nothing is read or allocated for others.

        Raises:
            TimeoutError: No message has begun to arrive in time.
            ChannelClosed: The other side is gone, or has not sent the rest of a message in time.
            ProtocolError: The data are not an expected message of this version.
        """
        if not ready_channels([self], timeout_s, self.spin_us):
            raise TimeoutError(f"no message within {timeout_s:g} s")
        message, length = decode_header(self._read(HEADER.size), expected)
        if length:
            message = message._replace(payload=decode_payload(self._read(length)))
        return message

    def expect(self, kind: MessageType, timeout_s: float) -> Message:
        """The next message, which must be of one type; errors as for `receive` and `require`."""
        return require(self.receive(timeout_s, {kind, MessageType.ERROR}), kind)

    def has_unread(self) -> bool:
        """Whether bytes have arrived that were not received yet."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def close(self) -> None:
        """Closes this end; idempotent."""
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = self._receive(size)
        if len(data) == size:  # as almost always
            return data
        until_s = time.monotonic() + TRANSFER_TIMEOUT_S
        parts = bytearray(data)
        while len(parts) < size:
            if time.monotonic() > until_s:
                raise ChannelClosed(f"connection lost: {len(parts)} of {size} bytes came in time")
            parts += self._receive(size - len(parts))
        return bytes(parts)

    def _receive(self, size: int) -> bytes:
        """The next bytes, at least one and at most `size`."""
        try:
            data = self._socket.recv(size)
        except OSError as error:
            raise ChannelClosed(f"connection lost: {error}") from None
        if not data:
            raise ChannelClosed("the other side has closed the connection")
        return data


class Source(Protocol):
    """Something that poll can wait for."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


AnySource = TypeVar("AnySource", bound=Source)


def ready_channels(
    channels: Sequence[AnySource], timeout_s: float, spin_us: float = 0.0
) -> list[AnySource]:
    """The channels that have something to read, or whose other side is gone.

    Args:
        channels: Connected channels, and listeners, which are ready when a peer connects.
        timeout_s: Seconds to wait for the first of them.
        spin_us: Microseconds of this time to poll without sleeping.

    Returns:
        The ready ones in the order given; empty after the time-out.
    """
    poller = select.poll()
    for channel in channels:
        poller.register(channel.fileno(), select.POLLIN)
    events = poller.poll(0)
    spin_until = time.perf_counter() + min(spin_us * 1e-6, timeout_s)
    while not events and time.perf_counter() < spin_until:
        os.sched_yield()  # other processes may use this core first
        events = poller.poll(0)
    if not events:
        events = poller.poll(max(timeout_s, 0.0) * 1e3)
    ready = {descriptor for descriptor, _ in events}
    return [channel for channel in channels if channel.fileno() in ready]


def connect(path: Path) -> Channel:
    """Connects to a listener of this user.

    Raises:
        ChannelClosed: Nobody listens there, or somebody else.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TRANSFER_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise ChannelClosed(f"nobody listens at {path}: {error}") from None
    user = peer_user(connection)
    if user != os.geteuid():
        connection.close()
        raise ChannelClosed(f"user {user} listens at {path}, not user {os.geteuid()}")
    return Channel(connection)


class Listener:
    """Accepts one connection of this user at a path.

    Attributes:
        refused: Ids of the other users whose connections were refused.
    """

    def __init__(self, path: Path) -> None:
        """Creates the socket file, for this user only; connections queue from now on."""
        self.refused: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.fchmod(self._socket.fileno(), 0o600)  # before bind, which gives the file this mode
        self._socket.bind(str(path))
        self._socket.listen(1)

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._socket.fileno()

    def accept(self, timeout_s: float) -> Channel | None:
        """The connection that arrives within `timeout_s` seconds, else None."""
        self._socket.settimeout(max(timeout_s, 0.0))
        try:
            connection, _ = self._socket.accept()
        except (TimeoutError, BlockingIOError):
            return None
        user = peer_user(connection)
        if user != os.geteuid():
            connection.close()
            self.refused.append(user)
            return None
        return Channel(connection)

    def close(self) -> None:
        """Stops listening; idempotent. The socket file is removed with the run's folder."""
        self._socket.close()
