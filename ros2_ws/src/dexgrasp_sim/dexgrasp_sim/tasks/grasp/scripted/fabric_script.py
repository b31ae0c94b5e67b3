"""A scripted policy for the fabric's eleven actions that reads the object's pose.

It waits above the object until the object rests, goes down with the hand open, pinches, and
carries the object to the goal. If it loses the object, it starts again.
"""

import math
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from dexgrasp_sim.control.fabric.decoder import FabricDecoder
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.rotation import zyx_euler_to_matrix
from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.scripted.pinch import PALM_PITCH_RAD, find_pinches
from dexgrasp_sim.tasks.grasp.scripted.plan import Grasp, Objects, height, plan
from dexgrasp_sim.tasks.grasp.scripted.reach import explore

_MARGIN_M, _WIDEST_OPENING_M = 0.04, 0.14
"""The open hand is wider than the object by the margin, but at most the widest opening."""
_SQUEEZE_M, _SQUEEZE_PER_WIDTH = 0.02, 0.33
"""The closed hand's goal is narrower than the object by this length and this share of its width.
Small objects slip away when pressed harder, large ones fall when pressed less."""
_CLOSING_M_S, _GRIP_S = 0.25, 0.15
"""Closing speed of the fingers' goal, and how long they press before the lift."""
_HOVER_M = 0.07
_PALM_CLEARANCE_M = 0.008
_LEAST_TIP_HEIGHT_M = 0.014
"""Smallest height of the tips' centres above the table."""
_LEAD_M = 0.05
"""Distance of the palm's goal ahead of the palm while carrying; less makes the fabric slower."""
_BESIDE_M, _ABOVE_M, _HOVER_S = 0.015, 0.03, 2.0
_DOWN_M, _DESCENT_S, _MISSED_M = 0.008, 1.0, 0.03
"""A descent ends within `_DOWN_M` of its place or after `_DESCENT_S`; if it is then further away
than `_MISSED_M`, the grasp has missed."""
_RESTING_M_S, _LEVER_M = 0.05, 0.05
"""Speed below which objects rest; angular velocity times the lever counts as speed."""
_FALL_S = 0.4
"""Time that dropped objects need to land; before it no object counts as resting."""
_LOST_M, _DRAGGED_M = 0.12, 0.08
_LIFT_S, _LIFTED_M = 0.7, 0.05
_STRAIGHT_UP_M = 0.15
_CORRECTION_PER_S, _CORRECTED_M, _MOST_CORRECTION_M = 3.0, 0.05, 0.04
"""Integral gain on the palm's position error, largest error that is integrated, and limit of the
integral."""


class Phase(IntEnum):
    """What a robot is doing; phases follow in this order, and a loss leads back to the first."""

    WAIT = 0
    HOVER = 1
    DESCEND = 2
    CLOSE = 3
    CARRY = 4


class Progress(NamedTuple):
    """Conditions [N] bool that end the phases in their order; `lost` ends any phase."""

    resting: Tensor
    above: Tensor
    down: Tensor
    shut: Tensor
    lost: Tensor


def next_phase(phase: Tensor, progress: Progress) -> Tensor:
    """The next phases [N] int64; CARRY lasts until the object is lost."""
    never = torch.zeros_like(progress.lost)
    ends = (progress.resting, progress.above, progress.down, progress.shut, never)
    done = torch.stack(ends).gather(0, phase[None])[0]
    return torch.where(progress.lost, int(Phase.WAIT), phase + done.long())


class FabricScriptedPolicy:
    """Waits, hovers, descends, pinches and carries, see `Phase`.

    Attributes:
        phase: [N] int64, see `Phase`.
        losses: [N] int64, how often the object was lost in this episode.
    """

    def __init__(self, env: GraspEnv) -> None:
        """Finds pinches and the palm's reach, which takes seconds, once per fabric config."""
        decoder = env.decoder
        assert isinstance(decoder, FabricDecoder)
        self._env, self._decoder = env, decoder
        self._pinches = find_pinches(decoder.config, env.robot)
        self._top_m = env.config.table.top_m
        self._reach = explore(decoder.config, env.robot, env.config.table_obstacle)
        self._palm = Kinematics(env.robot, [env.robot.palm])
        kinds = [env.config.objects[index] for index in env.object_index]
        self._extents = torch.tensor([kind.extents_m for kind in kinds])
        round_shapes = ("cylinder", "sphere")
        self._is_round = torch.tensor([kind.shape_class in round_shapes for kind in kinds])
        count = env.num_envs
        self.phase = torch.zeros(count, dtype=torch.int64)
        self.losses = torch.zeros(count, dtype=torch.int64)
        self._time_s = torch.zeros(count)
        self._opening = torch.full((count,), _WIDEST_OPENING_M)
        self._pinch = torch.zeros(count, 3)
        self._correction = torch.zeros(count, 3)
        self._grasp = plan(self._objects(), self._reach, self.losses)

    def act(self) -> Tensor:
        """Actions [N, action_dim] for the current state of the environments."""
        env, dt_s = self._env, self._env.control_dt_s
        self._restart(env.step_count == 0)
        self._look()
        grasp, phase = self._grasp, self.phase
        self._move_fingers(dt_s)
        components, _ = self._pinches.at(self._opening)  # [N, 5]
        _, center = self._pinches.at(torch.maximum(self._opening, grasp.width_m))
        pitch = torch.full_like(grasp.yaw_rad, PALM_PITCH_RAD)
        euler = torch.stack((grasp.yaw_rad, pitch, math.pi + grasp.roll_rad), 1)  # [N, 3], zyx
        palm = self._palm.forward(env.engine.joint_position)
        position, rotation = palm.position[:, 0], palm.rotation[:, 0]
        offset = (zyx_euler_to_matrix(euler) @ center[..., None]).squeeze(-1)  # [N, 3]
        wanted = self._place() - offset
        carried = (phase == Phase.CARRY)[:, None]
        wanted = torch.where(carried, position + self._to_goal(), wanted)
        error = position - wanted
        goal = torch.cat((wanted + self._corrected(error, dt_s), euler, components), 1)
        hand = position + (rotation @ center[..., None]).squeeze(-1)
        self._advance(self._progress(error, hand), dt_s)
        return self._decoder.actions_for(goal)

    def _objects(self) -> Objects:
        engine = self._env.engine
        position, rotation = engine.object_position, engine.object_rotation
        return Objects(position, rotation, self._extents, self._is_round)

    def _restart(self, begun: Tensor) -> None:
        self.phase[begun] = Phase.WAIT
        self.losses[begun] = 0
        self._time_s[begun] = 0.0

    def _look(self) -> None:
        """Plans the grasp anew while waiting, and updates its place until the descent."""
        objects, old = self._objects(), self._grasp
        waiting, free = self.phase == Phase.WAIT, self.phase <= Phase.HOVER
        fresh = plan(objects, self._reach, self.losses)
        self._grasp = Grasp(*(torch.where(waiting, new, kept) for new, kept in zip(fresh, old)))
        tall = height(objects)
        _, center = self._pinches.at(self._grasp.width_m)
        depth = math.cos(PALM_PITCH_RAD) * center[:, 2] + math.sin(PALM_PITCH_RAD) * center[:, 0]
        middle = objects.position[:, 2]
        under_palm = middle + tall / 2 + _PALM_CLEARANCE_M - depth
        tip = torch.maximum(middle - 0.1 * tall, under_palm)
        tip = tip.clamp_min(self._top_m + _LEAST_TIP_HEIGHT_M)
        place = torch.cat((objects.position[:, :2], tip[:, None]), 1)
        self._pinch = torch.where(free[:, None], place, self._pinch)

    def _move_fingers(self, dt_s: float) -> None:
        width, phase = self._grasp.width_m, self.phase
        wide = (width + _MARGIN_M).clamp(max=_WIDEST_OPENING_M)
        shut = width - _SQUEEZE_M - _SQUEEZE_PER_WIDTH * width
        closing = torch.maximum(self._opening - _CLOSING_M_S * dt_s, shut)
        opening = torch.where(phase == Phase.CLOSE, closing, self._opening)
        self._opening = torch.where(phase <= Phase.DESCEND, wide, opening)

    def _place(self) -> Tensor:
        """Goal position [N, 3] m of the pinch: above the object before the descent."""
        above = self._pinch.clone()
        hover = self._top_m + self._grasp.height_m + _HOVER_M
        above[:, 2] = torch.maximum(hover, above[:, 2])
        return torch.where((self.phase <= Phase.HOVER)[:, None], above, self._pinch)

    def _to_goal(self) -> Tensor:
        """Step [N, 3] m of the palm's goal towards the object's goal, straight up at first."""
        position = self._env.engine.object_position
        way = self._env.goal - position
        share = ((position[:, 2] - self._pinch[:, 2]) / _STRAIGHT_UP_M).clamp(0.0, 1.0)
        way = torch.cat((share[:, None] * way[:, :2], way[:, 2:]), 1)
        length = torch.linalg.norm(way, dim=1, keepdim=True)
        return way * (_LEAD_M / length.clamp_min(_LEAD_M))

    def _corrected(self, error: Tensor, dt_s: float) -> Tensor:
        """Integral [N, 3] m of the error, added to the goal against a steady-state error."""
        phase = self.phase
        near = torch.linalg.norm(error, dim=1) < _CORRECTED_M
        acts = ((phase == Phase.HOVER) | (phase == Phase.DESCEND)) & near
        change = torch.where(acts[:, None], -_CORRECTION_PER_S * dt_s * error, 0.0)
        summed = (self._correction + change).clamp(-_MOST_CORRECTION_M, _MOST_CORRECTION_M)
        kept = (phase != Phase.WAIT) & (phase != Phase.CARRY)
        self._correction = torch.where(kept[:, None], summed, 0.0)
        return self._correction

    def _progress(self, error: Tensor, hand: Tensor) -> Progress:
        env, phase, time_s = self._env, self.phase, self._time_s
        position = env.engine.object_position
        linear, angular = env.engine.object_velocity.split(3, dim=1)
        speed = torch.linalg.norm(linear, dim=1) + _LEVER_M * torch.linalg.norm(angular, dim=1)
        fallen = env.step_count * env.control_dt_s > _FALL_S
        resting = (speed < _RESTING_M_S) & fallen
        distance = torch.linalg.norm(error, dim=1)
        aside = torch.linalg.norm(error[:, :2], dim=1)
        close = (aside < _BESIDE_M) & (error[:, 2].abs() < _ABOVE_M)
        closing_s = (_MARGIN_M + _SQUEEZE_M + _SQUEEZE_PER_WIDTH * self._grasp.width_m) / (
            _CLOSING_M_S
        ) + _GRIP_S
        moved = torch.linalg.norm((position - self._pinch)[:, :2], dim=1)
        away = torch.linalg.norm(position - hand, dim=1) > _LOST_M
        left = (time_s > _LIFT_S) & (position[:, 2] < self._pinch[:, 2] + _LIFTED_M)
        lost = (phase == Phase.CARRY) & (away | left)
        missed = (phase == Phase.DESCEND) & (time_s > _DESCENT_S) & (distance > _MISSED_M)
        return Progress(
            resting=resting,
            above=(close & resting) | (time_s > _HOVER_S),
            down=(distance < _DOWN_M) | (time_s > _DESCENT_S),
            shut=time_s > closing_s,
            lost=lost | missed | ((phase == Phase.CLOSE) & (moved > _DRAGGED_M)),
        )

    def _advance(self, progress: Progress, dt_s: float) -> None:
        phase = next_phase(self.phase, progress)
        self.losses += progress.lost
        self._time_s = torch.where(phase == self.phase, self._time_s + dt_s, 0.0)
        self.phase = phase
