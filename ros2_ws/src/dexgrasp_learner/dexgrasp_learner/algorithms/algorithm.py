"""The interface that PPO and distillation offer to a run."""

from typing import Any, Protocol

import torch

from dexgrasp_learner.networks.policy import Actor
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_learner.rollout.rollout import Rollout


def restore_draws(generator: torch.Generator, state: torch.Tensor) -> None:
    """Lets a generator go on from a state of `torch.Generator.get_state`.

    Generators of GPUs and of the CPU are not alike: one keeps its own state if it is given that of
    the other kind, as when a run continues on another device.
    """
    if len(state) == len(generator.get_state()):
        generator.set_state(state.cpu())


class Algorithm(Protocol):
    """Acts during rollouts and learns from them; implemented by `Ppo` and `Distillation`."""

    actor: Actor
    device: torch.device
    peers: Peers
    groups: tuple[str, ...]
    memory_sizes: dict[str, int]

    def act(self, rollout: Rollout, slot: int) -> None:
        """Draws the actions for one slot whose observations are in place."""
        ...

    def act_with_copies(self) -> None:
        """Lets copies of the nets act from now on; only `refresh_copies` changes the copies."""
        ...

    def refresh_copies(self) -> None:
        """Loads the present weights and statistics into the copies; no effect without copies."""
        ...

    def finish(self, rollout: Rollout) -> None:
        """Reads the results of the last action into the rollout."""
        ...

    def observe(self, rollout: Rollout) -> None:
        """Takes a finished rollout into the normalisation of observations, without learning."""
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
