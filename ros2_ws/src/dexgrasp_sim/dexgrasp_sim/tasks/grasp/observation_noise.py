"""Errors of measurements: noise drawn in each step, biases drawn for each episode.

Every joint and every axis has its own bias. The predecessor used one scalar for all joints, an
error that no real robot has.
"""

from typing import NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.device_graphs import Captured
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.robot.rotation import quaternion_to_matrix
from dexgrasp_sim.schedules import NonNegativeSchedule, constant


@dataclass(frozen=True, config=STRICT)
class ObservationNoiseConfig:
    """Errors of the `proprio` and `state` groups; 0 by default.

    At the start of an episode each `width` and each `bias` is drawn from its interval. The noise
    of a step is then uniform in plus or minus the width, drawn anew for every joint or axis and
    step; the bias of every joint or axis is drawn once, uniform in plus or minus `bias`.

    Attributes:
        joint_position_width_rad: Noise of a step on joint positions.
        joint_position_bias_rad: Bias of an episode on joint positions.
        joint_velocity_width_rad_s: Noise of a step on joint velocities.
        joint_velocity_bias_rad_s: Bias of an episode on joint velocities.
        object_position_width_m: Noise of a step on the object's position, base frame.
        object_position_bias_m: Bias of an episode on the object's position.
        object_rotation_width_rad: Noise of a step on the components of a small rotation vector,
            base frame, by which the observed object is turned.
        object_rotation_bias_rad: Bias of an episode on the same.
        joint_velocities: Whether the policy sees joint velocities; otherwise it sees zeros.
    """

    joint_position_width_rad: NonNegativeSchedule = constant(0.0)
    joint_position_bias_rad: NonNegativeSchedule = constant(0.0)
    joint_velocity_width_rad_s: NonNegativeSchedule = constant(0.0)
    joint_velocity_bias_rad_s: NonNegativeSchedule = constant(0.0)
    object_position_width_m: NonNegativeSchedule = constant(0.0)
    object_position_bias_m: NonNegativeSchedule = constant(0.0)
    object_rotation_width_rad: NonNegativeSchedule = constant(0.0)
    object_rotation_bias_rad: NonNegativeSchedule = constant(0.0)
    joint_velocities: bool = True

    @property
    def is_off(self) -> bool:
        """Whether measurements are always exact."""
        pairs = self.schedules()
        return self.joint_velocities and all(s.is_always(0.0) for pair in pairs for s in pair)

    def schedules(self) -> tuple[tuple[NonNegativeSchedule, NonNegativeSchedule], ...]:
        """Width and bias of joint position and velocity, object position and rotation."""
        return (
            (self.joint_position_width_rad, self.joint_position_bias_rad),
            (self.joint_velocity_width_rad_s, self.joint_velocity_bias_rad_s),
            (self.object_position_width_m, self.object_position_bias_m),
            (self.object_rotation_width_rad, self.object_rotation_bias_rad),
        )


class Measured(NamedTuple):
    """Measurements of N environments.

    Attributes:
        joint_position: [N, J] rad.
        joint_velocity: [N, J] rad/s.
        object_position: [N, 3] m, base frame.
        object_rotation: [N, 3, 3].
    """

    joint_position: Tensor
    joint_velocity: Tensor
    object_position: Tensor
    object_rotation: Tensor


class ObservationNoise(nn.Module):
    """The noise of N environments; draws depend only on seed, environment, episode and step.

    The columns C of its tensors are joint positions, joint velocities, object position and object
    rotation: J + J + 3 + 3.

    Attributes:
        width: [N, 4], widths of the four quantities in the current episodes.
        bias: [N, C], biases in the current episodes.
    """

    width: Tensor
    bias: Tensor
    _quantity: Tensor

    def __init__(
        self, config: ObservationNoiseConfig, streams: RandomStreams, num_joints: int
    ) -> None:
        """Args:
        config: The strengths.
        streams: Of the environments.
        num_joints: J.
        """
        super().__init__()
        self._config, self.streams = config, streams
        self._sizes = (num_joints, num_joints, 3, 3)
        sizes = torch.tensor(self._sizes)
        quantity = torch.arange(len(self._sizes)).repeat_interleave(sizes)  # [C]
        num_envs = len(streams.env)
        self.register_buffer("width", torch.zeros(num_envs, len(self._sizes)))
        self.register_buffer("bias", torch.zeros(num_envs, len(quantity)))
        self.register_buffer("_quantity", quantity, persistent=False)
        self.to(streams.env.device)
        self._measured = Captured(self._measured_of)

    def begin(self, ids: Tensor, episode: Tensor, difficulty: float) -> None:
        """Draws the widths and biases of episodes; arguments as for `draw`."""
        self.take(ids, *self.draw(ids, episode, difficulty))

    def take(self, ids: Tensor, width: Tensor, bias: Tensor) -> None:
        """Takes what `draw` gave for environments [K]."""
        self.width[ids], self.bias[ids] = width, bias

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> tuple[Tensor, Tensor]:
        """Widths [K, 4] and biases [K, C] of episodes; see `EpisodePart`."""
        schedules, (_, columns) = self._config.schedules(), self.bias.shape
        count = 2 * len(schedules)
        drawn = self.streams.uniform(
            Purpose.NOISE_EPISODE, episode, 0, count + columns, ids
        )  # [K, 8 + C]
        limits = drawn[:, :count].unflatten(1, (len(schedules), 2))  # [K, 4, 2]
        widths = [
            width.sample(difficulty, limits[:, index, 0])
            for index, (width, _) in enumerate(schedules)
        ]
        largest = [
            bias.sample(difficulty, limits[:, index, 1])
            for index, (_, bias) in enumerate(schedules)
        ]
        limit = torch.stack(largest, dim=1)[:, self._quantity]  # [K, C]
        return torch.stack(widths, dim=1), limit * (2.0 * drawn[:, count:] - 1.0)

    def measure(self, true: Measured, episode: Tensor, step: Tensor) -> Measured:
        """The state as the sensors measure it.

        Args:
            true: The exact state.
            episode: [N] int64, numbers of the episodes.
            step: [N] int64, control steps since the episodes' start.
        """
        return Measured(*self._measured(episode, step, self.width, self.bias, *true))

    def _measured_of(
        self, episode: Tensor, step: Tensor, width: Tensor, bias: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        true = Measured(*state)
        noise = self.streams.symmetric(Purpose.NOISE_STEP, episode, step, bias.shape[1])
        error = width[:, self._quantity] * noise + bias  # [N, C]
        position, velocity, place, turn = error.split(self._sizes, dim=1)
        seen = true.joint_velocity + velocity
        return Measured(
            true.joint_position + position,
            seen if self._config.joint_velocities else torch.zeros_like(seen),
            true.object_position + place,
            rotation_from_vector(turn) @ true.object_rotation,
        )


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of axis times angle [N, 3] rad."""
    angle = vector.norm(dim=-1, keepdim=True)
    # sin(a / 2) / a tends to 1/2 as the angle goes to 0
    scale = torch.where(angle > 1e-7, torch.sin(angle / 2) / angle.clamp_min(1e-7), 0.5)
    return quaternion_to_matrix(torch.cat((torch.cos(angle / 2), scale * vector), dim=-1))
