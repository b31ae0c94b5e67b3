"""What turns policy actions into joint targets, whichever action space is meant."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from dexgrasp_sim.specs import Term


class Decoder(Protocol):
    """A stateful action decoder for N robots; one code in training and, with N = 1, on the robot.

    Attributes:
        action_names: What each action dimension commands.
        action_dim: Their number, A.
        intent_terms: What `intent` holds, with units and frames.
        target: [N, 23] rad, present joint position targets in the robot's joint order.
        velocity: [N, 23] rad/s, at which the targets move.
    """

    @property
    def action_names(self) -> tuple[str, ...]: ...

    @property
    def action_dim(self) -> int: ...

    @property
    def intent_terms(self) -> tuple[Term, ...]: ...

    @property
    def target(self) -> Tensor: ...

    @property
    def velocity(self) -> Tensor: ...

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
