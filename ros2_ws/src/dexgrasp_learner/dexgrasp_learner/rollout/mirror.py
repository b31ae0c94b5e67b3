"""The pool's tensors where the learner computes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

RESULTS = ("reward", "terminated", "truncated", "valid")
"""Results of the environments that the learner reads, beside its observation groups."""


@dataclass(frozen=True)
class Mirror:
    """The pool's tensors as the learner reads them.

    They are the pool's own where the learner computes on their device. Elsewhere they are copies,
    filled slot by slot. Images can be left out of the copies: they then come to the device slot by
    slot to act, and piece by piece to learn (see `image_storage`).

    Attributes:
        pool: Observations and results [T + 1, N, ...] and `actions` [T, N, A] of the pool; empty
            where there is no pool to copy from.
        tensors: The same by the same names, where the learner reads them.
        groups: Which of them are observations.
        in_host: Groups of images that stay where the pool has them.
        device: Where the learner computes.
        present: Images [1, N, ...] of `in_host` in the slot received last, on the device.
    """

    pool: dict[str, Tensor]
    tensors: dict[str, Tensor]
    groups: tuple[str, ...]
    in_host: tuple[str, ...]
    device: torch.device
    present: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(
        tensors: Mapping[str, Tensor],
        groups: Sequence[str],
        device: torch.device,
        image_storage: Literal["device", "host"],
    ) -> "Mirror":
        """Of a pool's tensors; arguments as for `Rollout.on`."""
        tensors = {"valid": torch.ones_like(tensors["terminated"]), **tensors}
        pool = {name: tensors[name] for name in (*groups, *RESULTS, "actions")}
        images = tuple(name for name in groups if tensors[name].dim() > 3)
        in_host = images if image_storage == "host" else ()
        local = {
            name: tensor if name in in_host else tensor.to(device) for name, tensor in pool.items()
        }
        return Mirror(pool, local, tuple(groups), in_host, device)

    def receive(self, slot: int) -> None:
        """Takes over a slot that the pool has completed.

        A copy is only queued, in front of what reads it on the same stream. The workers write the
        slot again after actions that have left the GPU later, so that nobody waits.
        """
        for name in (*self.groups, *RESULTS):
            if self.tensors[name] is not self.pool[name]:
                self.tensors[name][slot].copy_(self.pool[name][slot], non_blocking=True)
        for name in self.in_host:
            image = self.pool[name][slot : slot + 1]
            self.present[name] = image.to(self.device, non_blocking=True)

    def publish_actions(self, slot: int, actions: Tensor) -> None:
        """Writes actions [N, A] where the learner has them and where the pool sends them from."""
        self.tensors["actions"][slot] = actions
        sent = self.pool["actions"]
        if sent is not self.tensors["actions"]:
            sent[slot] = actions.to(sent.device)

    def rows(self, envs: slice) -> "Mirror":
        """The same of some environments, on the same memory."""
        pool = {name: tensor[:, envs] for name, tensor in self.pool.items()}
        tensors = {
            name: pool[name] if tensor is self.pool[name] else tensor[:, envs]
            for name, tensor in self.tensors.items()
        }
        return replace(self, pool=pool, tensors=tensors, present={})

    def detached(self) -> "Mirror":
        """Memory of the same sizes without a pool, for `copy_`; page-locked where a GPU reads."""
        has_gpu = self.device.type == "cuda"
        tensors = {
            name: torch.empty_like(tensor, pin_memory=has_gpu and tensor.device.type == "cpu")
            for name, tensor in self.tensors.items()
        }
        return replace(self, pool={}, tensors=tensors, present={})

    def copy_(self, other: "Mirror") -> None:
        """Overwrites the tensors with those of another mirror of the same sizes."""
        for name, tensor in self.tensors.items():
            tensor.copy_(other.tensors[name])
