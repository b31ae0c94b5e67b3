"""Delays of commands and measurements, constant during an episode."""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.schedules import NonNegativeSchedule, constant


@dataclass(frozen=True, config=STRICT)
class LatencyConfig:
    """Delays, drawn at the start of an episode; 0 by default.

    Attributes:
        action_delay_s: Time from an observation until the joint targets computed from it take
            effect; rounded to whole physics steps, may exceed a control period.
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


class DelayLine(nn.Module):
    """Ring buffer of the last samples of N environments; each reads the sample of its own age."""

    _samples: Tensor
    _newest: Tensor
    _rows: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        max_age: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Args:
        shape: Of a sample, the environments first: [N, ...].
        dtype: Of a sample.
        max_age: Largest age that can be read.
        device: Where the samples are.
        """
        super().__init__()
        samples = torch.zeros((max_age + 1, *shape), dtype=dtype)
        self.register_buffer("_samples", samples)
        self.register_buffer("_newest", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("_rows", torch.arange(shape[0]), persistent=False)
        self.to(device)

    def push(self, sample: Tensor) -> None:
        """Takes a new sample [N, ...]; the oldest one is forgotten."""
        self._newest += 1
        self._newest %= len(self._samples)
        self._samples.index_copy_(0, self._newest, sample.unsqueeze(0))

    def fill(self, ids: Tensor, sample: Tensor) -> None:
        """Sets all samples of environments [K] to `sample` [K, ...], as their episode begins."""
        self._samples[:, ids] = sample

    def read(self, age: Tensor) -> Tensor:
        """The samples [..., N, ...] of ages [..., N] int64; 0 is the newest."""
        return self._samples[(self._newest - age) % len(self._samples), self._rows]


def parts_in_effect(parts: int, physics_steps: int) -> tuple[int, ...]:
    """Which of a period's joint targets is in effect in each of its physics steps.

    Where the parts of the period do not consist of whole physics steps, a target takes effect
    with the step in which its part begins, but the last one always does.
    """
    return tuple(-(-(step + 1) * parts // physics_steps) - 1 for step in range(physics_steps))


class ActionDelay(nn.Module):
    """Delays joint targets by a whole number of physics steps per environment.

    Attributes:
        delay: [N] int64 physics steps.
    """

    delay: Tensor
    _step: Tensor
    _part: Tensor

    def __init__(
        self,
        config: LatencyConfig,
        streams: RandomStreams,
        num_joints: int,
        physics_steps: int,
        timestep_s: float,
        parts: int = 1,
    ) -> None:
        """Args:
        config: The delays.
        streams: Of the environments.
        num_joints: Of the joint targets.
        physics_steps: Per control period.
        timestep_s: Physics step.
        parts: Parts of a control period with joint targets of their own.
        """
        super().__init__()
        self._steps, self._timestep_s, self._parts = physics_steps, timestep_s, parts
        self._schedule, self.streams = config.action_delay_s, streams
        longest = round(self._schedule.largest / timestep_s)
        num_envs, device = len(streams.env), streams.env.device
        shape = (num_envs, parts * num_joints)
        oldest = -(-longest // physics_steps)
        self.line = DelayLine(shape, torch.float32, oldest, device)
        step = torch.arange(physics_steps, device=device).unsqueeze(1)  # [S, 1]
        part = torch.tensor(parts_in_effect(parts, physics_steps), device=device)  # [S]
        self.register_buffer("_step", step, persistent=False)
        self.register_buffer("_part", part, persistent=False)
        self.register_buffer("delay", torch.zeros(num_envs, dtype=torch.int64, device=device))

    def begin(self, ids: Tensor, episode: Tensor, difficulty: float) -> None:
        """Draws the delays of episodes; arguments as for `draw`."""
        self.take(ids, *self.draw(ids, episode, difficulty))

    def take(self, ids: Tensor, delay: Tensor) -> None:
        """Takes what `draw` gave for environments [K]."""
        self.delay[ids] = delay

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> tuple[Tensor]:
        """Delays [K] int64 of episodes; see `EpisodePart`."""
        drawn = self.streams.uniform(Purpose.ACTION_DELAY, episode, 0, 1, ids)[:, 0]
        seconds = self._schedule.sample(difficulty, drawn)
        return ((seconds / self._timestep_s).round().long(),)

    def restart(self, ids: Tensor, targets: Tensor) -> None:
        """Sets all delayed targets of environments [K] to `targets` [K, J] rad."""
        self.line.fill(ids, targets.repeat(1, self._parts))

    def send(self, path: Tensor) -> Tensor:
        """Puts the joint targets [K, N, J] rad of a control period into the delay line.

        Returns:
            [S, N, J] rad, the targets in effect in each of the period's physics steps.
        """
        self.line.push(path.transpose(0, 1).flatten(1))
        sent = self._step - self.delay  # [S, N], from the start of this period
        samples = self.line.read(-(sent // self._steps))  # [S, N, K J]
        if self._parts == 1:
            return samples
        part = self._part[sent % self._steps]  # [S, N]
        each = samples.unflatten(2, (self._parts, -1))  # [S, N, K, J]
        return torch.take_along_dim(each, part[..., None, None], dim=2).squeeze(2)
