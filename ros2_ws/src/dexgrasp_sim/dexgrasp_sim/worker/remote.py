"""A simulator worker on another host than its learner, to whom it is connected by TCP.

Started by hand or by a job scheduler, once per worker, when the learner is listening
(`simulators.transport: remote`)::

    python -m dexgrasp_sim.worker.remote --learner 10.0.0.1:29600 --index 0

It speaks the protocol of `transport.protocol`. As the two share no memory, what stands in a slot
follows the DONE that completes it, the actions follow their STEP, a saved state follows the DONE
of SAVE or the LOAD. It ends when the learner says so or is gone.
"""

import argparse
import os
import select
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.channel import ChannelClosed
from dexgrasp_sim.transport.layout import Block, RunLayout
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError, require
from dexgrasp_sim.transport.tcp import TensorChannel, connect_tcp, slot_tensors
from dexgrasp_sim.transport.telemetry import WorkerState, WorkerTelemetry
from dexgrasp_sim.worker.env_slice import EnvSlice
from dexgrasp_sim.worker.process import make_ordered_env, next_message

_POLL_S = 1.0
_CONNECT_RETRY_S = 0.5


class RemoteSlice:
    """Environments and their tensors, with the two slots that a step needs."""

    def __init__(self, orders: Mapping[str, Any], index: int) -> None:
        """Builds the environments.

        Args:
            orders: The payload of the learner's WELCOME.
            index: Worker index.

        Raises:
            ConfigError: The environments' config is wrong.
            ProtocolError: The learner's version of this code places or names tensors differently.
        """
        self.layout = RunLayout.from_dict(orders["layout"])
        self.index = index
        self.tensors = _untouched(self.layout.rollout_blocks)
        self.telemetry = _untouched(self.layout.telemetry_blocks)
        start, stop = self.layout.slices[index]
        env = make_ordered_env(orders, start, stop)
        row = WorkerTelemetry(self.telemetry, index)
        row.count(pid=os.getpid(), state=WorkerState.WAITING)
        self.envs = EnvSlice(env, self.layout, self.tensors, row, index)

    def wait(self, channel: TensorChannel) -> Message:
        """The learner's next order; the time until it comes is counted."""
        begin_s = time.perf_counter()
        message = next_message(channel)
        self.envs.telemetry.spend(waiting=time.perf_counter() - begin_s)
        return message

    def carry_out(self, channel: TensorChannel, message: Message) -> None:
        """Does what an order says and answers it."""
        order = message.payload or {}
        self.telemetry["control.difficulty"][0] = order.get("difficulty", 0.0)
        if message.type == MessageType.STEP:
            start, stop = self.layout.slices[self.index]
            channel.receive_tensors([self.tensors["actions"][0, start:stop]])
            self.envs.step(0, message.policy_version)
            self._answer(channel, message, slot=1)
            self.envs.report()
        elif message.type == MessageType.START:
            self.envs.reset()
            self._answer(channel, message, slot=0)
        elif message.type == MessageType.SAVE:
            self._send_state(channel, message)
        elif message.type == MessageType.LOAD:
            self._load_state(channel, order["bytes"])
            self._answer(channel, message, slot=0)
        else:
            raise ProtocolError(f"the learner sent {message.type.name}, which is no order")

    def _answer(self, channel: TensorChannel, message: Message, slot: int) -> None:
        """DONE with this worker's telemetry, then the slot."""
        payload = {
            name: self.telemetry[f"telemetry.{name}"][self.index].tolist()
            for name in ("counters", "seconds")
        }
        channel.send(message._replace(type=MessageType.DONE, payload=payload))
        channel.send_tensors(slot_tensors(self.layout, self.tensors, self.index, slot))

    def _send_state(self, channel: TensorChannel, message: Message) -> None:
        with tempfile.TemporaryDirectory(prefix="dexgrasp_") as folder:
            path = Path(folder) / "state.safetensors"
            try:
                self.envs.save(path)
            except OSError as error:
                channel.send(Message(MessageType.REFUSED, payload={"text": str(error)}))
                return
            data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        channel.send(message._replace(type=MessageType.DONE, payload={"bytes": len(data)}))
        channel.send_tensors([data])

    def _load_state(self, channel: TensorChannel, size: int) -> None:
        data = torch.empty(size, dtype=torch.uint8)
        channel.receive_tensors([data])
        with tempfile.TemporaryDirectory(prefix="dexgrasp_") as folder:
            path = Path(folder) / "state.safetensors"
            path.write_bytes(data.numpy().tobytes())
            self.envs.load(path)


def serve(learner: str, index: int, timeout_s: float) -> None:
    """Connects to a learner and does what it says until it says stop.

    Args:
        learner: `HOST:PORT` where it listens.
        index: Worker index.
        timeout_s: How long to wait for it to listen.

    Raises:
        ConfigError: The address or the environments' config is wrong.
        ChannelClosed: Nobody listens there, or the learner is gone.
        ProtocolError: The learner speaks another version.
    """
    channel = _connect(learner, timeout_s)
    is_over = threading.Event()
    watch = threading.Thread(target=_leave_with_learner, args=(channel, is_over), daemon=True)
    watch.start()
    try:
        hello = {"index": index, "pid": os.getpid(), "python": sys.version.split()[0]}
        channel.send(Message(MessageType.HELLO, payload=hello))
        orders = require(next_message(channel), MessageType.WELCOME).payload or {}
        channel.spin_us = orders["spin_us"]
        remote = RemoteSlice(orders, index)
        ready = {"schema_hash": remote.envs.schema_hash}
        channel.send(Message(MessageType.READY, payload=ready))
        try:
            while (message := remote.wait(channel)).type != MessageType.STOP:
                remote.carry_out(channel, message)
        finally:
            remote.envs.close()
    except ChannelClosed as error:
        raise ChannelClosed(f"the learner is gone: {error}") from None
    except Exception:
        with suppress(ChannelClosed):
            text = traceback.format_exc()
            channel.send(Message(MessageType.ERROR, payload={"text": text}))
        raise
    finally:
        is_over.set()
        channel.close()


def _connect(learner: str, timeout_s: float) -> TensorChannel:
    """Tries until somebody listens: the two hosts are rarely started in the right order."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return connect_tcp(learner)
        except ChannelClosed:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(_CONNECT_RETRY_S)


def _leave_with_learner(channel: TensorChannel, is_over: threading.Event) -> None:
    """Ends the process when the learner's end of the channel closes, whatever it is doing.

    Not when `is_over`, which is set before this end closes and the process leaves by itself.
    """
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLRDHUP)
    while not is_over.is_set() and not poller.poll(_POLL_S * 1e3):
        pass
    if is_over.is_set():
        return
    print("dexgrasp remote worker: the learner is gone", file=sys.stderr, flush=True)
    os._exit(1)


def _untouched(blocks: tuple[Block, ...]) -> dict[str, Tensor]:
    """Zeros of which only those rows take memory that are written: not the other workers'."""
    arrays = {block.name: np.zeros(block.shape, dtype=block.dtype) for block in blocks}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the worker; returns the exit code."""
    parser = argparse.ArgumentParser(prog="dexgrasp_sim.worker.remote", description=__doc__)
    parser.add_argument("--learner", required=True, metavar="HOST:PORT", help="where it listens")
    parser.add_argument("--index", required=True, type=int, help="worker index, from 0")
    parser.add_argument(
        "--wait-s", type=float, default=60.0, help="how long to wait for the learner to listen"
    )
    options = parser.parse_args(arguments)
    try:
        serve(options.learner, options.index, options.wait_s)
    except ConfigError as error:
        print(f"dexgrasp remote worker: {error}", file=sys.stderr)
        return 2
    except ChannelClosed as error:
        print(f"dexgrasp remote worker: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
