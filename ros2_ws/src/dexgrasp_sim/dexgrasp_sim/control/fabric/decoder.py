"""Policy action to joint targets by a geometric fabric: palm pose and hand posture as goals."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dexgrasp_sim.control.fabric.config import ALL_ACTIONS, FabricConfig, fabric_of
from dexgrasp_sim.control.fabric.fabric import Fabric, Goal
from dexgrasp_sim.control.fabric.motion_limits import MotionLimits
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.device_graphs import Captured
from dexgrasp_sim.linear_algebra import sum_rows
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.robot.rotation import matrix_to_zyx_euler, zyx_euler_to_matrix
from dexgrasp_sim.specs import Term

_STATE = ("goal", "target", "fabric_velocity", "damping")
_MAX_BEYOND_LIMIT_RAD = 0.05
"""A start this far beyond a joint limit is moved onto it, since calibration is not exact."""


class FabricDecoder:
    """Moves N robots toward the goals that actions set; see `Decoder`.

    The joint targets, taken at every fabric step (`path`), keep the URDF's position and velocity
    limits and the acceleration and jerk limits of `MotionConfig` whatever the actions are, and no
    body sphere comes nearer than `margin_m` to an obstacle (`MotionLimits`, `BrakingGuard`).

    Attributes:
        action_names: The commanded dimensions.
        action_dim: Their number.
        goal: [N, 11], present value of all dimensions: palm position in m and ZYX Euler angles in
            rad, base frame, then hand components in rad.
        target: [N, J] rad, present joint targets.
        steps_per_period: K, the fabric steps of a control period.
        path: [K, N, J] rad, the targets at the fabric steps of the last period; the last of them
            is `target`.
        fabric_velocity: [N, J] rad per fabric second.
        damping: [N] 1/s, of the present episodes.
    """

    def __init__(
        self,
        config: FabricConfig,
        robot: Robot,
        num_envs: int,
        control_dt_s: float,
        table: Obstacle,
        device: torch.device | str = "cpu",
        difficulty: float = 0.0,
    ) -> None:
        """Prepares the fabric and starts all environments at `start_position`.

        Args:
            config: The action space.
            robot: The robot.
            num_envs: N.
            control_dt_s: Control period.
            table: Kept off, as are `config.obstacles`.
            device: Of all tensors.
            difficulty: See `set_difficulty`.

        Raises:
            ValueError: The config does not fit the robot, or the start posture breaks a joint
                limit or is in an obstacle.
        """
        self.config, self._robot = config, robot
        self._obstacles = (table, *config.obstacles)
        self.set_difficulty(difficulty)
        self.action_names = config.action_names(robot)
        self.action_dim = len(self.action_names)
        self._device = torch.device(device)
        columns = [ALL_ACTIONS.index(name) for name in self.action_names]
        self._columns = torch.tensor(columns, device=self._device)
        self.steps_per_period = config.steps(control_dt_s)
        spec = fabric_of(robot)
        self._hand_axes, self._hand = spec.hand_pca.axes.to(self._device), robot.hand
        self._center, self._half_range = self._ranges()
        self._limits = self._motion_limits(robot, control_dt_s)
        self._fabric = Fabric(
            config.gains,
            robot,
            spec,
            self._tensor(config.posture(robot)),
            self._obstacles,
            config.margin_m,
            self._limits,
        )
        self._lower, self._upper = self._tensor(robot.lower), self._tensor(robot.upper)
        self._palm = Kinematics(robot, [robot.palm], self._device)
        self._start = self._tensor(config.start_position(robot))
        self._advance = Captured(self._advanced)
        self._intent = Captured(self._intent_of)
        self._goal_at = Captured(self._goal_of, any_rows=True)
        self._least_gap = Captured(self._least_gap_of, any_rows=True)
        self._allocate(num_envs)
        if self._device.type == "cpu":
            self.reset()
        else:  # checks the start posture where nobody has to wait for it
            FabricDecoder(config, robot, 1, control_dt_s, table, "cpu", difficulty)
            self.reset(checked=True)
            self._record()

    def _record(self) -> None:
        """Records a step now: its parts are compiled then, which would be too long for a step."""
        actions = torch.zeros(len(self.goal), len(self._columns), device=self._device)
        for _ in range(2):  # the first call records nothing
            self._advance(actions, self.goal, self.target, self.fabric_velocity, self.damping)

    def _allocate(self, num_envs: int) -> None:
        self.goal = self._tensor(torch.zeros(num_envs, len(ALL_ACTIONS)))
        self.target = self._tensor(torch.zeros(num_envs, self._robot.num_joints))
        self.fabric_velocity = torch.zeros_like(self.target)
        self.damping = self._tensor(torch.zeros(num_envs))
        self.path, self._velocities = self.target[None], [self.fabric_velocity]

    @property
    def intent_terms(self) -> tuple[Term, ...]:
        """What `intent` holds."""
        return self.config.intent_terms(self._robot)

    @property
    def start_position(self) -> Tensor:
        """[J] rad: where an episode starts, in the robot's joint order."""
        return self._start

    @property
    def velocity(self) -> Tensor:
        """[N, J] rad/s, at which the joint targets move now."""
        return self.config.time_scale * self.fabric_velocity

    @property
    def velocity_path(self) -> Tensor | None:
        """[K, N, J] rad/s, for the simulated servos; None: 0."""
        factor = self._velocity_target_factor
        if not factor:
            return None
        return factor * (self.config.time_scale * torch.stack(self._velocities))

    def set_difficulty(self, difficulty: float) -> None:
        """The damping of episodes that begin from now on, and the factor of velocity targets."""
        self._damping = self.config.damping_per_s.at(difficulty)
        self._velocity_target_factor = self.config.velocity_target_factor.at(difficulty)

    def can_start(self, joint_positions: Tensor) -> Tensor:
        """[K] bool, whether `reset` takes [K, J] rad, which must be inside the joint limits."""
        return self.gap(joint_positions) >= 0.0

    def gap(self, joint_positions: Tensor) -> Tensor:
        """Least gap [K] in m, less the margin, of a body sphere to a box at [K, J] rad.

        `reset` takes no posture where it is below zero.
        """
        return self._least_gap(joint_positions)[0]

    def reset(
        self,
        env_ids: Tensor | None = None,
        joint_positions: Tensor | None = None,
        checked: bool = False,
    ) -> None:
        """Restarts at rest, with the place where the robot is as goal.

        Args:
            env_ids: [K] int64 environments, None for all.
            joint_positions: [K, J] rad, where the robots stand, None for `start_position`.
            checked: Whether `can_start` has taken these postures. Then they are not checked
                again, which the host would have to wait for on a GPU.

        Raises:
            ValueError: A posture is in an obstacle, not finite, or more than 0.05 rad beyond a
                joint limit; less is moved onto the limit.
        """
        everywhere = torch.arange(len(self.target), device=self._device)
        ids = everywhere if env_ids is None else env_ids
        if not len(ids):
            return
        given = self._start.expand(len(ids), -1) if joint_positions is None else joint_positions
        given = given.to(self.target)
        position = given.clamp(self._lower, self._upper)  # [K, J]
        if not checked:
            self._check(given, position)
        self.target.index_copy_(0, ids, position)
        self.fabric_velocity.index_fill_(0, ids, 0.0)
        self.damping.index_fill_(0, ids, self._damping)
        self.path, self._velocities = self.target[None].clone(), [self.fabric_velocity]
        self.goal.index_copy_(0, ids, self._goal_at(position)[0])

    def decode(self, actions: Tensor) -> Tensor:
        """Advances one control period.

        Args:
            actions: [N, action_dim] float32; clamped to [-1, 1]. NaN leaves that goal as it is.

        Returns:
            [N, J] rad joint position targets in the robot's joint order, also in `target`.
        """
        wanted = actions.detach().to(self.target)
        state = self.goal, self.target, self.fabric_velocity, self.damping
        self.goal, *path = self._advance(wanted, *state)
        self.fabric_velocity, self.target = path[-2:]
        self._velocities, self.path = path[::2], torch.stack(path[1::2])
        return self.target

    def actions_for(self, goal: Tensor) -> Tensor:
        """Actions [N, action_dim], in [-1, 1], that come nearest to `goal` [N, 11]."""
        columns = self._columns
        return ((goal - self._center) / self._half_range)[:, columns].clamp(-1.0, 1.0)

    def intent(self) -> Tensor:
        """[N, K]: see `intent_terms`."""
        return self._intent(self.goal, self.target, self.fabric_velocity)[0]

    def _intent_of(self, goal: Tensor, target: Tensor, fabric_velocity: Tensor) -> tuple[Tensor]:
        rotation = zyx_euler_to_matrix(goal[:, 3:6])
        axes, velocity = rotation[:, :, :2].mT.flatten(1), self.config.time_scale * fabric_velocity
        return (torch.cat((goal[:, :3], axes, goal[:, 6:], target, velocity), dim=1),)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that `decode` depends on."""
        return {name: getattr(self, name).clone() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`."""
        for name in _STATE:
            setattr(self, name, state[name].to(self._device).clone())
        self.path, self._velocities = self.target[None].clone(), [self.fabric_velocity]

    def _advanced(
        self, actions: Tensor, goal: Tensor, position: Tensor, velocity: Tensor, damping: Tensor
    ) -> tuple[Tensor, ...]:
        """The next goal, then velocity and joint targets at each of the fabric steps."""
        columns = self._columns
        scaled = self._center[columns] + self._half_range[columns] * actions.clamp(-1.0, 1.0)
        kept = goal.index_select(1, columns)
        goal = goal.index_copy(1, columns, torch.where(torch.isnan(scaled), kept, scaled))
        palm, euler, hand = goal[:, :3], goal[:, 3:6], goal[:, 6:]
        aim = Goal(self._fabric.palm_points(palm, zyx_euler_to_matrix(euler)), hand, damping)
        path = []
        for _ in range(self.steps_per_period):
            position, velocity = self._fabric.step(position, velocity, aim)
            path += [velocity, position]
        return goal, *path

    def _goal_of(self, position: Tensor) -> tuple[Tensor]:
        """The goal [K, 11] at which robots at [K, J] rad are."""
        palm = self._palm.forward(position)
        euler = self._near_center(matrix_to_zyx_euler(palm.rotation[:, 0]))
        hand = sum_rows(self._hand_axes.mT[..., None] * position.mT[self._hand, None])  # [C, K]
        return (torch.cat((palm.position[:, 0], euler, hand.mT), dim=1),)

    def _least_gap_of(self, position: Tensor) -> tuple[Tensor]:
        return (self._fabric.gaps(position).amin(dim=1),)

    def _ranges(self) -> tuple[Tensor, Tensor]:
        """Centre and half width [11] of the eleven quantities."""
        lower, upper = map(self._tensor, self.config.ranges(self._robot))
        return 0.5 * (lower + upper), 0.5 * (upper - lower)

    def _near_center(self, euler: Tensor) -> Tensor:
        """The angles [K, 3] less whole turns, within half a turn of the range's centre."""
        center = self._center[3:6]
        return center + torch.remainder(euler - center + math.pi, 2.0 * math.pi) - math.pi

    def _motion_limits(self, robot: Robot, control_dt_s: float) -> MotionLimits:
        """The limits in fabric time, where a second lasts 1 / time_scale seconds."""
        motion = self.config.motion
        scale = max(1.0, self.config.time_scale)
        return MotionLimits(
            self._tensor(robot.lower),
            self._tensor(robot.upper),
            self._tensor(robot.velocity_limit) * motion.velocity_fraction / scale,
            self._tensor(motion.acceleration(robot)) / scale**2,
            self._tensor(motion.jerk(robot)) / scale**3,
            self.config.time_scale * control_dt_s / self.steps_per_period,
        )

    def _check(self, given: Tensor, inside: Tensor) -> None:
        """Refuses postures [K, J] beyond or within the limits; see `reset` for the errors."""
        beyond = (given - inside).abs().amax(dim=0)  # [J]
        if not torch.all(beyond <= _MAX_BEYOND_LIMIT_RAD):
            joint = int(beyond.nan_to_num(torch.inf).argmax())
            raise ValueError(
                f"{self._robot.joint_names[joint]} starts {beyond[joint]:.3f} rad beyond its "
                f"limit; {_MAX_BEYOND_LIMIT_RAD} is allowed: move it back, or correct its zero"
            )
        gap, box = self._fabric.gaps(inside).amin(dim=0).min(dim=0)
        if gap < 0.0:
            name = self._obstacles[int(box)].name
            raise ValueError(
                f"the start posture lacks {-1e3 * gap.item():.1f} mm of gap to the obstacle "
                f"{name!r}: move the robot away from it, or correct `obstacles` and `margin_m`"
            )

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(values).to(self._device, torch.float32)
