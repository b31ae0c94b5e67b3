"""One rollout: the pool's tensors as the learner sees them, and what only the learner knows."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_RESULTS = ("reward", "terminated", "truncated")
_PRIVATE = ("start", "mean", "log_prob", "values", "returns", "advantages")


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


class Rollout:
    """T steps of N environments, plus the slot after them.

    The observations stand in the pool's tensors and are not copied; only where the learner
    computes on another device, that device holds one mirror of them, filled slot by slot. A batch
    copies the observations of its own environments only.

    Attributes:
        horizon: T.
        num_envs: N.
        device: Where the learner computes.
        observations: Group name to [T + 1, N, ...] in its stored type.
        start: bool [T + 1, N], True where a slot holds the first observation of an episode.
        actions: float32 [T, N, A], what was sent to the environments (not clipped).
        mean: float32 [T, N, A], mean actions in reinforcement learning, the teacher's actions in
            distillation.
        log_prob: float32 [T, N], log density of the actions when they were drawn.
        values: float32 [T + 1, N], the critic's values, in units of the reward.
        returns: float32 [T, N], targets of the critic.
        advantages: float32 [T, N], normalised.
        memory: Net name to float32 [2, N, H], the memory after the newest step.
        start_memory: As `memory`, before step 0.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        groups: Sequence[str],
        memory_sizes: Mapping[str, int],
        device: torch.device | str = "cpu",
    ) -> None:
        """Wraps the tensors of an environment pool.

        Args:
            tensors: Observation groups and results [T + 1, N, ...], `actions` [T, N, A].
            groups: Observation groups that the learner reads.
            memory_sizes: Name of each net that acts during the rollout to the width of its memory
                (0 without one).
            device: Where the learner computes.
        """
        self.device = torch.device(device)
        self.horizon, self.num_envs, action_dim = tensors["actions"].shape
        names = (*groups, *_RESULTS)
        self._pool = {name: tensors[name] for name in (*names, "actions")}
        self._is_mirrored = tensors["actions"].device != self.device
        self._local = dict(self._pool)
        if self._is_mirrored:
            self._local = {name: t.to(self.device) for name, t in self._pool.items()}
        self.observations = {name: self._local[name] for name in groups}
        self.actions = self._local["actions"]
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
        """Takes over a slot that the pool has completed; at slot 0 a new rollout begins."""
        if self._is_mirrored:
            for name in (*self.observations, *_RESULTS):
                self._local[name][slot].copy_(self._pool[name][slot], non_blocking=True)
        torch.logical_or(
            self._local["terminated"][slot], self._local["truncated"][slot], out=self.start[slot]
        )
        if slot == 0:
            for name, memory in self.memory.items():
                self.start_memory[name].copy_(memory)

    def publish_actions(self, slot: int, actions: Tensor) -> None:
        """Writes actions [N, A] where the pool sends them from."""
        self.actions[slot] = actions
        if self._is_mirrored:
            self._pool["actions"][slot] = actions.to(self._pool["actions"].device)

    def slot(self, slot: int) -> tuple[dict[str, Tensor], Tensor]:
        """Observations [1, N, ...] (views) and start flags [1, N] of one slot."""
        observations = {name: t[slot : slot + 1] for name, t in self.observations.items()}
        return observations, self.start[slot : slot + 1]

    def part(self, envs: slice) -> "Rollout":
        """The environments [start, stop) as a rollout on the same tensors, for them to act alone.

        Only `memory` is the part's own once it has acted; `join` brings it back.
        """
        part = copy.copy(self)
        part._pool = {name: tensor[:, envs] for name, tensor in self._pool.items()}
        part._local = {name: tensor[:, envs] for name, tensor in self._local.items()}
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

    def batch(self, envs: Tensor) -> Batch:
        """All T steps of the environments with the given indices (int64 [n])."""

        def pick(tensor: Tensor) -> Tensor:
            return tensor[: self.horizon].index_select(1, envs)

        return Batch(
            observations={name: pick(t) for name, t in self.observations.items()},
            start=pick(self.start),
            memory={name: memory[:, envs] for name, memory in self.start_memory.items()},
            actions=pick(self.actions),
            mean=pick(self.mean),
            log_prob=pick(self.log_prob),
            values=pick(self.values),
            returns=pick(self.returns),
            advantages=pick(self.advantages),
        )

    def minibatches(
        self, minibatches: int, micro_batches: int, generator: torch.Generator
    ) -> Iterator[list[Tensor]]:
        """Deals all environments out at random, once.

        Yields:
            For each minibatch its micro-batches, as environment indices for `batch`. Sizes differ
            by at most one; none is empty.

        Raises:
            ValueError: There are fewer environments than micro-batches in total.
        """
        if minibatches * micro_batches > self.num_envs:
            raise ValueError(
                f"minibatches * micro_batches = {minibatches} * {micro_batches} is more than "
                f"num_envs = {self.num_envs}; lower them or add environments"
            )
        order = torch.randperm(self.num_envs, generator=generator).to(self.device)
        for minibatch in order.tensor_split(minibatches):
            yield list(minibatch.tensor_split(micro_batches))

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
