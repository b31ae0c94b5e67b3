"""Compiles functions with numba and keeps their machine code on disk up to date."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba

_FASTMATH = {
    "nsz",
    "arcp",
    "contract",
    "reassoc",
}  # not nnan, ninf: kernels test for NaN and inf


def source_hash(files: Sequence[Path]) -> int:
    """A number that differs when the content of any of the files differs.

    It is the default of a kernel's last parameter, so the sources become part of the kernel's
    signature, and machine code on disk is not used after any of these files has changed. Numba
    itself checks only the file of the kernel.
    """
    content = b"".join(file.read_bytes() for file in files)
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big")


inline = numba.njit(error_model="numpy", fastmath=_FASTMATH)
"""Compiles a function that kernels call."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function at its first call; it runs without Python's global lock.

    The machine code is stored beside the source or in the user's cache folder. If neither can be
    written, each process compiles again.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FASTMATH}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for the cache
        return numba.njit(**options)(function)
