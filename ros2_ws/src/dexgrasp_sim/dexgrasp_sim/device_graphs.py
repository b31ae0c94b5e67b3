"""Functions whose many small kernels a GPU runs from a recording, a CUDA graph.

Launched one by one from Python, a kernel costs the host ten to twenty microseconds, whatever it
does. A replay costs one launch for all of them, and on the device some two microseconds for each:
parts of hundreds of kernels are compiled to a few.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from typing_extensions import override

Function = Callable[..., tuple[Tensor, ...]]
_LEAST_ROWS, _GROWTH = 64, 4
"""The smallest number of rows that is recorded where any may come, and the next over the last."""
_thread = threading.local()
"""`recording`: whether this thread records. Then functions are called: a recording cannot hold the
replay of another one."""


class Recording(Protocol):
    """What a function did once with its inputs' memory, to be done again with new values there.

    Attributes:
        outputs: What the function returned; a replay writes them anew.
    """

    outputs: tuple[Tensor, ...]

    def replay(self) -> None:
        """Does it again; does not wait for the end."""
        ...


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings, because torch keeps the memory of each stream apart."""
    return torch.cuda.Stream(device)


class CudaGraph(Recording):
    """A CUDA graph, captured after a run on the same stream that loads the kernels."""

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        """Args:
        function: Runs kernels on the inputs' device only and never waits for it.
        inputs: Tensors that stay where they are.
        """
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device):
            stream = _side_stream(inputs[0].device)
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                function(*inputs)
                # thread_local: other threads may use the GPU meanwhile
                self._graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self.outputs = function(*inputs)
                finally:
                    self._graph.capture_end()
            torch.cuda.current_stream().wait_stream(stream)

    @override
    def replay(self) -> None:
        self._graph.replay()


RECORDERS: dict[str, Callable[[Function, Sequence[Tensor]], Recording]] = {"cuda": CudaGraph}
"""How a function is recorded, by type of device; on others it is called."""

FUSERS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "cuda": partial(torch.compile, fullgraph=True, dynamic=False)
}
"""What compiles a function, by type of device."""
_TOLERANCE = {"rtol": 1e-3, "atol": 1e-4, "equal_nan": True}


class Fused:
    """A part of a recorded function, compiled by torch when it is recorded.

    That takes seconds for each shape; torch keeps the result on disk. The results of the first
    call are compared with the function's own. If they differ, or if it cannot be compiled, one
    line says so, and the function is called from then on, as it is outside of recordings.
    """

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        """Takes a pure function of tensors and named tuples of tensors."""
        self._function = self._chosen = function
        self._is_tried = False

    def __call__(self, *inputs: Any) -> Any:
        """The function's result."""
        if not getattr(_thread, "recording", False):
            return self._function(*inputs)
        if not self._is_tried:
            self._is_tried = True
            self._try(inputs)
        return self._chosen(*inputs)

    def _try(self, inputs: Sequence[Any]) -> None:
        wanted = self._function(*inputs)
        device = _tensors(wanted)[0].device.type
        if device not in FUSERS:
            return
        compiled = FUSERS[device](self._function)
        try:
            found = compiled(*inputs)
        except Exception as error:  # of the many kinds that torch.compile raises
            self._say(str(error))
            return
        pairs = zip(_tensors(found), _tensors(wanted), strict=True)
        if all(torch.allclose(own, other, **_TOLERANCE) for own, other in pairs):
            self._chosen = compiled
        else:
            self._say("its results differ")

    def _say(self, reason: str) -> None:
        _tell(f"{_name(self._function)} is not compiled", reason)


class Captured:
    """A pure function of tensors with rows, which a GPU replays from its second call on.

    Each number of rows is recorded once. On the CPU the function is called. If a recording fails,
    one line says why, and the function is called from then on.
    """

    def __init__(self, function: Function, any_rows: bool = False) -> None:
        """Args:
        function: Takes tensors [K, ...] on one device and returns a tuple of tensors [K, ...] that
            depend on them, and on values that never change or change in place. It must be fit for
            a CUDA graph: it reads no value on the host and makes no tensor from host data. It may
            overwrite its inputs where it does not return them.
        any_rows: K differs from call to call, and each row's results depend on that row alone.
            Then some sizes are recorded, of which the next larger one serves a call.
        """
        self._function, self._any_rows = function, any_rows
        self._recorded: dict[tuple[object, ...], _Replay | None] = {}
        self._constants: dict[str, float] = {}
        self._works = True

    def __call__(self, *inputs: Tensor, **constants: float) -> tuple[Tensor, ...]:
        """The function's results, new tensors.

        Args:
            *inputs: The function's.
            **constants: Further arguments of the function, which a recording fixes; what was
                recorded with other ones is forgotten.
        """
        device, rows = inputs[0].device, len(inputs[0])
        function = partial(self._function, **constants)
        recording = getattr(_thread, "recording", False)
        if recording or device.type not in RECORDERS or not self._works or rows == 0:
            return function(*inputs)
        if constants != self._constants:
            self._recorded.clear()
            self._constants = constants
        size = _size_for(rows) if self._any_rows else rows
        key = (size, device, *((tensor.shape[1:], tensor.dtype) for tensor in inputs))
        if key not in self._recorded:
            self._recorded[key] = None
            return function(*inputs)
        replay = self._recorded[key]
        if replay is None:
            try:
                replay = self._recorded[key] = _Replay(function, inputs, size)
            except RuntimeError as error:
                self._give_up(error)
                return function(*inputs)
        return replay(inputs)

    def _give_up(self, error: RuntimeError) -> None:
        self._works = False
        self._recorded.clear()
        _tell(f"{_name(self._function)} runs without a CUDA graph", str(error))


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _tell(what: str, reason: str) -> None:
    """One line for what makes a run slower."""
    line = reason.strip().partition("\n")[0]
    print(f"dexgrasp: {what}, which is slower: {line}", file=sys.stderr, flush=True)


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _size_for(rows: int) -> int:
    size = _LEAST_ROWS
    while size < rows:
        size *= _GROWTH
    return size


class _Replay:
    """A recording with memory for its inputs."""

    def __init__(self, function: Function, like: Sequence[Tensor], rows: int) -> None:
        device = like[0].device
        # tensors of the inference mode could not be used outside of it
        with torch.inference_mode(False), torch.no_grad():
            self._inputs = [
                torch.zeros(rows, *tensor.shape[1:], dtype=tensor.dtype, device=device)
                for tensor in like
            ]
            _copy([own[: len(like[0])] for own in self._inputs], like)
            _thread.recording = True
            try:
                self._recording = RECORDERS[device.type](function, self._inputs)
            finally:
                _thread.recording = False

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        rows = len(inputs[0])
        _copy([own[:rows] for own in self._inputs], inputs)
        self._recording.replay()
        outputs = [output[:rows] for output in self._recording.outputs]
        results = [torch.empty_like(output) for output in outputs]
        _copy(results, outputs)
        return tuple(results)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies tensors to others, on a GPU by one launch for all of a type."""
    of_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        pair = of_type.setdefault(target.dtype, ([], []))
        pair[0].append(target)
        pair[1].append(source)
    for own, given in of_type.values():
        torch._foreach_copy_(own, given)
