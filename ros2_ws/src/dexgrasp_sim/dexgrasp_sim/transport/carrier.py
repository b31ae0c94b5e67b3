"""How the tensors of a slot get from the simulator's device to where the learner reads them.

The lock-step protocol is the same for all carriers: a worker sends DONE when the slot is complete
where the learner reads it. They differ in what happens before that:

- `host`: the environments write into the shared file; no copy is needed.
- `staged`: the environments write on their own device, and `publish` copies from there into the
  shared file. The device may be the CPU, so a machine without GPU can test this code.
- `pinned`: as `staged`, but worker and learner register the shared file with CUDA, so that copies
  do not go through a buffer of the driver.
- `cuda_ipc`: `publish` copies from device to device, into tensors of the learner that the worker
  has opened. No host memory is involved; both sides need a GPU, one host and one IPC namespace.
"""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor
from typing_extensions import override

from dexgrasp_sim.config import ConfigError

Slots = Sequence[Mapping[str, Tensor]]
"""For each slot the tensors [n, ...] of a worker's environments, by name."""

CarrierName = Literal["host", "staged", "pinned", "cuda_ipc"]

_BASE64 = "base64:"


class Carrier(Protocol):
    """Brings a worker's slots to the learner.

    Attributes:
        out: Where the environments write, slot by slot.
    """

    out: Slots

    def fetch(self, actions: Tensor) -> Tensor:
        """Copies actions [n, A] of the shared file to the device of the environments."""
        ...

    def publish(self, slot: int) -> None:
        """Returns when the learner's slot holds what the environments wrote."""
        ...


class InPlace(Carrier):
    """The environments write directly where the learner reads."""

    def __init__(self, slots: Slots) -> None:
        """Takes the slots, views of tensors that both sides map."""
        self.out = slots

    @override
    def fetch(self, actions: Tensor) -> Tensor:
        return actions

    @override
    def publish(self, slot: int) -> None:
        """Returns at once: the learner already sees what was written."""


class Staged(Carrier):
    """The environments write into one set of tensors on their device, which is copied to a slot.

    The copy is queued on the same stream as the kernels of the environments, so they need no other
    synchronisation. `publish` waits for one event per step.
    """

    def __init__(self, slots: Slots, device: torch.device | str, pin: bool = False) -> None:
        """Allocates the device tensors, which all slots share.

        Args:
            slots: Where the learner reads: mapped memory, or memory of its GPU.
            device: Where the environments compute.
            pin: Whether to register mapped slots with CUDA if the device is a GPU; they stay
                registered until the process ends.
        """
        self._slots = slots
        device = torch.device(device)
        stage = {name: torch.zeros_like(t, device=device) for name, t in slots[0].items()}
        self.out: Slots = [stage] * len(slots)
        self._device = device
        is_gpu = device.type == "cuda"
        self._copied = torch.cuda.Event() if is_gpu else None
        self._pinned = (
            PinnedMemory([t for s in slots for t in s.values()]) if pin and is_gpu else None
        )

    @override
    def fetch(self, actions: Tensor) -> Tensor:
        return actions.to(self._device, non_blocking=True)

    @override
    def publish(self, slot: int) -> None:
        for name, tensor in self._slots[slot].items():
            tensor.copy_(self.out[slot][name], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
            self._copied.synchronize()


def make_carrier(slots: Slots, orders: Mapping[str, Any]) -> Carrier:
    """The carrier of a worker.

    Args:
        slots: Its rows of the shared file, slot by slot.
        orders: From the learner: `carrier`, by default `host`; `device` of the environments; for
            `cuda_ipc` also `handles`, see `ipc_handles`, and `rows`, the first environment of
            the worker and the one after its last.
    """
    name: CarrierName = orders.get("carrier", "host")
    if name == "host":
        return InPlace(slots)
    if name == "cuda_ipc":
        slots = _in_learner(slots, open_ipc_handles(orders["handles"]), slice(*orders["rows"]))
    return Staged(slots, orders["device"], pin=name == "pinned")


def _in_learner(slots: Slots, opened: Mapping[str, Tensor], rows: slice) -> Slots:
    """The slots with the learner's opened tensors [T + 1, N, ...] in place of the mapped ones."""
    return [
        {**tensors, **{name: tensor[slot, rows] for name, tensor in opened.items()}}
        for slot, tensors in enumerate(slots)
    ]


class PinnedMemory:
    """Host memory registered with CUDA until `close`, so that copies can run asynchronously.

    For memory that is not registered, CUDA copies through its own buffer and the caller waits.
    """

    def __init__(self, tensors: Collection[Tensor]) -> None:
        """Registers the memory between the first and the last byte of contiguous host tensors.

        Raises:
            ConfigError: CUDA refuses.
        """
        begin = min(tensor.data_ptr() for tensor in tensors)
        end = max(tensor.data_ptr() + tensor.nbytes for tensor in tensors)
        # keeps the mapping alive until it is unregistered
        self._tensors = list(tensors)
        self._begin: int | None = None
        runtime: Any = torch.cuda.cudart()
        error = runtime.cudaHostRegister(begin, end - begin, 0)
        if int(error) != 0:
            raise ConfigError(
                f"CUDA cannot pin {(end - begin) / 2**20:.0f} MiB of shared memory ({error}); use "
                "`carrier: host`, fewer environments, or a higher `ulimit -l`"
            )
        self._begin = begin

    def close(self) -> None:
        """Unregisters the memory; idempotent."""
        if self._begin is not None:
            runtime: Any = torch.cuda.cudart()
            runtime.cudaHostUnregister(self._begin)
            self._begin = None
        self._tensors = []


def ipc_handles(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Handles as plain JSON values with which another process can open contiguous CUDA tensors.

    The tensors must live as long as the other process uses them.
    `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True` fails if processes may not open each
    other's file descriptors.
    """
    return {name: _handle_of(tensor) for name, tensor in tensors.items()}


def open_ipc_handles(handles: Mapping[str, Any]) -> dict[str, Tensor]:
    """Opens the tensors for which another process has called `ipc_handles`."""
    return {name: _open(handle) for name, handle in handles.items()}


def _handle_of(tensor: Tensor) -> list[Any]:
    arguments = cast("Any", reduce_tensor(tensor)[1])
    _, size, stride, offset, _, dtype, *place = arguments
    name = str(dtype).removeprefix("torch.")
    return [_to_json(value) for value in (list(size), list(stride), offset, name, *place)]


def _open(handle: Sequence[Any]) -> Tensor:
    size, stride, offset, name, *place = (_from_json(value) for value in handle)
    rebuild: Callable[..., Tensor] = rebuild_cuda_tensor
    kind = torch.storage.TypedStorage
    return rebuild(Tensor, torch.Size(size), stride, offset, kind, getattr(torch, name), *place)


def _to_json(value: Any) -> Any:
    return _BASE64 + base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _from_json(value: Any) -> Any:
    is_bytes = isinstance(value, str) and value.startswith(_BASE64)
    return base64.b64decode(value.removeprefix(_BASE64)) if is_bytes else value
