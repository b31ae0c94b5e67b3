"""A worker's end of the transport: tensors are in shared memory, or follow the messages.

Both use the messages of `protocol`. They differ in where the tensors of a slot are and how saved
states are transferred; they convert orders to the slots and files of the worker.
"""

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.channel import Channel, ChannelClosed, connect
from dexgrasp_sim.transport.layout import COUNTERS, Block, RunLayout
from dexgrasp_sim.transport.protocol import Message, MessageType
from dexgrasp_sim.transport.shared_memory import (
    Segment,
    remove_if_dead,
    run_folder,
    socket_path,
)
from dexgrasp_sim.transport.tcp import TensorChannel, connect_tcp, slot_tensors, state_size

_CONNECT_RETRY_S = 0.5
_LOCK_RELEASE_S = 2.0
_KEPT = [COUNTERS.index(name) for name in ("pid", "state")]
"""Counters of this process, which must not be taken over from a lost worker."""


class WorkerLink(Protocol):
    """The worker's end.

    Attributes:
        index: Worker index.
        layout: Layout of the worker's tensors; set after `open`.
        tensors: Rollout tensors by name; see `layout`.
        telemetry: Telemetry tensors by name; see `layout`.
    """

    index: int
    layout: RunLayout
    tensors: dict[str, Tensor]
    telemetry: dict[str, Tensor]

    @property
    def channel(self) -> Channel:
        """Channel to the learner."""
        ...

    def introduction(self) -> dict[str, Any]:
        """Entries of HELLO besides index, process id and Python version."""
        ...

    def open(self, orders: Mapping[str, Any]) -> None:
        """Prepares the tensors that the learner's WELCOME describes.

        Raises:
            ProtocolError: The learner's version of this code places or names them differently.
        """
        ...

    def accept(self, message: Message) -> Message:
        """Receives the data that follow an order; returns it with slots and files of the worker.

        Raises:
            ChannelClosed: The learner is gone.
            ProtocolError: What it announces cannot belong to this run.
        """
        ...

    def answer(self, message: Message, slot: int) -> None:
        """Tells the learner that an order has been carried out, and sends the results.

        Args:
            message: The order as the learner sent it.
            slot: The slot of this worker's tensors that was filled.

        Raises:
            ChannelClosed: The learner is gone.
        """
        ...

    def leave(self) -> None:
        """Prints that the learner is gone, and removes what it left behind."""
        ...


class SharedWorkerLink:
    """Tensors are in a file that the learner maps too; states are files of this host."""

    def __init__(self, run_id: str, index: int) -> None:
        """Attaches to a run.

        Raises:
            ConfigError: There is no such run, or it has no such worker.
            ChannelClosed: The learner is gone.
        """
        self.index = index
        self._run_id = run_id
        self._segment = Segment.attach(run_id)
        self.layout = self._segment.layout
        self.tensors = self._segment.tensors
        self.telemetry = self._segment.telemetry
        last = self.layout.num_workers - 1
        if not 0 <= index <= last:
            raise ConfigError(f"--index {index}: run {run_id!r} has workers 0 to {last}")
        self.channel = connect(socket_path(run_id, index))

    def introduction(self) -> dict[str, Any]:
        """See `WorkerLink`."""
        return {"schema_hash": self.layout.schema_hash}

    def open(self, orders: Mapping[str, Any]) -> None:
        """Has nothing to do: the layout is in the shared file."""

    def accept(self, message: Message) -> Message:
        """Returns the order as it is: the tensors are shared."""
        return message

    def answer(self, message: Message, slot: int) -> None:
        """See `WorkerLink`."""
        del slot
        done = Message(MessageType.DONE, message.slot, message.sequence, message.policy_version)
        self.channel.send(done)

    def leave(self) -> None:
        """See `WorkerLink`. Removes the run if its learner has ended.

        The learner's lock is released shortly after its socket closes.
        """
        print(
            f"dexgrasp worker: the learner of run {self._run_id} is gone",
            file=sys.stderr,
            flush=True,
        )
        for _ in range(20):
            if remove_if_dead(self._run_id) or not run_folder(self._run_id).exists():
                return
            time.sleep(_LOCK_RELEASE_S / 20)


class StreamWorkerLink:
    """Tensors and states follow the messages; there are two slots, before and after a step."""

    def __init__(self, learner: str, index: int, timeout_s: float, secret: bytes) -> None:
        """Connects to a learner.

        Args:
            learner: Its `HOST:PORT`.
            index: Worker index.
            timeout_s: How long to wait for the learner to listen; it may be started later.
            secret: Of the run, see `handshake`.

        Raises:
            ConfigError: The address is malformed.
            ChannelClosed: Nobody listens there.
            ProtocolError: The learner has another version or another secret.
        """
        self.index = index
        self._learner = learner
        self.channel: TensorChannel = _connect(learner, timeout_s, secret)

    def introduction(self) -> dict[str, Any]:
        """Nothing: the schema is not known yet."""
        return {}

    def open(self, orders: Mapping[str, Any]) -> None:
        """See `WorkerLink`."""
        self.layout = RunLayout.from_dict(orders["layout"])
        self.tensors = _untouched(self.layout.rollout_blocks)
        self.telemetry = _untouched(self.layout.telemetry_blocks)

    def accept(self, message: Message) -> Message:
        """See `WorkerLink`."""
        order = message.payload or {}
        self.telemetry["control.difficulty"][0] = order.get("difficulty", 0.0)
        if message.type == MessageType.STEP:
            start, stop = self.layout.slices[self.index]
            self.channel.receive_tensors([self.tensors["actions"][0, start:stop]])
        elif message.type == MessageType.START and "slot" in order:
            row = self.telemetry["telemetry.counters"][self.index]
            own = row[_KEPT].clone()
            row.copy_(torch.tensor(order["counters"], dtype=row.dtype))
            row[_KEPT] = own
            payload = {"slot": 0, "sequence": order["sequence"]}
            return message._replace(slot=0, payload=payload)
        elif message.type in (MessageType.SAVE, MessageType.LOAD):
            self._folder = tempfile.TemporaryDirectory(prefix="dexgrasp_")
            path = Path(self._folder.name) / "state.safetensors"
            if message.type == MessageType.LOAD:
                size = state_size(order, self.layout, self.index)
                with open(path, "wb") as file:
                    file.writelines(self.channel.receive_pieces(size))
            return message._replace(slot=0, payload={"path": str(path)})
        return message._replace(slot=0, payload=None)

    def answer(self, message: Message, slot: int) -> None:
        """Sends DONE with this worker's telemetry, followed by the slot or a saved state."""
        if message.type == MessageType.SAVE:
            state = (Path(self._folder.name) / "state.safetensors").read_bytes()
            self._folder.cleanup()
            payload: dict[str, Any] = {"bytes": len(state)}
            self.channel.send(message._replace(type=MessageType.DONE, payload=payload))
            self.channel.send_bytes(state)
            return
        if message.type == MessageType.LOAD:
            self._folder.cleanup()
        payload = {
            name: self.telemetry[f"telemetry.{name}"][self.index].tolist()
            for name in ("counters", "seconds")
        }
        self.channel.send(message._replace(type=MessageType.DONE, payload=payload))
        self.channel.send_tensors(slot_tensors(self.layout, self.tensors, self.index, slot))

    def leave(self) -> None:
        """See `WorkerLink`."""
        print(
            f"dexgrasp worker: the learner at {self._learner} is gone",
            file=sys.stderr,
            flush=True,
        )


def _connect(learner: str, timeout_s: float, secret: bytes) -> TensorChannel:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return connect_tcp(learner, secret)
        except ChannelClosed:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(_CONNECT_RETRY_S)


def _untouched(blocks: tuple[Block, ...]) -> dict[str, Tensor]:
    """Zeroed tensors; the rows of other workers are never written and take no memory."""
    arrays = {block.name: np.zeros(block.shape, dtype=block.dtype) for block in blocks}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
