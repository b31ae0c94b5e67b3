"""A tape stands in for a CUDA graph where there is no GPU.

It notes every operation with the memory it uses, and a replay runs them again on that memory. So,
as in a graph, values that Python held then are fixed.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from dexgrasp_sim import device_graphs


class NoHostReads(TorchDispatchMode):
    """Refuses what makes the host wait for a device: answers, and data of the host.

    On `meta` tensors `.numpy()` fails too.
    """

    _REFUSED = frozenset(
        {
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "_unique2",
            "equal",
            "lift_fresh",
            "_pin_memory",
        }
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, if it needs no answer."""
        name = func.overloadpacket.__name__
        if name in self._REFUSED:
            raise AssertionError(f"{name} reads from the device")
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """The operations of a function; refuses those that a CUDA graph cannot hold."""

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]
    ) -> None:
        """Notes what `function` does with tensors, when it is called for the second time."""
        super().__init__()
        function(*inputs)
        self._noted: list[tuple[Any, Any, dict[str, Any], Any]] = []
        with NoHostReads(), self:
            self.outputs = function(*inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Notes an operation."""
        result = func(*args, **(kwargs or {}))
        memory = (args, kwargs or {}, result)
        self._noted.append((func, *tree_map_only(Tensor, Tensor.detach, memory)))
        return result

    def replay(self) -> None:
        """Does it again, on the same memory."""
        for func, args, kwargs, result in self._noted:
            is_view = func.is_view or func.overloadpacket.__name__ in ("_unsafe_view", "view")
            if is_view or "empty" in func.overloadpacket.__name__:
                continue
            again = func(*args, **kwargs)
            for before, now in zip(tensors_of(result), tensors_of(again), strict=True):
                if before.data_ptr() != now.data_ptr():  # in place it is there already
                    before.copy_(now)


def record_tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Lets the CPU record as a GPU does; the tapes as they are made."""
    tapes: list[Tape] = []

    def record(function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> Tape:
        tapes.append(Tape(function, inputs))
        return tapes[-1]

    monkeypatch.setitem(device_graphs.RECORDERS, "cpu", record)
    return tapes


def nothing_recorded() -> AbstractContextManager[Any]:
    """Inside, every device calls what it would replay."""
    return mock.patch.dict(device_graphs.RECORDERS, clear=True)


def tensors_of(result: Any) -> list[Tensor]:
    """A tensor or several, as a list."""
    return [result] if isinstance(result, torch.Tensor) else list(result)
