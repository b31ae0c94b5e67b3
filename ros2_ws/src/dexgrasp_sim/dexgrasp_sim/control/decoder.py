"""What turns policy actions into joint targets, whichever action space is meant."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from dexgrasp_sim.specs import Term


class Decoder(Protocol):
    """A stateful action decoder for N robots; on a real robot N is 1."""

    @property
    def action_names(self) -> tuple[str, ...]:
        """What each action dimension commands."""
        ...

    @property
    def action_dim(self) -> int:
        """Number of action dimensions, A."""
        ...

    @property
    def intent_terms(self) -> tuple[Term, ...]:
        """What `intent` holds, with units and frames."""
        ...

    @property
    def target(self) -> Tensor:
        """[N, 23] rad, present joint position targets in the robot's joint order."""
        ...

    @property
    def velocity(self) -> Tensor:
        """[N, 23] rad/s, at which the targets move."""
        ...

    @property
    def start_position(self) -> Tensor:
        """[23] rad: where an episode starts, in the robot's joint order."""
        ...

    def reset(self, env_ids: Tensor | None = None, joint_positions: Tensor | None = None) -> None:
        """Restarts environments [K] (None: all) at rest at joint positions [K, 23] rad (None:
        `start_position`).
        """
        ...

    def decode(self, actions: Tensor) -> Tensor:
        """Advances one control period: actions [N, A] to the new `target`."""
        ...

    def intent(self) -> Tensor:
        """[N, K]: what the decoder is up to, for the `proprio` observation."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `decode` depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        ...
