"""What a run asks of PPO and of distillation."""

from typing import Any, Protocol

import torch

from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_learner.rollout.rollout import Rollout


class Algorithm(Protocol):
    """What acts during rollouts and learns from them: `Ppo` or `Distillation`."""

    actor: Actor
    device: torch.device
    peers: Peers
    groups: tuple[str, ...]
    memory_sizes: dict[str, int]

    def act(self, rollout: Rollout, slot: int) -> None:
        """Draws the actions for one slot whose observations are in place."""
        ...

    def act_with_copies(self) -> None:
        """From now on copies of the nets act, as they are at each `refresh_copies`."""
        ...

    def refresh_copies(self) -> None:
        """Gives the copies the present weights and statistics; nothing where the nets act."""
        ...

    def finish(self, rollout: Rollout) -> None:
        """Takes over the results of the last action."""
        ...

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a finished rollout; returns figures by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that later updates depend on; tensors and plain values only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        ...
