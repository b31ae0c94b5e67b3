"""Policy action to joint position targets: palm velocity by inverse kinematics, hand synergies."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.control.palm_velocity.differential_ik import DifferentialIk
from dexgrasp_sim.device_graphs import Captured
from dexgrasp_sim.linear_algebra import sum_rows
from dexgrasp_sim.robot.kinematics import Chain
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.specs import Term

PALM_ACTIONS = ("palm_x", "palm_y", "palm_z", "palm_yaw")
Positive = Annotated[float, Field(gt=0)]
Vector3 = tuple[float, float, float]

_STATE = ("palm_position", "palm_yaw", "synergies", "target")


@dataclass(frozen=True, config=STRICT)
class ActionConfig:
    """Meaning of the action: rates that a value of 1 commands, and the ranges they stay in.

    What the hand does is the robot's matter: see `robot_file.SynergyEntry`.

    Attributes:
        kind: Tells this action space from the others.
        dimensions: Which quantities the policy commands, in action order: palm_x, palm_y, palm_z,
            palm_yaw and the robot's synergies. The others stay at their start value. None: all.
        palm_speed_m_s: Speed of the palm target per axis.
        yaw_rate_rad_s: Rate of the palm target about the base z axis.
        workspace_min_m: Lower corner of the box that the palm target stays in, base frame; None:
            the robot's.
        workspace_max_m: Upper corner; None: the robot's.
        max_yaw_rad: Largest yaw to either side of the start orientation; None: the robot's.
    """

    kind: Literal["velocity"] = "velocity"
    dimensions: tuple[str, ...] | None = None
    palm_speed_m_s: Positive = 0.3
    yaw_rate_rad_s: Positive = 1.8
    workspace_min_m: Vector3 | None = None
    workspace_max_m: Vector3 | None = None
    max_yaw_rad: Positive | None = None

    def check(self, robot: Robot) -> None:
        """ValueError where the config does not fit the robot."""
        self.action_names(robot)
        self.workspace(robot)

    def action_names(self, robot: Robot) -> tuple[str, ...]:
        """What each action dimension commands.

        Raises:
            ValueError: `dimensions` names something twice, or that this robot does not have.
        """
        return chosen_actions(self.dimensions, _all_actions(robot), robot)

    def steps(self, control_dt_s: float) -> int:
        """Targets in a control period: one."""
        del control_dt_s
        return 1

    def intent_terms(self, robot: Robot) -> tuple[Term, ...]:
        """What `ActionDecoder.intent` holds."""
        return (
            Term("palm_target_position", 3, "m", "base"),
            Term("palm_target_yaw", 1, "rad", "base"),
            *(Term(synergy.name, 1, "1") for synergy in robot.palm_velocity.synergies),
        )

    def workspace(self, robot: Robot) -> tuple[Vector3, Vector3]:
        """Lower and upper corner of the palm target's box, m, base frame.

        Raises:
            ValueError: The lower corner is not below the upper one.
        """
        lower, upper = robot.palm_velocity.workspace_m
        lower, upper = self.workspace_min_m or lower, self.workspace_max_m or upper
        if any(low >= high for low, high in zip(lower, upper)):
            raise ValueError(
                f"`workspace_min_m` {lower} must be below `workspace_max_m` {upper} on every axis"
            )
        return lower, upper


def chosen_actions(
    dimensions: tuple[str, ...] | None, available: tuple[str, ...], robot: Robot
) -> tuple[str, ...]:
    """The dimensions of an action space, all where none are chosen; see `ActionConfig`."""
    chosen = available if dimensions is None else dimensions
    unknown = [name for name in chosen if name not in available]
    if not chosen or unknown or len(set(chosen)) != len(chosen):
        raise ValueError(
            f"`dimensions` {list(chosen)} must name at least one quantity, each once; "
            f"{robot.name} has {', '.join(available)}"
        )
    return chosen


def _all_actions(robot: Robot) -> tuple[str, ...]:
    return (*PALM_ACTIONS, *(synergy.name for synergy in robot.palm_velocity.synergies))


class ActionDecoder:
    """Integrates actions into a palm target and hand closure and solves for joint targets.

    The same object drives N simulated robots in training and one real robot in deployment.
    The joint targets start at `start_position`, always lie inside the joint limits and move the
    arm no faster than its velocity limits. See `Decoder`.

    Attributes:
        action_names: The commanded dimensions.
        action_dim: Their number.
        velocity_path: None: servos get positions only.
        steps_per_period: 1.
        palm_position: [N, 3] m, target of the grasp centre, base frame.
        palm_yaw: [N] rad, turn of the palm about base z from its start.
        synergies: [N, S], values of the robot's hand synergies.
        target: [N, J] rad, the present joint targets.
    """

    def __init__(
        self,
        config: ActionConfig,
        robot: Robot,
        num_envs: int,
        control_dt_s: float,
        device: torch.device | str = "cpu",
    ) -> None:
        """Starts all environments at `start_position`.

        Args:
            config: The action space.
            robot: The robot.
            num_envs: N.
            control_dt_s: Control period.
            device: Of all tensors.

        Raises:
            ValueError: The config does not fit the robot.
        """
        self._device = torch.device(device)
        self.config, self._robot = config, robot
        self.velocity_path: Tensor | None = None
        self.steps_per_period = config.steps(control_dt_s)
        self.action_names = config.action_names(robot)
        self.action_dim = len(self.action_names)
        everything = _all_actions(robot)
        self._num_actions = len(everything)
        columns = [everything.index(name) for name in self.action_names]
        self._columns = torch.tensor(columns, device=self._device)
        self._dt_s = control_dt_s
        self._lower, self._upper = self._tensor(robot.lower), self._tensor(robot.upper)
        self._workspace = self._tensor(config.workspace(robot))
        self._max_yaw_rad = config.max_yaw_rad or robot.palm_velocity.max_yaw_rad
        self._start = self._tensor(robot.postures["pregrasp"])
        self._add_synergies(robot)
        chain = Chain(robot, robot.grasp_center, self._device)
        arm = chain.joint_indices
        max_step = self._tensor(robot.velocity_limit[arm]) * control_dt_s
        self._ik = DifferentialIk(
            chain, self._start[arm], self._lower[arm], self._upper[arm], max_step
        )
        home = chain.forward(self._start.unsqueeze(0))
        self._home_position, self._home_rotation = home.position[0], home.rotation[0]
        self._advance = Captured(self._advanced)
        self.palm_position = self._tensor(torch.zeros(num_envs, 3))
        self.palm_yaw = self._tensor(torch.zeros(num_envs))
        self.synergies = self._tensor(torch.zeros(num_envs, len(self._synergy_rate)))
        self.target = self._tensor(torch.zeros(num_envs, robot.num_joints))
        self.reset()

    def _add_synergies(self, robot: Robot) -> None:
        synergies = robot.palm_velocity.synergies
        self._synergy_rate = self._tensor([synergy.rate_per_s for synergy in synergies])
        self._synergy_range = self._tensor([synergy.range for synergy in synergies]).T
        names = robot.joint_names[robot.hand]
        directions = torch.zeros(len(synergies), len(names))  # [S, H]
        for row, synergy in enumerate(synergies):
            for joint, change_rad in synergy.joints.items():
                directions[row, names.index(joint)] = change_rad
        self._directions = self._tensor(directions)
        self._hand = robot.hand
        self._open_hand = self._start[self._hand]

    @property
    def path(self) -> Tensor:
        """[1, N, J] rad, the joint targets of the last period."""
        return self.target[None]

    @property
    def start_position(self) -> Tensor:
        """[J] rad: where an episode starts, in the robot's joint order."""
        return self._start

    @property
    def intent_terms(self) -> tuple[Term, ...]:
        """What `intent` holds."""
        return self.config.intent_terms(self._robot)

    def set_difficulty(self, difficulty: float) -> None:
        """Nothing here depends on it."""

    def can_start(self, joint_positions: Tensor) -> Tensor:
        """[K] bool: robots may start at any [K, J] rad."""
        return torch.ones(len(joint_positions), dtype=torch.bool, device=self._device)

    def reset(
        self,
        env_ids: Tensor | None = None,
        joint_positions: Tensor | None = None,
        checked: bool = False,
    ) -> None:
        """Puts the palm target and the hand back to the start.

        Args:
            env_ids: [K] int64 environments, None for all.
            joint_positions: [K, J] rad, where the robots stand: no matter, an action moves palm
                and hand from where `start_position` has them, and the servos close the distance.
            checked: No matter either.
        """
        del joint_positions, checked
        everywhere = torch.arange(len(self.target), device=self._device)
        ids = everywhere if env_ids is None else env_ids
        self.palm_position.index_copy_(0, ids, self._home_position.expand(len(ids), -1))
        self.palm_yaw.index_fill_(0, ids, 0.0)
        self.synergies.index_fill_(0, ids, 0.0)
        self.target.index_copy_(0, ids, self._start.expand(len(ids), -1))

    def decode(self, actions: Tensor) -> Tensor:
        """Advances one control period.

        Args:
            actions: [N, action_dim] float32; clamped to [-1, 1]. NaN counts as 0.

        Returns:
            [N, J] rad joint position targets in the robot's joint order, also in `target`.
        """
        state = self.palm_position, self.palm_yaw, self.synergies, self.target
        state = self._advance(actions.detach().to(self.target), *state)
        self.palm_position, self.palm_yaw, self.synergies, self.target = state
        return self.target

    def _advanced(
        self,
        actions: Tensor,
        palm_position: Tensor,
        yaw: Tensor,
        synergies: Tensor,
        target: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The state after a control period."""
        config, dt_s = self.config, self._dt_s
        full = actions.new_zeros(len(actions), self._num_actions)
        full.index_copy_(1, self._columns, torch.nan_to_num(actions).clamp(-1.0, 1.0))
        palm_position = palm_position + config.palm_speed_m_s * dt_s * full[:, 0:3]
        palm_position.clamp_(self._workspace[0], self._workspace[1])
        yaw = yaw + config.yaw_rate_rad_s * dt_s * full[:, 3]
        yaw.clamp_(-self._max_yaw_rad, self._max_yaw_rad)
        synergies = synergies + dt_s * self._synergy_rate * full[:, len(PALM_ACTIONS) :]
        synergies.clamp_(self._synergy_range[0], self._synergy_range[1])
        turn = rotation_about_z(yaw)  # [N, 3, 3]
        rotation = (turn[..., None] * self._home_rotation).sum(2)  # [N, 3, 3]
        target = self._ik.solve(target, palm_position, rotation)
        moved = sum_rows(synergies[..., None] * self._directions, 1)  # [N, H]
        target[:, self._hand] = self._open_hand + moved
        return palm_position, yaw, synergies, target.clamp_(self._lower, self._upper)

    def intent(self) -> Tensor:
        """[N, 4 + S]: see `intent_terms`."""
        return torch.cat((self.palm_position, self.palm_yaw.unsqueeze(1), self.synergies), dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `decode` depends on."""
        return {name: getattr(self, name).clone() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(values).to(self._device, torch.float32)


def rotation_about_z(angle: Tensor) -> Tensor:
    """[N, 3, 3] rotations by [N] rad about the z axis."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cosine, -sine, zero, sine, cosine, zero, zero, zero, one)
    return torch.stack(rows, dim=1).view(-1, 3, 3)
