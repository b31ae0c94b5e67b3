"""One rollout: the pool's tensors as the learner reads them, and the learner's own tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from dexgrasp_learner.rollout.mirror import Mirror
from dexgrasp_learner.rollout.own_tensors import OwnTensors
from dexgrasp_learner.timing import Stopwatch


@dataclass
class Rollout:
    """T steps of N environments, plus the slot after them; `on` makes one.

    The observations are in the pool's tensors and are not copied, unless the learner computes
    on another device, see `Mirror`.

    Attributes:
        mirror: The pool's tensors on the learner's device.
        own: What the learner adds to each step.
        memory: Net name to float32 [2, N, H], the memory after the newest step.
        start_memory: As `memory`, before step 0.
        log_std: float32 [A], of the distribution that drew the actions.
        valid: bool [T, N], False where action t has no real result, for example because its
            simulator failed; None if all are valid. Set when the last slot is received.
        stopwatch: Measures copies to another device, as stage `copy`.
    """

    mirror: Mirror
    own: OwnTensors
    memory: dict[str, Tensor]
    start_memory: dict[str, Tensor]
    log_std: Tensor
    valid: Tensor | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @staticmethod
    def on(
        tensors: Mapping[str, Tensor],
        groups: Sequence[str],
        memory_sizes: Mapping[str, int],
        device: torch.device | str = "cpu",
        image_storage: Literal["device", "host"] = "device",
        stopwatch: Stopwatch | None = None,
    ) -> "Rollout":
        """A rollout on the tensors of an environment pool.

        Args:
            tensors: Observation groups and results [T + 1, N, ...], `actions` [T, N, A]. Without
                `valid` all results are valid.
            groups: Observation groups that the learner reads.
            memory_sizes: Name of each net that acts during the rollout to the width of its memory
                (0 without one).
            device: Where the learner computes.
            image_storage: `host` leaves the images in the pool's memory, even if that is the same
                device: the same steps then run as on a GPU.
            stopwatch: Measures copies, as stage `copy`.
        """
        device = torch.device(device)
        horizon, num_envs, action_dim = tensors["actions"].shape
        memory = {
            name: torch.zeros(2, num_envs, size, device=device)
            for name, size in memory_sizes.items()
        }
        return Rollout(
            mirror=Mirror.of(tensors, groups, device, image_storage),
            own=OwnTensors.zeros(horizon, num_envs, action_dim, device),
            memory=memory,
            start_memory=_copies(memory),
            log_std=torch.zeros(action_dim, device=device),
            stopwatch=stopwatch or Stopwatch(),
        )

    @property
    def horizon(self) -> int:
        """T."""
        return self.actions.shape[0]

    @property
    def num_envs(self) -> int:
        """N."""
        return self.actions.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the learner computes."""
        return self.mirror.device

    @property
    def observations(self) -> dict[str, Tensor]:
        """Group name to [T + 1, N, ...], in its stored type and on the device that stores it."""
        return {name: self.mirror.tensors[name] for name in self.mirror.groups}

    @property
    def actions(self) -> Tensor:
        """float32 [T, N, A], what was sent to the environments (not clipped)."""
        return self.mirror.tensors["actions"]

    @property
    def rewards(self) -> Tensor:
        """Rewards of the actions, float32 [T, N]."""
        return self.mirror.tensors["reward"][1:]

    @property
    def terminated(self) -> Tensor:
        """Whether action t ended the episode for a reason of the task, bool [T, N]."""
        return self.mirror.tensors["terminated"][1:]

    @property
    def truncated(self) -> Tensor:
        """Whether the episode was cut off after action t, bool [T, N]."""
        return self.mirror.tensors["truncated"][1:]

    def receive(self, slot: int) -> None:
        """Reads a slot that the pool has completed; slot 0 begins a new rollout."""
        with self.stopwatch.measure("copy"):
            self.mirror.receive(slot)
        tensors = self.mirror.tensors
        torch.logical_or(
            tensors["terminated"][slot], tensors["truncated"][slot], out=self.own.start[slot]
        )
        if slot == 0:
            self.valid = None
            for name, memory in self.memory.items():
                self.start_memory[name].copy_(memory)
        if slot == self.horizon:
            valid = tensors["valid"][1:]
            self.valid = None if valid.all() else valid

    def publish_actions(self, slot: int, actions: Tensor) -> None:
        """Writes actions [N, A] to the tensor that the pool sends."""
        self.mirror.publish_actions(slot, actions)

    def slot(self, slot: int) -> tuple[dict[str, Tensor], Tensor]:
        """Observations [1, N, ...] (views) and start flags [1, N] of the slot received last."""
        observations = {name: t[slot : slot + 1] for name, t in self.observations.items()}
        return {**observations, **self.mirror.present}, self.own.start[slot : slot + 1]

    def flat_observations(self, slot: int) -> dict[str, Tensor]:
        """Flat observations [1, n, P] from which a valid step was made; n may be 0."""
        flat = {name: t[slot : slot + 1] for name, t in self.observations.items() if t.dim() == 3}
        if self.valid is None:
            return flat
        valid = self.valid[slot]
        return {name: t[:, valid] for name, t in flat.items()}

    def part(self, envs: slice) -> "Rollout":
        """A rollout of the environments [start, stop) on the same tensors, to act for them alone.

        Only `memory` becomes separate when the part acts; `join` copies it back.
        """
        return replace(
            self,
            mirror=self.mirror.rows(envs),
            own=self.own.map(lambda tensor: tensor[:, envs]),
            memory={name: memory[:, envs] for name, memory in self.memory.items()},
            start_memory={name: memory[:, envs] for name, memory in self.start_memory.items()},
        )

    def join(self, parts: Sequence["Rollout"]) -> None:
        """Concatenates the memories of parts that cover all environments in order."""
        for name in self.memory:
            self.memory[name] = torch.cat([part.memory[name] for part in parts], 1)

    def twin(self) -> "Rollout":
        """A rollout of the same size with separate tensors, to be filled by `take`, not to act."""
        return replace(
            self,
            mirror=self.mirror.detached(),
            own=self.own.map(torch.clone),
            memory=_copies(self.memory),
            start_memory=_copies(self.start_memory),
        )

    def take(self, other: "Rollout") -> None:
        """Copies a finished rollout, of which this one is the `twin`."""
        self.mirror.copy_(other.mirror)
        self.own.copy_(other.own)
        for name, memory in self.start_memory.items():
            memory.copy_(other.start_memory[name])
        self.log_std = other.log_std
        self.valid = None if other.valid is None else self.mirror.tensors["valid"][1:]

    def state_dict(self) -> dict[str, Tensor]:
        """The memories, which are all that the next rollout needs besides the pool's state."""
        return _copies(self.memory)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        for name, memory in self.memory.items():
            memory.copy_(state[name])


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
