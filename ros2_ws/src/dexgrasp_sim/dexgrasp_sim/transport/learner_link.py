"""The learner's end of the transport of tensors; `worker_link` has the other end."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.transport.carrier import PinnedMemory, ipc_handles
from dexgrasp_sim.transport.channel import Channel, ChannelClosed
from dexgrasp_sim.transport.layout import RESULT_NAMES, Block, RunLayout
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError
from dexgrasp_sim.transport.shared_memory import Segment
from dexgrasp_sim.transport.tcp import TensorChannel, slot_tensors, state_size
from dexgrasp_sim.transport.telemetry import received_rows


class LearnerLink(Protocol):
    """The learner's end, for all workers.

    Attributes:
        tensors: Rollout tensors by name, as the learner reads and writes them.
        telemetry: Telemetry tensors by name.
    """

    tensors: dict[str, Tensor]
    telemetry: dict[str, Tensor]

    def orders(self) -> dict[str, Any]:
        """Entries of WELCOME about the tensors."""
        ...

    def send(self, channel: Channel, index: int, message: Message) -> None:
        """Sends an order and the data that belong to it.

        Raises:
            ChannelClosed: The worker is gone.
        """
        ...

    def receive(self, channel: Channel, index: int, answer: Message, order: Message) -> Message:
        """Receives the data that belong to an answer.

        Args:
            channel: To the worker.
            index: Worker index.
            answer: DONE or REFUSED.
            order: The order that it answers.

        Returns:
            The answer, or REFUSED if a saved state cannot be written.

        Raises:
            ChannelClosed: The worker is gone.
            ProtocolError: The answer is none to this order; nothing was written.
        """
        ...

    def close(self) -> None:
        """Frees the memory; idempotent."""
        ...


class SharedLearnerLink(LearnerLink):
    """For workers on this host: they map the learner's tensors and write states as files."""

    def __init__(self, run_id: str, layout: RunLayout, device: torch.device, pin: bool) -> None:
        """Creates the shared file of a run.

        Args:
            run_id: Id of the run.
            layout: Of the run.
            device: If it is a GPU, observations and results are there and workers write them by
                `cuda_ipc`; actions and telemetry stay in the file.
            pin: Whether to register the file with CUDA, for a learner that computes on a GPU.

        Raises:
            ConfigError: Shared memory is too small, the id is in use, or CUDA refuses.
        """
        self._segment = Segment.create(run_id, layout)
        self._pinned: PinnedMemory | None = None
        self.tensors: dict[str, Tensor] = dict(self._segment.tensors)
        self.telemetry = self._segment.telemetry
        self._handles: dict[str, Any] = {}
        try:
            if pin:
                self._pinned = PinnedMemory(self.tensors.values())
            if device.type == "cuda":
                names = (*(spec.name for spec in layout.observation_specs), *RESULT_NAMES)
                on_gpu = {n: torch.zeros_like(self.tensors[n], device=device) for n in names}
                self._handles = ipc_handles(on_gpu)
                self.tensors |= on_gpu
        except BaseException:
            self.close()
            raise

    @override
    def orders(self) -> dict[str, Any]:
        return {"handles": self._handles}

    @override
    def send(self, channel: Channel, index: int, message: Message) -> None:
        """Sends the message alone: the worker maps the same tensors."""
        channel.send(message)

    @override
    def receive(self, channel: Channel, index: int, answer: Message, order: Message) -> Message:
        """Returns the answer as it is: the worker has written into the same tensors."""
        return answer

    @override
    def close(self) -> None:
        """See `LearnerLink`. Tensors that are still referenced stay readable."""
        if self._pinned is not None:
            self._pinned.close()
            self._pinned = None
        self._segment.close()


class StreamLearnerLink(LearnerLink):
    """For workers on other hosts: tensors and states follow the messages on a `TensorChannel`."""

    def __init__(self, layout: RunLayout) -> None:
        """Allocates the tensors of a run."""
        self._layout = layout
        self.tensors = private_tensors(layout.rollout_blocks)
        self.telemetry = private_tensors(layout.telemetry_blocks)

    @override
    def orders(self) -> dict[str, Any]:
        """See `LearnerLink`. A worker gets two slots: one before and one after a step."""
        return {"layout": replace(self._layout, horizon=1).to_dict()}

    @override
    def send(self, channel: Channel, index: int, message: Message) -> None:
        assert isinstance(channel, TensorChannel)
        payload = dict(message.payload or {})
        payload["difficulty"] = float(self.telemetry["control.difficulty"][0])
        state = b""
        if message.type == MessageType.LOAD:
            state = Path(payload["path"]).read_bytes()
            payload["bytes"] = len(state)
        elif message.type == MessageType.START and "slot" in payload:
            payload["counters"] = self.telemetry["telemetry.counters"][index].tolist()
        channel.send(message._replace(payload=payload))
        if message.type == MessageType.STEP:
            start, stop = self._layout.slices[index]
            channel.send_tensors([self.tensors["actions"][message.slot, start:stop]])
        elif state:
            channel.send_bytes(state)

    @override
    def receive(self, channel: Channel, index: int, answer: Message, order: Message) -> Message:
        assert isinstance(channel, TensorChannel)
        if answer.type == MessageType.REFUSED:
            return answer
        if (answer.slot, answer.sequence) != (order.slot, order.sequence):
            raise ProtocolError(
                f"an answer to slot {answer.slot}, step {answer.sequence}, where slot "
                f"{order.slot}, step {order.sequence} was ordered"
            )
        payload, wanted = answer.payload or {}, order.payload or {}
        if order.type == MessageType.SAVE:
            size = state_size(payload, self._layout, index)
            return _write_state(wanted["path"], channel.receive_pieces(size), answer)
        counters, seconds = received_rows(payload)
        is_step = order.type == MessageType.STEP
        slot = order.slot + 1 if is_step else wanted.get("slot", 0)
        channel.receive_tensors(slot_tensors(self._layout, self.tensors, index, slot))
        self.telemetry["telemetry.counters"][index] = counters
        self.telemetry["telemetry.seconds"][index] = seconds
        return answer

    @override
    def close(self) -> None:
        """Has nothing to do: memory is freed with the last reference to it."""


def private_tensors(
    blocks: tuple[Block, ...], device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Zeroed tensors by name, in private memory of this process."""
    return {
        block.name: torch.zeros(block.shape, dtype=block.torch_dtype, device=device)
        for block in blocks
    }


def _write_state(path: str, pieces: Iterator[memoryview], answer: Message) -> Message:
    """Writes a state to a file as it arrives; returns REFUSED with the reason if that fails."""
    part = Path(path).with_suffix(".part")
    try:
        with open(part, "wb") as file:
            for piece in pieces:
                file.write(piece)
        part.replace(path)
    except ChannelClosed:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        part.unlink(missing_ok=True)
        for _ in pieces:  # what is still to come would be taken for the next message
            pass
        return answer._replace(type=MessageType.REFUSED, payload={"text": f"{path}: {error}"})
    return answer
