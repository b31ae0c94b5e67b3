"""What distillation asks of a teacher, and a teacher with smaller images than its student."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from dexgrasp_learner.networks.policy import ActorOutput
from dexgrasp_sim.vision.preprocess import resize_depth


class Teacher(Protocol):
    """A policy whose actions are the labels: an `Actor` or a `BundlePolicy`, or one in a `Coarse`.

    Attributes:
        groups: Observation groups that it reads.
        action_dim: Length of an action.
        memory_size: Width of its memory, 0 without one.
    """

    groups: tuple[str, ...]
    action_dim: int
    memory_size: int

    def initial_memory(self, num_envs: int) -> Tensor:
        """The memory before an episode: float32 [2, num_envs, H]."""
        ...

    def __call__(
        self, observations: Mapping[str, Tensor], start: Tensor, memory: Tensor
    ) -> ActorOutput:
        """Actions for one step of N environments; arguments as for `Actor.forward`."""
        ...


class Coarse(nn.Module):
    """A teacher whose depth images are smaller than those of the environments.

    Each of its pixels is the one under its centre, as a camera of that size renders it: exactly
    so if the sizes differ by an odd factor, else half a pixel of the larger image beside it.
    """

    def __init__(self, teacher: Teacher, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Args:
        teacher: The policy, a module.
        sizes: Height and width of the teacher's images, by depth group.
        """
        super().__init__()
        self.teacher, self._sizes = teacher, dict(sizes)
        self.groups, self.action_dim = teacher.groups, teacher.action_dim
        self.memory_size = teacher.memory_size

    def initial_memory(self, num_envs: int) -> Tensor:
        """As the teacher's."""
        return self.teacher.initial_memory(num_envs)

    def forward(
        self, observations: Mapping[str, Tensor], start: Tensor, memory: Tensor
    ) -> ActorOutput:
        """As the teacher's."""
        small = {
            name: resize_depth(observations[name], *size) for name, size in self._sizes.items()
        }
        return self.teacher({**observations, **small}, start, memory)
