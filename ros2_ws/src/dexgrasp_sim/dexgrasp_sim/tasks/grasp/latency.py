"""Commands that arrive late and measurements that are old, by amounts that an episode keeps."""

from collections.abc import Mapping

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.schedules import NonNegativeSchedule, Schedule, constant


@dataclass(frozen=True, config=STRICT)
class LatencyConfig:
    """Delays, drawn at the start of an episode. The defaults are none.

    Attributes:
        action_delay_s: From an observation to the moment when the joint targets that follow from
            it take effect; rounded to whole physics steps, may exceed a control period.
        joint_age_steps: Age of joint measurements in control steps.
        image_age_steps: Age of images and of the object pose in the `state` group, which an
            object tracker would take from images, in control steps.
    """

    action_delay_s: NonNegativeSchedule = constant(0.0)
    joint_age_steps: NonNegativeSchedule = constant(0.0)
    image_age_steps: NonNegativeSchedule = constant(0.0)

    @property
    def delays_actions(self) -> bool:
        """Whether joint targets may arrive late."""
        return not self.action_delay_s.is_always(0.0)

    @property
    def delays_observations(self) -> bool:
        """Whether measurements may be old."""
        return not (self.joint_age_steps.is_always(0.0) and self.image_age_steps.is_always(0.0))


def draw_steps(schedule: Schedule, difficulty: float, generator: np.random.Generator) -> int:
    """A whole number, uniform between the rounded ends of an interval, both included."""
    low, high = (round(end) for end in schedule.at(difficulty))
    return int(generator.integers(low, high + 1))


class DelayLine:
    """The last samples of N environments, of which each environment reads the one of its age."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, max_age: int) -> None:
        """Args:
        shape: Of a sample, the environments first: [N, ...].
        dtype: Of a sample.
        max_age: Largest age that can be read.
        """
        self._samples = torch.zeros((max_age + 1, *shape), dtype=dtype)
        self._newest = torch.zeros((), dtype=torch.int64)
        self._rows = torch.arange(shape[0])

    def push(self, sample: Tensor) -> None:
        """Takes a new sample [N, ...]; the oldest one is forgotten."""
        self._newest += 1
        self._newest %= len(self._samples)
        self._samples[self._newest] = sample

    def fill(self, ids: Tensor, sample: Tensor) -> None:
        """Environments [K] now read `sample` [K, ...] at every age: their episode begins."""
        self._samples[:, ids] = sample

    def read(self, age: Tensor) -> Tensor:
        """The samples [N, ...] of ages [N] int64; 0 is the newest."""
        return self._samples[(self._newest - age) % len(self._samples), self._rows]

    def state_dict(self) -> dict[str, Tensor]:
        """All samples."""
        return {"samples": self._samples.clone(), "newest": self._newest.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        self._samples.copy_(state["samples"])
        self._newest.copy_(state["newest"])


class ActionDelay:
    """Holds joint targets back by a whole number of physics steps per environment.

    Attributes:
        delay: [N] int64 physics steps.
    """

    def __init__(
        self,
        config: LatencyConfig,
        num_envs: int,
        num_joints: int,
        physics_steps: int,
        timestep_s: float,
    ) -> None:
        """Args:
        config: The delays.
        num_envs: N.
        num_joints: Of the joint targets.
        physics_steps: Per control period.
        timestep_s: Physics step.
        """
        self._steps, self._timestep_s = physics_steps, timestep_s
        self._schedule = config.action_delay_s
        longest = round(self._schedule.largest / timestep_s)
        shape = (num_envs, num_joints)
        self._line = DelayLine(shape, torch.float32, longest // physics_steps)
        self.delay = torch.zeros(num_envs, dtype=torch.int64)

    def begin(self, env: int, difficulty: float, generator: np.random.Generator) -> None:
        """Draws the delay of one environment."""
        seconds = generator.uniform(*self._schedule.at(difficulty))
        self.delay[env] = round(seconds / self._timestep_s)

    def restart(self, ids: Tensor, targets: Tensor) -> None:
        """Environments [K] hold `targets` [K, 23], and nothing else is on the way to them."""
        self._line.fill(ids, targets)

    def send(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sends joint targets [N, 23] off.

        Returns:
            The targets [N, 23] that arrive in this control period, and after how many of its
            physics steps [N] int64 they do.
        """
        self._line.push(targets)
        return self._line.read(self.delay // self._steps), self.delay % self._steps

    def state_dict(self) -> dict[str, Tensor]:
        """The delays and the targets on the way."""
        return {"delay": self.delay.clone(), **self._line.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        self.delay.copy_(state["delay"])
        self._line.load_state_dict(state)
