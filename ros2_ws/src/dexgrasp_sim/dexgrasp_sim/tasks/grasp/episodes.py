"""Results of an episode: success, time to the goal, drops and sums of the reward terms."""

from typing import Annotated, NamedTuple, overload

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.tasks.grasp.rewards import TERMS
from dexgrasp_sim.vec_env import EVERY_EPISODE, result_specs

Positive = Annotated[float, Field(gt=0)]


def episode_fields() -> tuple[str, ...]:
    """Columns of the `episode` result.

    `dropped` is 0 or 1, `object` the index of the environment's object. `time_to_goal_s` is the
    time at which the object first was in the goal region, or -1 if it never was; averages must
    leave out the -1. `in_goal_region` is the fraction of the steps with the object in the region;
    its mean over episodes of equal length is the "success rate" of the paper's tables.
    `reward_...` are the sums of the weighted reward terms; together they are `return`.
    """
    return (
        *EVERY_EPISODE,
        "max_lift_m",
        "dropped",
        "object",
        "time_to_goal_s",
        "in_goal_region",
        *(f"reward_{name}" for name in TERMS),
    )


REWARD_TERMS, EPISODE_FIELDS = tuple(TERMS), episode_fields()
RESULT_SPECS = result_specs(EPISODE_FIELDS)

NEVER = -1.0
"""`time_to_goal_s` of an episode in which the object was never in the goal region."""
_STANDING_M = 0.005
"""An object that starts less than this above the table stands on it."""


@dataclass(frozen=True, config=STRICT)
class SuccessConfig:
    """When an episode counts as a success: the object is in the goal region during the last
    `hold_s`, and in the hand at the end.

    The goal region is the space more than `height_m` above the table, for the object's lowest
    point, or, with `goal_radius_m`, a ball about the goal, for its centre.

    Attributes:
        height_m: An object is lifted when its lowest point is higher than this above the table.
            That does not depend on how it lies or is held.
        hold_s: How long before the end the object must have been in the goal region.
        reach_m: Largest distance of any fingertip or the grasp centre from the object.
        goal_radius_m: Radius of the ball, 0.1 in the paper. None: `height_m` defines the region.
        end_after_hold_s: An episode ends when the object has been in the region for this time (2 s
            in the paper's distillation). None: it lasts until its time-out.
    """

    height_m: Positive = 0.10
    hold_s: Positive = 0.5
    reach_m: Positive = 0.20
    goal_radius_m: Positive | None = None
    end_after_hold_s: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> "SuccessConfig":
        if self.end_after_hold_s is not None and self.end_after_hold_s < self.hold_s:
            raise ValueError(
                f"`end_after_hold_s` {self.end_after_hold_s:g} is below `hold_s` "
                f"{self.hold_s:g}, so that no episode could succeed; raise it or lower `hold_s`"
            )
        return self

    def hold_steps(self, control_dt_s: float) -> int:
        """`hold_s` in control steps; at least one, the last step of the episode."""
        return max(1, round(self.hold_s / control_dt_s))

    @overload
    def in_region(self, height_m: float, goal_distance_m: float) -> bool: ...

    @overload
    def in_region(self, height_m: Tensor, goal_distance_m: Tensor) -> Tensor: ...

    def in_region(
        self, height_m: float | Tensor, goal_distance_m: float | Tensor
    ) -> bool | Tensor:
        """Whether an object is in the goal region.

        Args:
            height_m: Of its lowest point above the table.
            goal_distance_m: Of its centre from the goal.
        """
        if self.goal_radius_m is not None:
            return goal_distance_m < self.goal_radius_m
        return height_m > self.height_m


class Progress(NamedTuple):
    """Figures of the current episodes of N environments.

    Attributes:
        skipped_steps: [N] int64, step of the episode at which a staggered start began.
        landed: [N] bool, whether heights count.
        held_steps: [N] int64, for how many steps without a break the object has been in the goal
            region.
        inside_steps: [N] int64, in how many steps of the episode it was there.
        entry_step: [N] int64, step in which it was there first; 0: not yet.
        max_height_m: [N], greatest height.
        term_sums: [N, T], sums of the weighted reward terms.
    """

    skipped_steps: Tensor
    landed: Tensor
    held_steps: Tensor
    inside_steps: Tensor
    entry_step: Tensor
    max_height_m: Tensor
    term_sums: Tensor


class EpisodeTracker(nn.Module):
    """Tracks the current episodes of N environments and computes the columns `episode_fields`.

    Heights are those of the object's lowest point above the table. An object that starts in the
    air must not count as lifted. So heights count only after it was below half of `height_m`. The
    attributes are those of `Progress`.
    """

    skipped_steps: Tensor
    landed: Tensor
    held_steps: Tensor
    inside_steps: Tensor
    entry_step: Tensor
    max_height_m: Tensor
    term_sums: Tensor

    def __init__(self, rule: SuccessConfig, control_dt_s: float, object_index: Tensor) -> None:
        """Args:
        rule: When an episode is a success.
        control_dt_s: Control period.
        object_index: [N] int64, which object each environment has.
        """
        super().__init__()
        self._rule, self._dt_s = rule, control_dt_s
        whole = torch.zeros_like(object_index)
        numbers = torch.zeros(len(object_index), device=object_index.device)
        self.register_buffer("_object_index", object_index, persistent=False)
        for name in ("skipped_steps", "held_steps", "inside_steps", "entry_step"):
            self.register_buffer(name, whole.clone())
        self.register_buffer("landed", whole.bool())
        self.register_buffer("max_height_m", numbers)
        self.register_buffer("term_sums", numbers.new_zeros(len(numbers), len(TERMS)))

    def begin(self, env_ids: Tensor, height_m: Tensor) -> None:
        """Begins episodes.

        Args:
            env_ids: [K] int64 environments.
            height_m: [K].
        """
        for name in Progress._fields:
            getattr(self, name).index_fill_(0, env_ids, 0)
        self.landed[env_ids] = height_m < _STANDING_M

    def track(
        self, step: Tensor, height_m: Tensor, goal_distance_m: Tensor, terms: Tensor
    ) -> None:
        """Updates the figures after one control step.

        Args:
            step: [N] int64, number of the step in the episode, from 1.
            height_m: [N].
            goal_distance_m: [N] of the object from the goal.
            terms: [N, T] weighted reward terms.
        """
        self.take(self.tracked(self.progress, step, height_m, goal_distance_m, terms))

    @property
    def progress(self) -> Progress:
        """The figures as they are now."""
        return Progress(*(getattr(self, name) for name in Progress._fields))

    def take(self, progress: Progress) -> None:
        """Replaces the figures."""
        for name, value in progress._asdict().items():
            setattr(self, name, value)

    def tracked(
        self,
        before: Progress,
        step: Tensor,
        height_m: Tensor,
        goal_distance_m: Tensor,
        terms: Tensor,
    ) -> Progress:
        """The figures after one control step, see `track`, from those before it."""
        landed = before.landed | (height_m < self._rule.height_m / 2)
        height_m = torch.where(landed, height_m, 0.0)
        inside = self._rule.in_region(height_m, goal_distance_m)
        entered = inside & (before.entry_step == 0)
        return Progress(
            before.skipped_steps,
            landed,
            torch.where(inside, before.held_steps + 1, 0),
            before.inside_steps + inside,
            torch.where(entered, step - before.skipped_steps, before.entry_step),
            torch.fmax(before.max_height_m, height_m),
            before.term_sums + terms,
        )

    def held_to_end(self, progress: Progress) -> Tensor:
        """[N] bool: the object has been in the goal region for `end_after_hold_s`."""
        if self._rule.end_after_hold_s is None:
            return torch.zeros_like(progress.landed)
        return progress.held_steps >= max(1, round(self._rule.end_after_hold_s / self._dt_s))

    def rows(
        self, step: Tensor, height_m: Tensor, farthest_m: Tensor, truncated: Tensor
    ) -> Tensor:
        """`rows_of` the current episodes."""
        return self.rows_of(self.progress, step, height_m, farthest_m, truncated)

    def rows_of(
        self,
        progress: Progress,
        step: Tensor,
        height_m: Tensor,
        farthest_m: Tensor,
        truncated: Tensor,
    ) -> Tensor:
        """The figures of episodes, as if they ended now.

        Args:
            progress: Of the episodes.
            step: As for `track`.
            height_m: As for `track`.
            farthest_m: [N] largest distance of a fingertip or the grasp centre to the object.
            truncated: [N] bool, whether they end by time-out or success, not by failure.

        Returns:
            [N, E], columns as `episode_fields`.
        """
        rule, length = self._rule, (step - progress.skipped_steps).float()
        held = progress.held_steps >= rule.hold_steps(self._dt_s)
        lost = (progress.max_height_m > rule.height_m) & (height_m < rule.height_m / 2)
        entry_s = torch.where(progress.entry_step > 0, progress.entry_step * self._dt_s, NEVER)
        figures = {
            "return": progress.term_sums.sum(dim=1),
            "length": length,
            "success": truncated & held & (farthest_m < rule.reach_m),
            "max_lift_m": progress.max_height_m,
            "dropped": lost,
            "object": self._object_index,
            "whole": progress.skipped_steps == 0,
            "time_to_goal_s": entry_s,
            "in_goal_region": progress.inside_steps / length,
            **{f"reward_{name}": progress.term_sums[:, i] for i, name in enumerate(TERMS)},
        }
        return torch.stack([figures[name].float() for name in episode_fields()], dim=1)
