"""Channels between two hosts: tensors follow their message as raw bytes over TCP.

Why not torch.distributed: the members of a gloo group are fixed, and a receive that exceeds its
time-out closes the connection for ever ("Application timeout caused pair closure", torch 2.13), so
a simulator host that was slow once would end the run. Here each worker has its own connection:
`EnvPool.wait` may be called again after a time-out, the loss of a worker affects only that worker,
and bytes are received directly into the slot of the rollout.

Whoever connects proves first that he knows the secret of the run (`handshake`). There is no
encryption. Received data are numbers and JSON; nothing is executed, and sizes follow from the
layout, not from what the other side says.
"""

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.channel import TRANSFER_TIMEOUT_S, Channel, ChannelClosed
from dexgrasp_sim.transport.handshake import HANDSHAKE_TIMEOUT_S, Dialogue, as_worker
from dexgrasp_sim.transport.layout import RESULT_NAMES, RunLayout
from dexgrasp_sim.transport.protocol import ProtocolError

_PIECE_BYTES = 2**20
"""The time-out applies to each piece of this size, so a large batch may take longer."""

_STATE_BYTES = 2**20
_STATE_IMAGES = 64
"""A bound, not a size: a state is a few KiB for each environment, and its delayed observations."""

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""A connection is closed when the other host does not answer for 15 s, also when it is idle."""


class TensorChannel(Channel):
    """A channel that also carries tensors, which must be contiguous and on the CPU."""

    def __init__(self, connection: socket.socket, spin_us: float = 0.0) -> None:
        """Takes over a connected TCP socket; see `Channel`."""
        super().__init__(connection, spin_us)
        for level, option, value in _KEEPALIVE:
            connection.setsockopt(level, option, value)

    @property
    def peer(self) -> str:
        """`host:port` of the other side; "?" if it is gone."""
        try:
            host, port = self._socket.getpeername()[:2]
        except OSError:
            return "?"
        return f"{host}:{port}"

    def send_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Sends the elements of tensors, one tensor after the other.

        Raises:
            ChannelClosed: The other side is gone, or has not read for `TRANSFER_TIMEOUT_S`.
        """
        for tensor in tensors:
            data = _bytes_of(tensor)
            try:
                for start in range(0, len(data), _PIECE_BYTES):
                    self._socket.sendall(data[start : start + _PIECE_BYTES])
            except OSError as error:
                raise ChannelClosed(f"cannot send tensors: {error}") from None

    def receive_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Fills tensors with what the other side's `send_tensors` sends.

        Raises:
            ChannelClosed: The other side is gone, or a piece has not come in `TRANSFER_TIMEOUT_S`.
        """
        for tensor in tensors:
            data = _bytes_of(tensor)
            for start in range(0, len(data), _PIECE_BYTES):
                self._fill(data[start : start + _PIECE_BYTES])

    def _fill(self, data: memoryview) -> None:
        begin_s = time.monotonic()
        filled = 0
        while filled < len(data):
            try:
                received = self._socket.recv_into(data[filled:])
            except OSError as error:
                raise ChannelClosed(f"connection lost: {error}") from None
            if received == 0:
                raise ChannelClosed("the other side has closed the connection")
            filled += received
            if filled < len(data) and time.monotonic() - begin_s > TRANSFER_TIMEOUT_S:
                raise ChannelClosed(f"connection lost: {filled} of {len(data)} bytes in time")

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes whose number was in the previous message; errors as for `send_tensors`."""
        self.send_tensors([torch.frombuffer(bytearray(data), dtype=torch.uint8)])

    def receive_pieces(self, size: int) -> Iterator[memoryview]:
        """Receives `size` bytes in pieces, each of which is valid until the next one.

        Raises:
            ChannelClosed: As for `receive_tensors`.
        """
        piece = memoryview(bytearray(min(size, _PIECE_BYTES)))
        for start in range(0, size, _PIECE_BYTES):
            part = piece[: size - start]
            self._fill(part)
            yield part

    def drain(self, timeout_s: float) -> None:
        """Discards received data until the other side closes, for at most `timeout_s` seconds."""
        deadline_s = time.monotonic() + timeout_s
        with suppress(OSError):
            while (left_s := deadline_s - time.monotonic()) > 0:
                self._socket.settimeout(left_s)
                if not self._socket.recv(_PIECE_BYTES):
                    return


class TcpListener:
    """Waits for workers of other hosts."""

    def __init__(self, address: str) -> None:
        """Listens at `HOST:PORT`; port 0 lets the operating system choose.

        Raises:
            ConfigError: The address does not belong to this host or is in use.
        """
        host, port = parse_address(address)
        try:
            self._socket = socket.create_server((host, port), backlog=64)
        except OSError as error:
            raise ConfigError(
                f"cannot listen at {address}: {error.strerror}; give HOST:PORT with an address of "
                "this host and a free port"
            ) from None
        self._socket.setblocking(False)

    @property
    def address(self) -> str:
        """`host:port` with the port that was chosen."""
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """A connection that waits, None without any; it blocks no more than the listener."""
        try:
            connection, _ = self._socket.accept()
        except OSError:  # BlockingIOError, or the other side is gone again
            return None
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        """Stops listening; idempotent."""
        self._socket.close()


def connect_tcp(address: str, secret: bytes) -> TensorChannel:
    """Connects to a learner at `HOST:PORT`, which may then be introduced to.

    Raises:
        ConfigError: The address is malformed.
        ChannelClosed: Nobody listens there, or does not answer as a learner in time.
        ProtocolError: The learner is of another version; `WrongSecret`: it has another secret.
    """
    try:
        connection = socket.create_connection(parse_address(address), TRANSFER_TIMEOUT_S)
    except OSError as error:
        raise ChannelClosed(f"nobody listens at {address}: {error}") from None
    try:
        _converse(connection, Dialogue(as_worker(secret)))
    except OSError as error:
        connection.close()
        raise ChannelClosed(f"no learner answers at {address}: {error}") from None
    except ProtocolError:
        connection.close()
        raise
    return TensorChannel(connection)


def _converse(connection: socket.socket, dialogue: Dialogue) -> None:
    """Carries on a dialogue to its end; raises OSError if that does not come in time."""
    until_s = time.monotonic() + HANDSHAKE_TIMEOUT_S
    connection.sendall(dialogue.outgoing)
    while dialogue.wanted:
        connection.settimeout(max(until_s - time.monotonic(), 1e-3))
        data = connection.recv(dialogue.wanted)
        if not data:
            raise ChannelClosed("it has closed the connection")
        connection.sendall(dialogue.feed(data))


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; raises ConfigError if it is malformed."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"address {address!r}: give HOST:PORT, such as 10.0.0.1:29600")
    return host, int(port)


def slot_tensors(
    layout: RunLayout, tensors: Mapping[str, Tensor], index: int, slot: int
) -> list[Tensor]:
    """The tensors that worker `index` writes into a slot, in the order of transmission."""
    start, stop = layout.slices[index]
    names = (*(spec.name for spec in layout.observation_specs), *RESULT_NAMES)
    sequence = tensors["sequence"][slot, index : index + 1]
    return [*(tensors[name][slot, start:stop] for name in names), sequence]


def state_size(payload: Mapping[str, Any], layout: RunLayout, index: int) -> int:
    """The size of a saved state that the other side announces.

    Raises:
        ProtocolError: It is no number, or above what the environments of a worker can need.
    """
    start, stop = layout.slices[index]
    per_env = _STATE_BYTES + _STATE_IMAGES * sum(s.nbytes for s in layout.observation_specs)
    limit, size = _STATE_BYTES + (stop - start) * per_env, payload.get("bytes")
    if type(size) is not int or not 0 < size <= limit:
        raise ProtocolError(f"a saved state of {size!r} bytes; 1 to {limit} are possible")
    return size


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data
