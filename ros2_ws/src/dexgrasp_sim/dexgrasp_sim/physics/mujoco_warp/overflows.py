"""Reports of buffers that were too small, without waiting for the device."""

import sys

import mujoco_warp as mjw
import torch
from torch import Tensor

_SETTINGS = {
    "njmax": mjw.OverflowType.NEFC | mjw.OverflowType.NJMAX_NNZ,
    "nconmax": mjw.OverflowType.BROADPHASE | mjw.OverflowType.NARROWPHASE,
    "nccdmax": mjw.OverflowType.CCD,
}
"""Bits of `Data.overflow` by the setting that sizes the buffer."""


class Overflows:
    """Counts the episodes in which contacts or constraints were left out.

    Attributes:
        counts: Episodes by setting, as far as they are known on the host.
    """

    def __init__(self, bits: Tensor) -> None:
        """`bits` [N] int32 is `Data.overflow`, which gathers bits until it is cleared."""
        self._bits = bits
        self.counts = dict.fromkeys(_SETTINGS, 0)
        self._masks = torch.tensor([int(mask) for mask in _SETTINGS.values()], device=bits.device)
        self._total = torch.zeros(len(_SETTINGS), dtype=torch.int64, device=bits.device)
        pinned = bits.device.type == "cuda"
        self._seen = torch.zeros(len(_SETTINGS), dtype=torch.int64, pin_memory=pinned)
        self._copied = torch.cuda.Event() if pinned else None
        self._told: set[str] = set()

    def collect(self, env_ids: Tensor) -> None:
        """Counts and clears the bits of environments [K] whose episodes end.

        The host sees a count at one of the next calls, when its copy has arrived.
        """
        bits = self._bits[env_ids].unsqueeze(1)  # [K, 1]
        self._total += ((bits & self._masks) != 0).sum(0)
        self._bits.index_fill_(0, env_ids, 0)
        if self._copied is None or self._copied.query():
            self._tell()
            self._seen.copy_(self._total, non_blocking=True)
            if self._copied is not None:
                self._copied.record()

    def _tell(self) -> None:
        self.counts = dict(zip(_SETTINGS, self._seen.tolist(), strict=True))
        for setting, count in self.counts.items():
            if count and setting not in self._told:
                self._told.add(setting)
                print(
                    f"mujoco_warp: {count} episodes had more contacts than fit; raise "
                    f"task.physics.mujoco_warp.{setting}",
                    file=sys.stderr,
                    flush=True,
                )
