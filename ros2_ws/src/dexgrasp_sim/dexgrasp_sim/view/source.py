"""What the viewer shows, and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dexgrasp_sim.tasks.grasp.observations import image_groups

IMAGE_GROUPS: tuple[str, ...] = image_groups()
"""Observation groups that the viewer can show."""


@dataclass(frozen=True)
class Moment:
    """One environment at one moment; the tensors are copies.

    Attributes:
        env: Index of the environment.
        time_s: Rises as long as the same environment is shown.
        joint_position: [23] rad, in the robot's joint order.
        object_pose: [7] xyz m and quaternion wxyz, base frame.
        goal: [3] m, base frame.
        reward: Of the step that led here.
        images: Newest observations of `IMAGE_GROUPS`, those that there are: depth [H, W] int16 mm,
            stereo_rgb [2, 3, H, W] uint8.
        facts: Further figures in words, by name.
    """

    env: int
    time_s: float
    joint_position: Tensor
    object_pose: Tensor
    goal: Tensor
    reward: float
    images: Mapping[str, Tensor]
    facts: Mapping[str, str]


class Source(Protocol):
    """Environments to look at, one at a time.

    Attributes:
        name: What is seen, for the page's title.
        num_envs: Environments to choose from.
        env: The one that is shown.
        groups: Those of `IMAGE_GROUPS` that moments hold.
        period_s: Time between two moments.
        is_driven: Whether `advance` and `restart` do something: not where another process steps.
    """

    name: str
    num_envs: int
    env: int
    groups: tuple[str, ...]
    period_s: float
    is_driven: bool

    def select(self, env: int) -> None:
        """Shows another environment from now on."""
        ...

    def advance(self) -> None:
        """Lets one control step pass."""
        ...

    def restart(self) -> None:
        """Starts a new episode in the environment that is shown."""
        ...

    def moment(self) -> Moment | None:
        """What to show now; None as long as there is nothing."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether no further moment will come."""
        ...

    def close(self) -> None:
        """Lets go of the environments; idempotent."""
        ...
