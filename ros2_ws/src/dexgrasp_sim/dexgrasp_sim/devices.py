"""Operations for which the host may have to wait for a device."""

import torch
from torch import Tensor


def rows_of(mask: Tensor) -> Tensor:
    """Indices [K] int64 of the true elements of a mask [N] bool.

    K depends on data, so on a GPU the host waits here for the device. A control step does this
    once, to find the episodes that have ended.
    """
    return mask.nonzero().squeeze(1)


def known_empty(mask: Tensor) -> bool:
    """Whether no element of a mask on the CPU is true; always False on other devices.

    It never waits for a device. Use it only for shortcuts that do not change results.
    """
    return mask.device.type == "cpu" and not mask.any()


def rows_to_compute(mask: Tensor) -> Tensor:
    """Indices [K] int64 of rows that include all true elements of a mask [N] bool.

    On the CPU only the true ones; on other devices all rows, so that the host need not wait. For
    results that are discarded where the mask is false.
    """
    if mask.device.type == "cpu":
        return rows_of(mask)
    return torch.arange(len(mask), device=mask.device)
