"""The pool's tensors on the learner's device."""

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

    If the learner computes on the pool's device, these are the pool's own tensors. Otherwise they
    are copies that are filled slot by slot. Images can be left out of the copies: they are then
    copied to the device slot by slot to act, and piece by piece to learn (see `image_storage`).

    Attributes:
        pool: Observations and results [T + 1, N, ...] and `actions` [T, N, A] of the pool; empty
            without a pool to copy from.
        tensors: The same names and shapes, as the learner reads them.
        groups: Names of the observations among them.
        in_host: Image groups that stay in the pool's memory.
        device: Where the learner computes.
        present: Images [1, N, ...] of `in_host` from the slot received last, on the device.
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
        """A mirror of a pool's tensors; arguments as for `Rollout.on`."""
        tensors = {"valid": torch.ones_like(tensors["terminated"]), **tensors}
        pool = {name: tensors[name] for name in (*groups, *RESULTS, "actions")}
        images = tuple(name for name in groups if tensors[name].dim() > 3)
        in_host = images if image_storage == "host" else ()
        local = {
            name: tensor if name in in_host else tensor.to(device) for name, tensor in pool.items()
        }
        return Mirror(pool, local, tuple(groups), in_host, device)

    def receive(self, slot: int) -> None:
        """Copies a slot that the pool has completed, if the learner has its own tensors.

        Copies to a GPU are only queued, before the kernels that read them on the same stream. The
        workers overwrite the slot only after they receive actions that left the GPU after these
        copies, so no synchronisation is needed.
        """
        for name in (*self.groups, *RESULTS):
            if self.tensors[name] is not self.pool[name]:
                self.tensors[name][slot].copy_(self.pool[name][slot], non_blocking=True)
        for name in self.in_host:
            image = self.pool[name][slot : slot + 1]
            self.present[name] = image.to(self.device, non_blocking=True)

    def publish_actions(self, slot: int, actions: Tensor) -> None:
        """Writes actions [N, A] to the learner's tensor and to the one that the pool sends."""
        self.tensors["actions"][slot] = actions
        sent = self.pool["actions"]
        if sent is not self.tensors["actions"]:
            sent[slot] = actions.to(sent.device)

    def rows(self, envs: slice) -> "Mirror":
        """A mirror of some of the environments that shares this one's memory."""
        pool = {name: tensor[:, envs] for name, tensor in self.pool.items()}
        tensors = {
            name: pool[name] if tensor is self.pool[name] else tensor[:, envs]
            for name, tensor in self.tensors.items()
        }
        return replace(self, pool=pool, tensors=tensors, present={})

    def detached(self) -> "Mirror":
        """A mirror of the same sizes without a pool, to be filled by `copy_`.

        Its tensors in host memory are page-locked if the learner computes on a GPU.
        """
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
