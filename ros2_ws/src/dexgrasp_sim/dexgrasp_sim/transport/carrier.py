"""How the tensors of a slot get from the simulator's device to where the learner reads them.

The lock-step protocol is the same for all: a worker says DONE when the slot is complete where the
learner reads it, and nobody waits for anything else. What differs is what happens before that:

- `host`: the environments write into the shared file; nothing is left to do.
- `staged`: the environments write on their own device, from where `publish` copies into the
  shared file. The device may be the CPU, which is how a machine without GPU runs this code.
- `pinned`: the same with the shared file registered with CUDA, by the learner as well, so that
  no copy goes through a buffer of the driver.
- `cuda_ipc`: `publish` copies from device to device, into tensors of the learner that the worker
  has opened. No host memory is involved; both sides need a GPU, one host and one IPC namespace.
"""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from dexgrasp_sim.config import ConfigError

Slots = Sequence[Mapping[str, Tensor]]
"""For each slot the tensors [n, ...] of a worker's environments, by name."""

CarrierName = Literal["host", "staged", "pinned", "cuda_ipc"]

_BASE64 = "base64:"


class Carrier(Protocol):
    """The way of a worker's slots to the learner.

    Attributes:
        out: Where the environments write, slot by slot.
    """

    out: Slots

    def fetch(self, actions: Tensor) -> Tensor:
        """Actions [n, A] of the shared file, where the environments compute."""
        ...

    def publish(self, slot: int) -> None:
        """Returns when what the environments wrote stands in the learner's slot."""
        ...


class InPlace:
    """The environments write where the learner reads."""

    def __init__(self, slots: Slots) -> None:
        """Takes the slots, views of tensors that both sides map."""
        self.out = slots

    def fetch(self, actions: Tensor) -> Tensor:
        """See `Carrier`."""
        return actions

    def publish(self, slot: int) -> None:
        """See `Carrier`; nothing is to be done."""


class Staged:
    """The environments write into one set of tensors on their device, from which slots are filled.

    The copy is queued behind what the environments have queued on the same stream, so that their
    kernels need no other synchronisation; one event per step is waited for.
    """

    def __init__(self, slots: Slots, device: torch.device | str, pin: bool = False) -> None:
        """Allocates the tensors that all slots share.

        Args:
            slots: Where the learner reads: mapped memory, or memory of its GPU.
            device: Where the environments compute.
            pin: Whether to register mapped slots with CUDA, where the device is a GPU; they stay
                so until the process ends.
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

    def fetch(self, actions: Tensor) -> Tensor:
        """See `Carrier`."""
        return actions.to(self._device, non_blocking=True)

    def publish(self, slot: int) -> None:
        """See `Carrier`."""
        for name, tensor in self._slots[slot].items():
            tensor.copy_(self.out[slot][name], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
            self._copied.synchronize()


def make_carrier(slots: Slots, orders: Mapping[str, Any]) -> Carrier:
    """The carrier of a worker.

    Args:
        slots: Its rows of the shared file, slot by slot.
        orders: From the learner: `carrier`, by default `host`; `device`, where the environments
            compute; for `cuda_ipc` also `handles`, see `ipc_handles`, and `rows`, the first of
            its environments and the one after its last.
    """
    name: CarrierName = orders.get("carrier", "host")
    if name == "host":
        return InPlace(slots)
    if name == "cuda_ipc":
        slots = _in_learner(slots, open_ipc_handles(orders["handles"]), slice(*orders["rows"]))
    return Staged(slots, orders["device"], pin=name == "pinned")


def _in_learner(slots: Slots, opened: Mapping[str, Tensor], rows: slice) -> Slots:
    """The same slots, of which the opened tensors [T + 1, N, ...] are the learner's."""
    return [
        {**tensors, **{name: tensor[slot, rows] for name, tensor in opened.items()}}
        for slot, tensors in enumerate(slots)
    ]


class PinnedMemory:
    """A mapping registered with CUDA for as long as this lives: copies to and from it can overlap.

    Without that CUDA copies through a buffer of its own, and the caller waits.
    """

    def __init__(self, tensors: Collection[Tensor]) -> None:
        """Registers the memory between the first and the last byte of contiguous host tensors.

        Raises:
            ConfigError: CUDA refuses.
        """
        begin = min(tensor.data_ptr() for tensor in tensors)
        end = max(tensor.data_ptr() + tensor.nbytes for tensor in tensors)
        # the tensors keep the mapping alive, which must not go before it is unregistered
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
        """Gives the memory back to the ordinary; idempotent."""
        if self._begin is not None:
            runtime: Any = torch.cuda.cudart()
            runtime.cudaHostUnregister(self._begin)
            self._begin = None
        self._tensors = []


def ipc_handles(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What another process needs to open contiguous CUDA tensors, as plain JSON values.

    The tensors must outlive its use of them. `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`
    breaks this where processes may not open each other's file descriptors.
    """
    return {name: _handle_of(tensor) for name, tensor in tensors.items()}


def open_ipc_handles(handles: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that another process has described with `ipc_handles`."""
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
