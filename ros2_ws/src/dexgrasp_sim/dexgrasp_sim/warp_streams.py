"""Warp in the streams of torch."""

import torch
import warp as wp

_streams: dict[tuple[int, int], wp.Stream] = {}


def current_stream(device: wp.Device) -> wp.Stream | None:
    """Torch's current stream of a GPU as Warp's; made once, as that takes tens of microseconds.

    None for the CPU, which has no streams.
    """
    if not device.is_cuda:
        return None
    stream = torch.cuda.current_stream(device.ordinal)
    key = device.ordinal, stream.cuda_stream
    if key not in _streams:
        _streams[key] = wp.stream_from_torch(stream)
    return _streams[key]
