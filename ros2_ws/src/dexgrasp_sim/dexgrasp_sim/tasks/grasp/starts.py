"""Where object and robot are when an episode begins."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.control.decoder import Decoder
from dexgrasp_sim.devices import rows_to_compute
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

CLEARANCE_M = 0.002
"""An object starts this far above the table, so that it does not start in contact."""
_HALVINGS = 6


class Spread(NamedTuple):
    """How far K starts differ from the nominal one.

    Attributes:
        width_scale: [K], fraction of the spawn rectangle.
        yaw_scale: [K], fraction of the yaw range.
        tilt_rad: [K, 2], turns about x and then y.
        joint_offset: [K, J] rad from the start posture.
        joint_velocity: [K, J] rad/s.
    """

    width_scale: Tensor
    yaw_scale: Tensor
    tilt_rad: Tensor
    joint_offset: Tensor
    joint_velocity: Tensor


class EpisodeStarts(nn.Module):
    """Draws the starts of episodes of N environments.

    Attributes:
        rest_height: [N] m, height of the objects' centres above the table when they stand on it.
    """

    rest_height: Tensor
    _center_height: Tensor
    _limits: Tensor
    _center: Tensor
    _half_width: Tensor
    _whole: Tensor
    _halves: Tensor

    def __init__(
        self, config: GraspConfig, robot: Robot, streams: RandomStreams, decoder: Decoder
    ) -> None:
        """Args:
        config: The task.
        robot: Has the joint limits.
        streams: Of the environments; environment i of the run has object i modulo the number of
            objects.
        decoder: Gives the start posture and checks others.

        Raises:
            ConfigError: An object starts inside the table, rests or starts outside the workspace,
                or does not rest below the goal.
        """
        super().__init__()
        self._config, self.streams, self._decoder = config, streams, decoder
        device, objects = streams.env.device, config.objects
        of_env = streams.env % len(objects)  # [N]
        rest = torch.tensor([item.solid.rest_height_m for item in objects])  # [M]
        extents = torch.tensor([item.extents_m for item in objects])  # [M, 3]
        half_diagonal = torch.linalg.norm(extents, dim=1) / 2
        center_height = self._center_heights(rest, half_diagonal)
        self._check_heights(rest, center_height)
        limits = torch.tensor([robot.lower.tolist(), robot.upper.tolist()], device=device)
        center = torch.tensor(config.spawn.center_m, device=device)
        half_width = torch.tensor(config.spawn.half_width_m, device=device)
        for name, value in (
            ("rest_height", rest.to(device)[of_env]),
            ("_center_height", center_height.to(device)[of_env]),
            ("_limits", limits),
            ("_center", center),
            ("_half_width", half_width),
            ("_whole", torch.ones(1, device=device)),
            ("_halves", 0.5 ** torch.arange(1, _HALVINGS + 1, device=device)[:, None, None]),
        ):
            self.register_buffer(name, value, persistent=False)

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> tuple[Tensor, ...]:
        """The starts of episodes; see `EpisodePart`.

        If the decoder refuses a posture, for example in an obstacle, its offset from the start
        posture and its velocity are halved, at most six times, and then set to 0.

        Returns:
            Joint positions [K, J] rad; poses of the objects [K, 7], xyz m and quaternion wxyz,
            base frame; unless all start at rest, joint velocities [K, J] rad/s.
        """
        posture = self._decoder.start_position.expand(len(ids), -1)  # [K, J]
        if not self._config.randomization.changes_starts:
            return posture, self._object_pose(ids, episode, None)
        spread = self._spread(ids, episode, difficulty)
        pose = self._object_pose(ids, episode, spread)
        share = self._share_taken(posture, spread.joint_offset)
        moved = self._moved(posture, share, spread.joint_offset)
        return torch.where(share > 0.0, moved, posture), pose, share * spread.joint_velocity

    def _moved(self, posture: Tensor, share: Tensor, offset: Tensor) -> Tensor:
        """Postures [..., K, J] moved by fractions [..., 1] of the offsets [K, J], within joint
        limits.
        """
        return torch.clamp(posture + share * offset, self._limits[0], self._limits[1])

    def _share_taken(self, posture: Tensor, offset: Tensor) -> Tensor:
        """Largest of 1, 1/2, 1/4, ... [K, 1] times the offset that the decoder accepts, or 0."""
        taken = self._decoder.can_start(self._moved(posture, self._whole, offset))  # [K]
        rows = rows_to_compute(~taken)  # [R]
        if not len(rows):
            return taken.float()[:, None]
        moved = self._moved(posture[rows], self._halves, offset[rows])  # [H, R, J]
        fits = self._decoder.can_start(moved.flatten(0, 1)).view(moved.shape[:2])  # [H, R]
        largest = (fits[..., None] * self._halves).amax(dim=0)  # [R, 1]
        return taken.float()[:, None].index_copy(
            0, rows, torch.where(taken[rows, None], 1.0, largest)
        )

    def _spread(self, ids: Tensor, episode: Tensor, difficulty: float) -> Spread:
        config, joints = self._config.randomization, self._limits.shape[1]
        drawn = self.streams.uniform(Purpose.START, episode, 0, 5 + 2 + 2 * joints, ids)
        # one size per episode and kind of error, one direction per joint or axis
        sizes = [
            schedule.sample(difficulty, drawn[:, column])
            for column, schedule in enumerate(
                (
                    config.spawn_width_scale,
                    config.spawn_yaw_scale,
                    config.spawn_tilt_rad,
                    config.joint_offset_rad,
                    config.joint_speed_rad_s,
                )
            )
        ]
        directions = 2.0 * drawn[:, 5:] - 1.0  # [K, 2 + 2 J]
        tilt, offset, velocity = directions.split((2, joints, joints), dim=1)
        return Spread(
            sizes[0],
            sizes[1],
            sizes[2][:, None] * tilt,
            sizes[3][:, None] * offset,
            sizes[4][:, None] * velocity,
        )

    def _object_pose(self, ids: Tensor, episode: Tensor, spread: Spread | None) -> Tensor:
        """[K, 7] xyz m and quaternion wxyz, base frame."""
        place = self.streams.symmetric(Purpose.SPAWN, episode, 0, 3, ids)  # [K, 3]: x, y, yaw
        where, turn = place[:, :2], self._config.spawn.yaw_rad * place[:, 2]
        if spread is not None:
            where, turn = where * spread.width_scale[:, None], turn * spread.yaw_scale
        position = self._center + self._half_width * where  # [K, 2]
        zero = torch.zeros_like(turn)
        upright = torch.stack(((turn / 2).cos(), zero, zero, (turn / 2).sin()), dim=1)
        rotation = upright if spread is None else tilted(upright, spread.tilt_rad)
        return torch.cat((position, self._center_height[ids, None], rotation), dim=1)

    def _center_heights(self, rest: Tensor, half_diagonal: Tensor) -> Tensor:
        """[M] m, base frame, of the M objects' centres at the start."""
        config = self._config
        height = rest
        if not config.randomization.spawn_tilt_rad.is_always(0.0):
            height = half_diagonal  # clear of the table in any orientation
        lowest = config.table.top_m + height + CLEARANCE_M
        if config.spawn.height_m is None:
            return lowest
        if lowest.max() > config.spawn.height_m:
            raise ConfigError(
                f"task.spawn.height_m {config.spawn.height_m} puts an object inside the table; "
                f"raise it to {lowest.max():.3f} m or leave it out"
            )
        return torch.full_like(rest, config.spawn.height_m)

    def _check_heights(self, rest_height: Tensor, center_height: Tensor) -> None:
        """Objects must start and rest in the workspace, and rest below the goal."""
        config, rest = self._config, self._config.table.top_m + rest_height
        lower_m, upper_m = (corner[2] for corner in config.workspace)
        lowest_m, highest_m = float(rest.min()), float(center_height.max())
        if lowest_m < lower_m or highest_m > upper_m:
            raise ConfigError(
                f"task: objects rest as low as {lowest_m:.3f} m and start as high as "
                f"{highest_m:.3f} m, outside the workspace from {lower_m:g} to {upper_m:g} m; "
                "widen `workspace_box_m` or change `spawn.height_m`"
            )
        if config.goal_m is not None and config.goal_m[2] <= rest.max():
            raise ConfigError(
                f"task.goal_m {config.goal_m} is not above {float(rest.max()):.3f} m, where an "
                "object's centre is when it stands on the table; raise it"
            )


def tilted(quaternion: Tensor, tilt_rad: Tensor) -> Tensor:
    """Rotations [K, 4] wxyz, turned further by [K, 2] rad about x and then y of the base."""
    (cx, cy), (sx, sy) = (tilt_rad / 2).cos().unbind(1), (tilt_rad / 2).sin().unbind(1)
    w, x, y, z = quaternion.unbind(1)
    w, x, y, z = cx * w - sx * x, cx * x + sx * w, cx * y - sx * z, cx * z + sx * y
    turned = (cy * w - sy * y, cy * x + sy * z, cy * y + sy * w, cy * z - sy * x)
    return torch.stack(turned, dim=1)
