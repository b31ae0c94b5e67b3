"""Workers on other hosts, each connected by TCP; see `dexgrasp_sim.worker.remote`."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dexgrasp_learner.console import warn
from dexgrasp_learner.pool.in_process_pool import Pool, private_tensors
from dexgrasp_learner.pool.pool_spec import PoolSpec
from dexgrasp_learner.pool.worker_group import ALL, WorkerTimeout
from dexgrasp_learner.pool.worker_process import WorkerDied
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.transport.channel import ChannelClosed, ready_channels
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError, require
from dexgrasp_sim.transport.tcp import TcpListener, TensorChannel, slot_tensors
from dexgrasp_sim.worker.env_slice import state_path

_CONNECT_POLL_S = 0.2
_HELLO_TIMEOUT_S = 5.0
_STOP_TIMEOUT_S = 3.0
_LINES = 20


class RemotePool(Pool):
    """Workers of other hosts write their slices of this process's memory, through sockets.

    A worker that is lost ends the run, with a checkpoint, whatever `PoolSpec.restarts` says: this
    host cannot start another one.

    Attributes:
        address: `HOST:PORT` where workers connect.
    """

    def __init__(self, spec: PoolSpec) -> None:
        """Allocates the tensors and listens; errors as for `make_pool`."""
        layout = spec.layout()
        if not spec.listen:
            raise ConfigError(
                "transport remote: say where the workers connect, `listen: HOST:PORT` with an "
                "address of this host"
            )
        tensors = private_tensors(layout.rollout_blocks)
        super().__init__(spec, layout, tensors, private_tensors(layout.telemetry_blocks))
        self._listener = TcpListener(spec.listen)
        self.address = self._listener.address
        self._workers: dict[int, TensorChannel] = {}
        self._peers: dict[int, str] = {}
        self._pending: dict[int, int] = {}

    @property
    def workers_alive(self) -> int:
        """See `EnvPool`."""
        return len(self._workers)

    def start(self) -> None:
        """See `EnvPool`; waits for all workers to connect, which people start."""
        if len(self._workers) < self.num_workers:
            self._welcome()
        self._steps[:] = 0
        for index in range(self.num_workers):
            self._order(index, MessageType.START, slot=0)
        self._collect(ALL, self.spec.start_timeout_s)
        self._check_sequence(0)

    def send(self, slot: int, policy_version: int, workers: slice = ALL) -> None:
        """See `EnvPool`."""
        for index in self._indices(workers):
            start, stop = self.layout.slices[index]
            actions = self.tensors["actions"][slot, start:stop]
            self._steps[index] += 1
            self._order(index, MessageType.STEP, slot + 1, policy_version)
            try:
                self._workers[index].send_tensors([actions])
            except ChannelClosed as error:
                raise self._died(index, error) from None

    def wait(self, slot: int, timeout_s: float | None = None, workers: slice = ALL) -> None:
        """See `EnvPool`."""
        self._collect(workers, self.spec.timeout_s if timeout_s is None else timeout_s)
        self._check_sequence(slot + 1, workers)

    def save_state(self, folder: Path) -> None:
        """See `EnvPool`; the states come here and are written here."""
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(self.num_workers):
            self._order(index, MessageType.SAVE, slot=0)
        unsaved = []
        for index in range(self.num_workers):
            done = self._receive(index, self.spec.start_timeout_s)
            if done.type == MessageType.REFUSED:
                unsaved.append(f"worker {index}: {(done.payload or {}).get('text')}")
            else:
                state = self._receive_bytes(index, require(done, MessageType.DONE))
                try:
                    state_path(folder, index).write_bytes(state)
                except OSError as error:  # the answers of the others are to be taken all the same
                    unsaved.append(f"worker {index}: {error}")
            del self._pending[index]
        if unsaved:
            raise OSError("; ".join(unsaved))

    def load_state(self, folder: Path) -> None:
        """See `EnvPool`."""
        self._check_states(folder)
        for index in range(self.num_workers):
            data = bytearray(state_path(folder, index).read_bytes())
            self._order(index, MessageType.LOAD, slot=0, values={"bytes": len(data)})
            try:
                self._workers[index].send_tensors([torch.frombuffer(data, dtype=torch.uint8)])
            except ChannelClosed as error:
                raise self._died(index, error) from None
        self._collect(ALL, self.spec.start_timeout_s)

    def close(self) -> None:
        """See `EnvPool`."""
        self._listener.close()
        for channel in self._workers.values():
            with suppress(ChannelClosed):
                channel.send(Message(MessageType.STOP))
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        for channel in self._workers.values():
            # a worker that reads STOP closes first; until then its last answer may still come
            channel.drain(max(deadline_s - time.monotonic(), 0.0))
            channel.close()
        self._workers = {}

    def _welcome(self) -> None:
        """Connects all workers and has them build their environments at the same time."""
        timeout_s = self.spec.start_timeout_s
        deadline_s = time.monotonic() + timeout_s
        warn(
            f"waiting {timeout_s:g} s for {self.num_workers} workers; start each of them with: "
            f"python -m dexgrasp_sim.worker.remote --learner {self.address} --index K"
        )
        while len(self._workers) < self.num_workers:
            channel = self._listener.accept(_CONNECT_POLL_S)
            if channel is not None:
                self._introduce(channel)
            if len(self._workers) < self.num_workers and time.monotonic() > deadline_s:
                missing = sorted({*range(self.num_workers)} - {*self._workers})
                raise WorkerTimeout(
                    f"workers {missing} have not connected to {self.address} within "
                    f"{timeout_s:g} s; start them, and see whether a firewall is between",
                    missing,
                )
        self._listener.close()  # who comes too late is told so by the operating system
        for index in range(self.num_workers):
            ready = require(self._receive(index, deadline_s - time.monotonic()), MessageType.READY)
            found = (ready.payload or {}).get("schema_hash")
            if found != self.layout.schema_hash:
                raise ProtocolError(
                    f"worker {index} has schema {found}, this run has "
                    f"{self.layout.schema_hash}; install the same version of dexgrasp on both"
                )

    def _introduce(self, channel: TensorChannel) -> None:
        """Takes a worker's HELLO and tells it what to build; sends strangers away."""
        peer = channel.peer
        try:
            hello = channel.expect(MessageType.HELLO, _HELLO_TIMEOUT_S)
            index = (hello.payload or {}).get("index")
            free = [k for k in range(self.num_workers) if k not in self._workers]
            if index not in free:
                text = f"there is no place for worker {index!r}; free are {free}"
                channel.send(Message(MessageType.ERROR, payload={"text": text}))
                raise ProtocolError(text)
            channel.send(Message(MessageType.WELCOME, payload=self._welcome_orders(index)))
        except (ChannelClosed, ProtocolError, TimeoutError) as error:
            warn(f"{peer} is no worker of this run: {error}")
            channel.close()
            return
        channel.spin_us = self.spec.spin_us
        self._workers[index] = channel
        self._peers[index] = peer

    def _welcome_orders(self, index: int) -> dict[str, Any]:
        layout = replace(self.layout, horizon=1)  # a worker needs a slot before and one after
        return {**self.spec.orders()[index], "layout": layout.to_dict()}

    def _indices(self, workers: slice) -> Sequence[int]:
        return range(self.num_workers)[workers]

    def _order(
        self,
        index: int,
        kind: MessageType,
        slot: int,
        policy_version: int = 0,
        values: dict[str, Any] | None = None,
    ) -> None:
        """Sends an order whose answer fills a slot."""
        if index in self._pending:
            raise RuntimeError(f"worker {index} is busy; call wait() first")
        difficulty = float(self.telemetry["control.difficulty"][0])
        payload = {"difficulty": difficulty, **(values or {})}
        message = Message(kind, slot, int(self._steps[index]), policy_version, payload)
        try:
            self._channel(index).send(message)
        except ChannelClosed as error:
            raise self._died(index, error) from None
        self._pending[index] = slot

    def _collect(self, workers: slice, timeout_s: float) -> None:
        """Takes the slots that these workers owe; may be called again after a time-out."""
        deadline_s = time.monotonic() + timeout_s
        while due := [index for index in self._indices(workers) if index in self._pending]:
            channels = {self._channel(index): index for index in due}
            ready = ready_channels(
                list(channels), deadline_s - time.monotonic(), self.spec.spin_us
            )
            if not ready:
                peers = ", ".join(self._peers[index] for index in due)
                raise WorkerTimeout(
                    f"workers {due} at {peers} have not answered within {timeout_s:g} s: they "
                    "hang, their network is cut, or they need a longer time-out",
                    due,
                )
            for channel in ready:
                self._take_slot(channels[channel])

    def _take_slot(self, index: int) -> None:
        """Receives what a worker has written, straight into the rollout."""
        slot = self._pending[index]
        done = require(self._receive(index, self.spec.timeout_s), MessageType.DONE)
        self.slot_mismatches += done.slot != slot
        for name in ("counters", "seconds"):
            row = self.telemetry[f"telemetry.{name}"][index]
            row.copy_(torch.tensor((done.payload or {})[name], dtype=row.dtype))
        try:
            self._channel(index).receive_tensors(
                slot_tensors(self.layout, self.tensors, index, slot)
            )
        except ChannelClosed as error:
            raise self._died(index, error) from None
        del self._pending[index]

    def _receive(self, index: int, timeout_s: float) -> Message:
        try:
            message = self._channel(index).receive(max(timeout_s, 0.0))
        except ChannelClosed as error:
            raise self._died(index, error) from None
        except TimeoutError as error:
            text = f"worker {index} at {self._peers[index]}: {error}"
            raise WorkerTimeout(text, [index]) from None
        if message.type == MessageType.ERROR:
            raise self._died(index, (message.payload or {}).get("text", ""))
        return message

    def _receive_bytes(self, index: int, done: Message) -> bytes:
        data = torch.empty((done.payload or {})["bytes"], dtype=torch.uint8)
        try:
            self._channel(index).receive_tensors([data])
        except ChannelClosed as error:
            raise self._died(index, error) from None
        return data.numpy().tobytes()

    def _channel(self, index: int) -> TensorChannel:
        if index not in self._workers:
            raise RuntimeError(f"worker {index} is not connected; call start() first")
        return self._workers[index]

    def _died(self, index: int, reason: object) -> WorkerDied:
        """Forgets a worker; the error to raise about it."""
        self._workers.pop(index).close()
        self._pending.pop(index, None)
        lines = str(reason).splitlines()[-_LINES:]
        return WorkerDied(index, None, [f"at {self._peers[index]}:", *lines])
