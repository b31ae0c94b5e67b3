"""Images that stay in host memory while the nets compute on another device."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class ImagePrefetch:
    """Copies the images of some environments to the device, one piece ahead.

    While the nets compute on one piece, the next one is gathered into page-locked memory and
    copied on a separate CUDA stream. The device holds the images of two pieces instead of those of
    a whole rollout. Without a GPU the same steps run one after the other.
    """

    def __init__(self, images: Mapping[str, Tensor], horizon: int, device: torch.device) -> None:
        """Copies nothing yet.

        Args:
            images: Name to [T + 1, N, ...] in host memory.
            horizon: T.
            device: Where the nets compute.
        """
        self._images = {name: image[:horizon] for name, image in images.items()}
        self._device = device
        self._has_stream = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._has_stream else None
        self._arrived: list[torch.cuda.Event | None] = [None, None]
        self._staging: list[dict[str, Tensor]] = [{}, {}]
        self._received: list[dict[str, Tensor]] = [{}, {}]

    def pieces(self, indices: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        """Images [T, n, ...] on the device for each piece of environments (int64 [n]).

        A piece may be used until the next one is requested.
        """
        if indices:
            self._fetch(0, indices[0])
        for number, envs in enumerate(indices):
            if number + 1 < len(indices):
                self._fetch(number + 1, indices[number + 1])
            arrived = self._arrived[number % 2]
            if arrived is not None:
                arrived.wait()
            yield {
                name: _first(buffer, image, len(envs))
                for (name, image), buffer in zip(
                    self._images.items(), self._received[number % 2].values()
                )
            }

    def _fetch(self, number: int, envs: Tensor) -> None:
        turn = number % 2
        arrived = self._arrived[turn]
        if arrived is not None:
            arrived.synchronize()  # the copy from this staging memory may not be finished
        if self._stream is not None:
            # wait for computations that still read the piece before last from this memory
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        envs = envs.to("cpu")
        for name, image in self._images.items():
            staged = self._buffer(self._staging[turn], name, image, len(envs), on_device=False)
            received = self._buffer(self._received[turn], name, image, len(envs), on_device=True)
            torch.index_select(image, 1, envs, out=staged)
            with self._on_stream():
                received.copy_(staged, non_blocking=True)
        if self._stream is not None:
            event = torch.cuda.Event()
            event.record(self._stream)
            self._arrived[turn] = event

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream is not None else nullcontext()

    def _buffer(
        self, buffers: dict[str, Tensor], name: str, image: Tensor, envs: int, on_device: bool
    ) -> Tensor:
        """The memory for a piece, reallocated only if the piece is larger than all before it."""
        needed = image.shape[0] * envs * image[0, 0].numel()
        if name not in buffers or buffers[name].numel() < needed:
            buffers[name] = torch.empty(
                needed,
                dtype=image.dtype,
                device=self._device if on_device else "cpu",
                pin_memory=self._has_stream and not on_device,
            )
        return _first(buffers[name], image, envs)


def _first(buffer: Tensor, image: Tensor, envs: int) -> Tensor:
    """The start of a flat buffer as images [T, envs, ...]."""
    shape = (image.shape[0], envs, *image.shape[2:])
    return buffer[: image.shape[0] * envs * image[0, 0].numel()].view(shape)
