"""Channels between two hosts: tensors follow their message as raw bytes over TCP.

Why not torch.distributed: the members of a gloo group are fixed, and a receive that exceeds its
time-out closes the connection for ever ("Application timeout caused pair closure", torch 2.13), so
a simulator host that was slow once would end the run. Here each worker has its own connection:
`EnvPool.wait` may be called again after a time-out, the loss of a worker affects only that worker,
and bytes are received directly into the slot of the rollout.

As in torch.distributed there is no encryption and no password: listen on a network that only
trusted hosts can reach. Received data are numbers and JSON; nothing is executed.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.channel import TRANSFER_TIMEOUT_S, Channel, ChannelClosed
from dexgrasp_sim.transport.layout import RESULT_NAMES, RunLayout

_PIECE_BYTES = 2**20
"""The time-out applies to each piece of this size, so a large batch may take longer."""

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
            ChannelClosed: The other side is gone, or has not sent for `TRANSFER_TIMEOUT_S`.
        """
        for tensor in tensors:
            data = _bytes_of(tensor)
            filled = 0
            while filled < len(data):
                try:
                    received = self._socket.recv_into(data[filled:])
                except OSError as error:
                    raise ChannelClosed(f"connection lost: {error}") from None
                if received == 0:
                    raise ChannelClosed("the other side has closed the connection")
                filled += received

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes whose number was in the previous message; errors as for `send_tensors`."""
        self.send_tensors([torch.frombuffer(bytearray(data), dtype=torch.uint8)])

    def receive_bytes(self, size: int) -> bytes:
        """Receives `size` bytes; errors as for `receive_tensors`."""
        data = torch.empty(size, dtype=torch.uint8)
        self.receive_tensors([data])
        return data.numpy().tobytes()

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

    @property
    def address(self) -> str:
        """`host:port` with the port that was chosen."""
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._socket.fileno()

    def accept(self, timeout_s: float) -> TensorChannel | None:
        """The connection that arrives within `timeout_s` seconds, else None."""
        self._socket.settimeout(max(timeout_s, 0.0))
        try:
            connection, _ = self._socket.accept()
        except (TimeoutError, BlockingIOError):
            return None
        return TensorChannel(connection)

    def close(self) -> None:
        """Stops listening; idempotent."""
        self._socket.close()


def connect_tcp(address: str) -> TensorChannel:
    """Connects to a listener at `HOST:PORT`.

    Raises:
        ConfigError: The address is malformed.
        ChannelClosed: Nobody listens there.
    """
    try:
        return TensorChannel(socket.create_connection(parse_address(address), TRANSFER_TIMEOUT_S))
    except OSError as error:
        raise ChannelClosed(f"nobody listens at {address}: {error}") from None


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


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.view(-1).view(torch.uint8).numpy().data
