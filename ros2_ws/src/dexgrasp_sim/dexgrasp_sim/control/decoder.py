"""The interface of action decoders, which turn policy actions into joint targets."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.fabric.decoder import FabricDecoder
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig, ActionDecoder
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.specs import Term

ActionSpace = ActionConfig | FabricConfig
"""The configs of the action spaces, distinguished by `kind`."""


class Decoder(Protocol):
    """A stateful action decoder for N robots; on a real robot N is 1.

    On the CPU the result for a robot does not depend on the other robots, bit for bit, so that a
    split of environments over workers changes nothing (see `linear_algebra`). This holds for
    decoders, `Kinematics` and `Proprioception`. It does not hold for networks: libraries compute
    their matrix products, whose last bits may differ with the size of the batch.
    """

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
        """Terms of `intent` with units and frames; the palm's goal position first."""
        ...

    @property
    def target(self) -> Tensor:
        """[N, J] rad, current joint position targets in the robot's joint order."""
        ...

    @property
    def steps_per_period(self) -> int:
        """K, the number of equal parts of a control period, each with its own joint targets."""
        ...

    @property
    def path(self) -> Tensor:
        """[K, N, J] rad, the targets of the parts of the last period; the last one is `target`.

        A robot is sent each when its part begins. [1, N, J] before the first period.
        """
        ...

    @property
    def velocity_path(self) -> Tensor | None:
        """[K, N, J] rad/s, velocity targets of simulated servos; None: 0, as on a real robot."""
        ...

    @property
    def start_position(self) -> Tensor:
        """[J] rad: where an episode starts, in the robot's joint order."""
        ...

    def set_difficulty(self, difficulty: float) -> None:
        """Sets the difficulty, 0 to 1, of the action space's schedules for coming episodes."""
        ...

    def can_start(self, joint_positions: Tensor) -> Tensor:
        """[K] bool, whether an episode may start at joint positions [K, J] rad within limits."""
        ...

    def reset(
        self,
        env_ids: Tensor | None = None,
        joint_positions: Tensor | None = None,
        checked: bool = False,
    ) -> None:
        """Resets environments [K] int64 (None: all) to joint positions [K, J] rad (None:
        `start_position`) at rest.

        Raises ValueError if `can_start` refuses a position; not tested if `checked` is True.
        """
        ...

    def decode(self, actions: Tensor) -> Tensor:
        """Advances one control period with actions [N, A]; returns the new `target`."""
        ...

    def intent(self) -> Tensor:
        """[N, I]: goals of the decoder as in `intent_terms`, for the `proprio` observation."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The state on which `decode` depends."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        ...


def make_decoder(
    config: ActionSpace,
    robot: Robot,
    num_envs: int,
    control_dt_s: float,
    table: Obstacle,
    device: torch.device | str = "cpu",
    difficulty: float = 0.0,
) -> Decoder:
    """The decoder of an action space, at `start_position`.

    Args:
        config: The action space.
        robot: The robot.
        num_envs: N.
        control_dt_s: Control period.
        table: Obstacle of a fabric besides those of its config.
        device: Of all tensors.
        difficulty: See `Decoder.set_difficulty`.

    Raises:
        ConfigError: The start posture violates a joint limit or is in an obstacle.
    """
    try:
        if isinstance(config, FabricConfig):
            return FabricDecoder(config, robot, num_envs, control_dt_s, table, device, difficulty)
        return ActionDecoder(config, robot, num_envs, control_dt_s, device)
    except ValueError as error:
        raise ConfigError(f"task.action: {error}") from None
