"""The interface of sources of the viewer, and the data that they give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dexgrasp_sim.tasks.grasp.observations import image_groups

IMAGE_GROUPS: tuple[str, ...] = image_groups()
"""Observation groups that the viewer can show."""


@dataclass(frozen=True)
class Moment:
    """One environment at one time; the tensors are copies.

    Attributes:
        env: Index of the environment.
        time_s: Increases as long as the same environment is shown.
        joint_position: [23] rad, in the robot's joint order.
        object_pose: [7] xyz m and quaternion wxyz, base frame.
        goal: [3] m, base frame.
        reward: Of the last step.
        images: Newest images of the available `IMAGE_GROUPS`: depth [H, W] int16 mm, stereo_rgb
            [2, 3, H, W] uint8.
        facts: Further values as text, by name.
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
    """Environments to show, one at a time.

    Attributes:
        name: Title of the page.
        num_envs: Number of environments.
        env: Index of the shown environment.
        groups: Those of `IMAGE_GROUPS` that moments contain.
        period_s: Time between two moments.
        is_driven: Whether `advance` and `restart` have an effect; False if another process steps.
    """

    name: str
    num_envs: int
    env: int
    groups: tuple[str, ...]
    period_s: float
    is_driven: bool

    def select(self, env: int) -> None:
        """Selects the environment to show."""
        ...

    def advance(self) -> None:
        """Makes one control step."""
        ...

    def restart(self) -> None:
        """Starts a new episode in the shown environment."""
        ...

    def moment(self) -> Moment | None:
        """The current moment; None if there is none yet."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether there will be no further moments."""
        ...

    def close(self) -> None:
        """Releases the environments; idempotent."""
        ...
