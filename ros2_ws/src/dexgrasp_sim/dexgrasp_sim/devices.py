"""What devices can do, and operations for which the host may have to wait for one."""

from functools import cache
from importlib.util import find_spec

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


@cache
def has_warp_kernels(device: torch.device) -> bool:
    """Whether kernels of Warp do what takes many operations of tensors: on GPUs that have it."""
    return device.type == "cuda" and find_spec("warp") is not None


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices.

    Processors without them take longer than with float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
