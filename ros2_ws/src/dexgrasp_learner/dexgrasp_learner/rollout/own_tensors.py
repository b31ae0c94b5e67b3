"""Tensors that the learner adds to a rollout; only the learner reads and writes them."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class OwnTensors:
    """Tensors of T steps of N environments; the environments are axis 1 of each.

    Attributes:
        start: bool [T + 1, N], True where a slot holds the first observation of an episode.
        mean: float32 [T, N, A], mean actions in reinforcement learning, the teacher's actions in
            distillation.
        log_prob: float32 [T, N], log density of the actions when they were drawn.
        values: float32 [T + 1, N], the critic's values, in units of the reward.
        returns: float32 [T, N], targets of the critic.
        advantages: float32 [T, N], normalised.
    """

    start: Tensor
    mean: Tensor
    log_prob: Tensor
    values: Tensor
    returns: Tensor
    advantages: Tensor

    @staticmethod
    def zeros(horizon: int, num_envs: int, action_dim: int, device: torch.device) -> "OwnTensors":
        """Zeros for T = `horizon`, N = `num_envs`, A = `action_dim`."""

        def make(extra: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(horizon + extra, num_envs, *shape, dtype=dtype, device=device)

        return OwnTensors(
            start=make(1, dtype=torch.bool),
            mean=make(0, action_dim),
            log_prob=make(0),
            values=make(1),
            returns=make(0),
            advantages=make(0),
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> "OwnTensors":
        """Applies a function to every tensor."""
        return OwnTensors(*(function(getattr(self, item.name)) for item in fields(self)))

    def copy_(self, other: "OwnTensors") -> None:
        """Overwrites these with others of the same sizes."""
        for item in fields(self):
            getattr(self, item.name).copy_(getattr(other, item.name))
