"""Workers on other hosts, which connect by TCP; `reception` lets them in."""

import shlex
import time

from typing_extensions import override

from dexgrasp_learner.console import warn
from dexgrasp_learner.pool.reception import Reception
from dexgrasp_learner.pool.worker_connection import WorkerConnection, WorkerDied
from dexgrasp_sim.transport.channel import Channel
from dexgrasp_sim.transport.protocol import Message, ProtocolError
from dexgrasp_sim.transport.tcp import TensorChannel


class RemoteWorker(WorkerConnection):
    """A worker on another host; it must be started there by hand, also after a loss."""

    def __init__(self, index: int, reception: Reception) -> None:
        """Args:
        index: Worker index.
        reception: Where it comes.
        """
        super().__init__(index, start_command(reception.address, str(index)))
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
        """Has nothing to do: the pool has printed how to start it."""

    @override
    def may_be_replaced(self, hung: bool) -> bool:
        return self.channel is not None or not hung  # without a connection it cannot write

    @override
    def replace(self) -> None:
        self.disconnect()
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
    def broken(self, error: ProtocolError) -> Exception:
        return self.died(str(error))  # the run goes on without it, as after a loss

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


def start_command(address: str, index: str) -> str:
    """The command line that starts a worker on another host."""
    options = f"--learner {shlex.quote(address)} --index {index} --secret-file FILE"
    return f"python -m dexgrasp_sim.worker {options}"
