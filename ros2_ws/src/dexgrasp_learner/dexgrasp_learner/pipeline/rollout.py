"""One rollout: the pool's tensors as the learner sees them, and what only the learner knows."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dexgrasp_learner.pipeline.image_storage import ImagePrefetch
from dexgrasp_learner.run.stopwatch import Stopwatch

_RESULTS = ("reward", "terminated", "truncated", "valid")
_PRIVATE = ("start", "mean", "log_prob", "values", "returns", "advantages")
_IMAGES_AT_ONCE = {"cpu": 256, "cuda": 4096}
"""Images in a micro-batch where the settings do not say. On the CPU 256 need less than half the
memory of 1024 and little more time, see `dexgrasp bench learner`; a GPU needs more to be busy, how
many was not measured."""


@dataclass(frozen=True)
class Batch:
    """All T steps of some environments (n of them); fields as in `Rollout`.

    Attributes:
        observations: Group name to [T, n, ...].
        start: bool [T, n].
        memory: Net name to float32 [2, n, H], the memory before step 0.
        actions: float32 [T, n, A].
        mean: float32 [T, n, A].
        log_prob: float32 [T, n].
        values: float32 [T, n].
        returns: float32 [T, n].
        advantages: float32 [T, n].
        valid: bool [T, n], or None where all steps of the rollout are.
    """

    observations: dict[str, Tensor]
    start: Tensor
    memory: dict[str, Tensor]
    actions: Tensor
    mean: Tensor
    log_prob: Tensor
    values: Tensor
    returns: Tensor
    advantages: Tensor
    valid: Tensor | None


class Rollout:
    """T steps of N environments, plus the slot after them.

    The observations stand in the pool's tensors and are not copied; only where the learner
    computes on another device, that device holds one mirror of them, filled slot by slot, in which
    images can be left out: they then come to the device slot by slot to act, and piece by piece to
    learn. A batch copies the observations of its own environments only.

    Attributes:
        horizon: T.
        num_envs: N.
        device: Where the learner computes.
        observations: Group name to [T + 1, N, ...] in its stored type, where it is stored.
        start: bool [T + 1, N], True where a slot holds the first observation of an episode.
        actions: float32 [T, N, A], what was sent to the environments (not clipped).
        mean: float32 [T, N, A], mean actions in reinforcement learning, the teacher's actions in
            distillation.
        log_prob: float32 [T, N], log density of the actions when they were drawn.
        values: float32 [T + 1, N], the critic's values, in units of the reward.
        returns: float32 [T, N], targets of the critic.
        advantages: float32 [T, N], normalised.
        valid: bool [T, N], False where action t has no real result, as when its simulator broke;
            None where all have one. Known when the last slot is received.
        log_std: float32 [A], of the distribution that drew the actions.
        memory: Net name to float32 [2, N, H], the memory after the newest step.
        start_memory: As `memory`, before step 0.
        stopwatch: Takes the time of copies to another device, as `copy`.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        groups: Sequence[str],
        memory_sizes: Mapping[str, int],
        device: torch.device | str = "cpu",
        image_storage: Literal["device", "host"] = "device",
    ) -> None:
        """Wraps the tensors of an environment pool.

        Args:
            tensors: Observation groups and results [T + 1, N, ...], `actions` [T, N, A]. Without
                `valid` all results are real.
            groups: Observation groups that the learner reads.
            memory_sizes: Name of each net that acts during the rollout to the width of its memory
                (0 without one).
            device: Where the learner computes.
            image_storage: `host` leaves the images where the pool has them, also if that is the
                same device: the same steps then run as on a GPU.
        """
        self.stopwatch = Stopwatch()
        self.device = torch.device(device)
        self.horizon, self.num_envs, action_dim = tensors["actions"].shape
        tensors = {"valid": torch.ones_like(tensors["terminated"]), **tensors}
        self._pool = {name: tensors[name] for name in (*groups, *_RESULTS, "actions")}
        images = [name for name in groups if tensors[name].dim() > 3]
        self._in_host = images if image_storage == "host" else []
        self._is_mirrored = tensors["actions"].device != self.device
        self._local = dict(self._pool)
        if self._is_mirrored:
            self._local = {
                name: tensor if name in self._in_host else tensor.to(self.device)
                for name, tensor in self._pool.items()
            }
        self._present: dict[str, Tensor] = {}
        self.observations = {name: self._local[name] for name in groups}
        self.actions = self._local["actions"]
        self.valid: Tensor | None = None
        self.log_std = torch.zeros(action_dim, device=self.device)
        self.start = self._private(1, dtype=torch.bool)
        self.mean = self._private(0, action_dim)
        self.log_prob = self._private(0)
        self.values = self._private(1)
        self.returns = self._private(0)
        self.advantages = self._private(0)
        self.memory = {
            name: torch.zeros(2, self.num_envs, size, device=self.device)
            for name, size in memory_sizes.items()
        }
        self.start_memory = {name: memory.clone() for name, memory in self.memory.items()}

    @property
    def rewards(self) -> Tensor:
        """Rewards of the actions, float32 [T, N]."""
        return self._local["reward"][1:]

    @property
    def terminated(self) -> Tensor:
        """Whether action t ended the episode for a reason of the task, bool [T, N]."""
        return self._local["terminated"][1:]

    @property
    def truncated(self) -> Tensor:
        """Whether the episode was cut off after action t, bool [T, N]."""
        return self._local["truncated"][1:]

    def receive(self, slot: int) -> None:
        """Takes over a slot that the pool has completed; at slot 0 a new rollout begins.

        A mirror's copy is only queued, in front of what reads it on the same stream. The workers
        write the slot again after actions that have left the GPU later, so that nobody waits.
        """
        with self.stopwatch.measure("copy"):
            if self._is_mirrored:
                for name in (*self.observations, *_RESULTS):
                    if name not in self._in_host:
                        self._local[name][slot].copy_(self._pool[name][slot], non_blocking=True)
            for name in self._in_host:
                image = self._pool[name][slot : slot + 1]
                self._present[name] = image.to(self.device, non_blocking=True)
        torch.logical_or(
            self._local["terminated"][slot], self._local["truncated"][slot], out=self.start[slot]
        )
        if slot == 0:
            self.valid = None
            for name, memory in self.memory.items():
                self.start_memory[name].copy_(memory)
        if slot == self.horizon:
            valid = self._local["valid"][1:]
            self.valid = None if valid.all() else valid

    def publish_actions(self, slot: int, actions: Tensor) -> None:
        """Writes actions [N, A] where the pool sends them from."""
        self.actions[slot] = actions
        if self._is_mirrored:
            self._pool["actions"][slot] = actions.to(self._pool["actions"].device)

    def slot(self, slot: int) -> tuple[dict[str, Tensor], Tensor]:
        """Observations [1, N, ...] (views) and start flags [1, N] of the slot received last."""
        observations = {name: t[slot : slot + 1] for name, t in self.observations.items()}
        return {**observations, **self._present}, self.start[slot : slot + 1]

    def flat_observations(self, slot: int) -> dict[str, Tensor]:
        """Flat observations [1, n, P] from which a valid step was made; n may be 0."""
        flat = {name: t[slot : slot + 1] for name, t in self.observations.items() if t.dim() == 3}
        if self.valid is None:
            return flat
        valid = self.valid[slot]
        return {name: t[:, valid] for name, t in flat.items()}

    def twin(self) -> "Rollout":
        """A rollout of the same size with memory of its own, for `take`; not for acting."""
        twin = copy.copy(self)
        has_gpu = self.device.type == "cuda"
        twin._local = {
            name: torch.empty_like(tensor, pin_memory=has_gpu and tensor.device.type == "cpu")
            for name, tensor in self._local.items()
        }
        twin._pool, twin._present = {}, {}
        twin.observations = {name: twin._local[name] for name in self.observations}
        twin.actions = twin._local["actions"]
        for name in _PRIVATE:
            setattr(twin, name, getattr(self, name).clone())
        twin.memory = {name: memory.clone() for name, memory in self.memory.items()}
        twin.start_memory = {name: memory.clone() for name, memory in self.memory.items()}
        return twin

    def take(self, other: "Rollout") -> None:
        """Copies another rollout, of which this one is the `twin`, once it is finished."""
        for name, tensor in self._local.items():
            tensor.copy_(other._local[name])
        for name in _PRIVATE:
            getattr(self, name).copy_(getattr(other, name))
        for name, memory in self.start_memory.items():
            memory.copy_(other.start_memory[name])
        self.log_std = other.log_std
        self.valid = None if other.valid is None else self._local["valid"][1:]

    def part(self, envs: slice) -> "Rollout":
        """The environments [start, stop) as a rollout on the same tensors, for them to act alone.

        Only `memory` is the part's own once it has acted; `join` brings it back.
        """
        part = copy.copy(self)
        part._pool = {name: tensor[:, envs] for name, tensor in self._pool.items()}
        part._local = {name: tensor[:, envs] for name, tensor in self._local.items()}
        part._present = {}
        part.observations = {name: part._local[name] for name in self.observations}
        part.actions = part._local["actions"]
        part.num_envs = part.actions.shape[1]
        for name in _PRIVATE:
            setattr(part, name, getattr(self, name)[:, envs])
        part.memory = {name: memory[:, envs] for name, memory in self.memory.items()}
        part.start_memory = {name: memory[:, envs] for name, memory in self.start_memory.items()}
        return part

    def join(self, parts: Sequence["Rollout"]) -> None:
        """Takes over the memories of parts that together are all environments in order."""
        for name in self.memory:
            self.memory[name] = torch.cat([part.memory[name] for part in parts], 1)

    def batch(self, envs: Tensor, images: Mapping[str, Tensor] | None = None) -> Batch:
        """All T steps of the environments with the given indices (int64 [n]).

        Args:
            envs: The indices.
            images: Groups that are on the device already.
        """
        images = images or {}

        def pick(tensor: Tensor) -> Tensor:
            return tensor[: self.horizon].index_select(1, envs.to(tensor.device)).to(self.device)

        return Batch(
            observations={
                name: images[name] if name in images else pick(tensor)
                for name, tensor in self.observations.items()
            },
            start=pick(self.start),
            memory={name: memory[:, envs] for name, memory in self.start_memory.items()},
            actions=pick(self.actions),
            mean=pick(self.mean),
            log_prob=pick(self.log_prob),
            values=pick(self.values),
            returns=pick(self.returns),
            advantages=pick(self.advantages),
            valid=None if self.valid is None else pick(self.valid),
        )

    def batches(self, minibatches: Sequence[Sequence[Tensor]]) -> Iterator[Batch]:
        """The batch of each micro-batch, in the order of `minibatches`, each when it is needed.

        Images in the host's memory are brought to the device while the one before is in use.
        """
        pieces = [micro_batch for minibatch in minibatches for micro_batch in minibatch]
        if not self._in_host:
            return (self.batch(envs) for envs in pieces)
        host = {name: self.observations[name] for name in self._in_host}
        images = ImagePrefetch(host, self.horizon, self.device).pieces(pieces)
        return (self.batch(envs, images_of) for envs, images_of in zip(pieces, images))

    def minibatches(
        self, minibatches: int, micro_batches: int | None, generator: torch.Generator
    ) -> list[list[Tensor]]:
        """Deals all environments out at random, once.

        Args:
            minibatches: How many.
            micro_batches: Pieces of each; None: see `PpoConfig`.
            generator: Draws the order.

        Returns:
            For each minibatch its micro-batches, as environment indices for `batch`. Sizes differ
            by at most one; none is empty.

        Raises:
            ValueError: There are fewer environments than micro-batches in total.
        """
        micro_batches = micro_batches or self._micro_batches(minibatches)
        if minibatches * micro_batches > self.num_envs:
            raise ValueError(
                f"minibatches * micro_batches = {minibatches} * {micro_batches} is more than "
                f"num_envs = {self.num_envs}; lower them or add environments"
            )
        order = torch.randperm(self.num_envs, generator=generator).to(self.device)
        dealt = order.tensor_split(minibatches)
        return [list(minibatch.tensor_split(micro_batches)) for minibatch in dealt]

    def shares(self, minibatch: Sequence[Tensor]) -> list[float]:
        """The part of a minibatch's valid steps that each of its micro-batches has."""
        if self.valid is None:
            counts = [len(micro_batch) for micro_batch in minibatch]
        else:
            counts = [int(self.valid[:, micro_batch].sum()) for micro_batch in minibatch]
        return [count / max(sum(counts), 1) for count in counts]

    def _micro_batches(self, minibatches: int) -> int:
        """As few as leave each a bearable number of images."""
        if all(tensor.dim() <= 3 for tensor in self.observations.values()):
            return 1
        envs = max(self.num_envs // minibatches, 1)
        at_once = max(_IMAGES_AT_ONCE.get(self.device.type, 256) // self.horizon, 1)
        return -(-envs // at_once)

    def state_dict(self) -> dict[str, Tensor]:
        """What the next rollout needs of this one, beside the pool's own state: the memories."""
        return {name: memory.clone() for name, memory in self.memory.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        for name, memory in self.memory.items():
            memory.copy_(state[name])

    def _private(self, extra: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(
            self.horizon + extra, self.num_envs, *shape, dtype=dtype, device=self.device
        )
