"""What is wrong with the measurements of a policy: noise of each step, biases of an episode.

Every joint and every axis has a bias of its own. A scalar that all joints share, as in the
predecessor, is a calibration error that no robot has.
"""

from collections.abc import Mapping

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.robot.rotation import quaternion_to_matrix
from dexgrasp_sim.schedules import NonNegativeSchedule, constant
from dexgrasp_sim.tasks.grasp.counter_noise import counter_uniform, draw_key

_QUANTITIES = ("joint_position", "joint_velocity", "object_position", "object_rotation")


@dataclass(frozen=True, config=STRICT)
class ObservationNoiseConfig:
    """Errors of the `proprio` and `state` groups. The defaults are none.

    At the start of an episode each `width` and each `bias` is drawn from its interval. The noise
    of a step is then uniform in plus or minus the width, drawn anew for every joint or axis and
    step; the bias of every joint or axis is drawn once, uniform in plus or minus `bias`.

    Attributes:
        joint_velocities: Whether the policy sees joint velocities; without, it sees zeros.
        object_rotation_width_rad: Of the components of a small rotation vector in the base
            frame that turns the observed object; its bias is of the same kind.
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


class ObservationNoise:
    """The noise of N environments; a step's draws depend on nothing but the episode and the step.

    Attributes:
        width: [N, 4]: of joint position, joint velocity, object position, object rotation.
        bias: By the same names, [N, 23] for joints and [N, 3] for the object.
    """

    def __init__(self, config: ObservationNoiseConfig, num_envs: int, num_joints: int) -> None:
        self._config = config
        sizes = (num_joints, num_joints, 3, 3)
        starts = np.cumsum((0, *sizes)).tolist()
        self._columns = {
            name: range(start, start + size)
            for name, start, size in zip(_QUANTITIES, starts, sizes)
        }
        self.key = torch.zeros(num_envs, dtype=torch.int64)
        self.width = torch.zeros(num_envs, len(_QUANTITIES))
        self.bias = {
            name: torch.zeros(num_envs, size)
            for name, size in zip(_QUANTITIES, sizes, strict=True)
        }

    def begin(self, env: int, difficulty: float, generator: np.random.Generator) -> None:
        """Draws the episode's widths and biases of one environment."""
        self.key[env] = draw_key(generator)
        for index, (width, bias) in enumerate(self._config.schedules()):
            own = self.bias[_QUANTITIES[index]]
            self.width[env, index] = generator.uniform(*width.at(difficulty))
            limit = generator.uniform(*bias.at(difficulty))
            own[env] = torch.from_numpy(limit * generator.uniform(-1.0, 1.0, own.shape[1]))

    def joints(self, position: Tensor, velocity: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Measured joint positions [N, 23] rad and velocities [N, 23] rad/s.

        Args:
            position: [N, 23] true.
            velocity: [N, 23] true.
            step: [N] int64, control steps since the episode's start.
        """
        velocity = velocity + self._error("joint_velocity", step)
        if not self._config.joint_velocities:
            velocity = torch.zeros_like(velocity)
        return position + self._error("joint_position", step), velocity

    def object_pose(
        self, position: Tensor, rotation: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Measured object positions [N, 3] m and rotations [N, 3, 3]; arguments as `joints`."""
        turn = rotation_from_vector(self._error("object_rotation", step))
        return position + self._error("object_position", step), turn @ rotation

    def _error(self, quantity: str, step: Tensor) -> Tensor:
        width = self.width[:, _QUANTITIES.index(quantity), None]
        noise = counter_uniform(self.key, step, self._columns[quantity])
        return width * noise + self.bias[quantity]

    def state_dict(self) -> dict[str, Tensor]:
        """What the rest of the episodes depends on."""
        biases = {f"bias_{name}": value.clone() for name, value in self.bias.items()}
        return {"key": self.key.clone(), "width": self.width.clone(), **biases}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        self.key.copy_(state["key"])
        self.width.copy_(state["width"])
        for name, value in self.bias.items():
            value.copy_(state[f"bias_{name}"])


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of axis times angle [N, 3] rad."""
    angle = vector.norm(dim=-1, keepdim=True)
    # sin(a / 2) / a tends to 1/2 for a vanishing angle
    scale = torch.where(angle > 1e-7, torch.sin(angle / 2) / angle.clamp_min(1e-7), 0.5)
    return quaternion_to_matrix(torch.cat((torch.cos(angle / 2), scale * vector), dim=-1))
