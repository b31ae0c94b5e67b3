"""Where the host would have to wait for a device, and how tensor code avoids it."""

import torch
from torch import Tensor


def rows_of(mask: Tensor) -> Tensor:
    """Indices [K] int64 of the true elements of a mask [N] bool.

    K is data: on a GPU the host waits here for the device. A control step does so once, to learn
    which episodes have ended.
    """
    return mask.nonzero().squeeze(1)


def known_empty(mask: Tensor) -> bool:
    """Whether no element is true, where looking costs nothing: on the CPU; elsewhere False.

    For shortcuts that change no result.
    """
    return mask.device.type == "cpu" and not mask.any()


def rows_to_compute(mask: Tensor) -> Tensor:
    """Indices [K] int64 of rows among which are all true elements of a mask [N] bool.

    On the CPU, where looking costs nothing, just those; elsewhere all rows. For work whose result
    is thrown away where the mask is false.
    """
    if mask.device.type == "cpu":
        return rows_of(mask)
    return torch.arange(len(mask), device=mask.device)
