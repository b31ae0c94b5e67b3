"""How the tensors of a slot get from the simulator's device to where the learner reads them.

The lock-step protocol is the same for all: a worker says DONE when the slot is complete where the
learner reads it, and nobody waits for anything else. What differs is what happens before that:

- `host`: the environments write into the shared file; nothing is left to do.
- `pinned`: the environments write on their own device, from where `publish` copies into the
  shared file, which both sides have registered with CUDA; so does the learner's copy to its own.
- `cuda_ipc`: `publish` copies from device to device, into tensors of the learner that the worker
  has opened. No host memory is involved; both sides need a GPU, one host and one IPC namespace.

A learner without GPU may have workers that compute elsewhere than in the shared file: that is
`pinned` with nothing registered, and what the tests of a machine without GPU run.
"""

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError

Slots = Sequence[Mapping[str, Tensor]]
"""For each slot the tensors [n, ...] of a worker's environments, by name."""

CarrierName = Literal["host", "pinned", "cuda_ipc"]
CARRIERS: tuple[CarrierName, ...] = ("host", "pinned", "cuda_ipc")


class Carrier(Protocol):
    """The way of a worker's slots to the learner.

    Attributes:
        out: Where the environments write, slot by slot.
    """

    out: Slots

    def publish(self, slot: int) -> None:
        """Returns when what the environments wrote stands in the learner's slot."""
        ...


class InPlace:
    """The environments write where the learner reads."""

    def __init__(self, slots: Slots) -> None:
        """Takes the slots, views of tensors that both sides map."""
        self.out = slots

    def publish(self, slot: int) -> None:
        """See `Carrier`; nothing is to be done."""


class Staged:
    """The environments write into one set of tensors on their device, from which slots are filled.

    The copy is queued behind what the environments have queued on the same stream, so that their
    kernels need no other synchronisation; one event per step is waited for.
    """

    def __init__(self, slots: Slots, device: torch.device | str) -> None:
        """Allocates the tensors that all slots share.

        Args:
            slots: Where the learner reads: mapped memory, or memory of its GPU.
            device: Where the environments compute.
        """
        self._slots = slots
        device = torch.device(device)
        stage = {name: torch.zeros_like(t, device=device) for name, t in slots[0].items()}
        self.out = [stage] * len(slots)
        self._copied = torch.cuda.Event() if device.type == "cuda" else None

    def publish(self, slot: int) -> None:
        """See `Carrier`."""
        for name, tensor in self._slots[slot].items():
            tensor.copy_(self.out[slot][name], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
            self._copied.synchronize()


class PinnedMemory:
    """A mapping registered with CUDA for as long as this lives: copies to and from it can overlap.

    Without that CUDA copies through a buffer of its own, and the caller waits.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Registers the memory between the first and the last byte of tensors on the host.

        Raises:
            ConfigError: CUDA refuses.
        """
        begin = min(tensor.data_ptr() for tensor in tensors.values())
        end = max(tensor.data_ptr() + tensor.nbytes for tensor in tensors.values())
        # the tensors keep the mapping alive, which must not go before it is unregistered
        self._tensors = dict(tensors)
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
        self._tensors = {}


def ipc_handles(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What another process needs to open contiguous CUDA tensors, as plain JSON values.

    The tensors must outlive its use of them. `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`
    breaks this where processes may not open each other's file descriptors.
    """
    return {name: _handle_of(tensor) for name, tensor in tensors.items()}


def open_ipc_handles(handles: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that another process has described with `ipc_handles`."""
    return {name: _open(handle) for name, handle in handles.items()}


# torch pickles exactly these nine values to share a CUDA tensor (torch.multiprocessing.reductions)
def _handle_of(tensor: Tensor) -> dict[str, Any]:
    storage: Any = tensor.untyped_storage()
    parts = [
        {"base64": base64.b64encode(part).decode()} if isinstance(part, bytes) else part
        for part in storage._share_cuda_()
    ]
    return {
        "storage": parts,
        "offset": tensor.storage_offset(),
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
    }


def _open(handle: Mapping[str, Any]) -> Tensor:
    parts = [
        base64.b64decode(part["base64"]) if isinstance(part, dict) else part
        for part in handle["storage"]
    ]
    torch.cuda.init()
    storage: Any = torch.UntypedStorage
    opened = storage._new_shared_cuda(*parts)
    dtype = getattr(torch, handle["dtype"])
    tensor = torch.empty(0, dtype=dtype, device=opened.device)
    shape = torch.Size(handle["shape"])
    return tensor.set_(opened, handle["offset"], shape)
