"""What an episode came to: success, time to the goal, drops and sums of the reward terms."""

from typing import Annotated, overload

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

    `dropped` is 0 or 1, `object` the index of the environment's object. `time_to_goal_s` is when
    the object was first in the goal region, -1 if never: averages must leave these out.
    `in_goal_region` is the fraction of the steps in which it was there; its mean over episodes of
    equal length is the "success rate" of the paper's tables. `reward_...` are the weighted sums of
    the reward terms, which add up to `return`.
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
"""An object that starts no higher than this above its rest stands on the table."""
_STATE = (
    "skipped_steps",
    "landed",
    "held_steps",
    "inside_steps",
    "entry_step",
    "max_height_m",
    "term_sums",
)


@dataclass(frozen=True, config=STRICT)
class SuccessConfig:
    """When an episode counts as a success: at its end, and for `hold_s` before, the object is in
    the goal region; at the end it is in the hand.

    The goal region is all that is more than `height_m` above the start height or, with
    `goal_radius_m`, a ball about the goal.

    Attributes:
        height_m: An object is lifted when it is higher than this above its start height.
        hold_s: How long before the end the object must have been in the goal region.
        reach_m: Largest distance of any fingertip or the grasp centre from the object.
        goal_radius_m: Radius of the ball; the paper's is 0.1. None: the height decides.
        end_after_hold_s: An episode ends when the object has been in the region for so long (2 in
            the paper's distillation); None: it goes on to its time-out.
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
        """`hold_s` in control steps, at least one: a success was in the region at its end."""
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
            height_m: Above its start height.
            goal_distance_m: Of its centre from the goal.
        """
        if self.goal_radius_m is not None:
            return goal_distance_m < self.goal_radius_m
        return height_m > self.height_m


class EpisodeTracker(nn.Module):
    """Follows the present episodes of N environments and sums them up as `episode_fields`.

    An object that is dropped onto the table at the start of an episode is not taken for a lifted
    one: heights count from when it has been within half of `height_m` of its rest.

    Attributes:
        skipped_steps: [N] int64, how far into the episode a staggered start began.
        landed: [N] bool, whether heights count.
        held_steps: [N] int64, how many steps the object has been in the goal region by now.
        inside_steps: [N] int64, how many steps of the episode it was there.
        entry_step: [N] int64, the step in which it first was there, 0: not yet.
        max_height_m: [N], greatest height above the start.
        term_sums: [N, T], sums of the weighted reward terms.
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
            height_m: [K] of the object above its height at rest.
        """
        for name in _STATE:
            getattr(self, name)[env_ids] = 0
        self.landed[env_ids] = height_m < _STANDING_M

    def track(
        self, step: Tensor, height_m: Tensor, goal_distance_m: Tensor, terms: Tensor
    ) -> None:
        """Takes one step.

        Args:
            step: [N] int64, its number in the episode, the first being 1.
            height_m: [N] of the object above its height at rest.
            goal_distance_m: [N] of the object from the goal.
            terms: [N, T] weighted reward terms.
        """
        self.landed |= height_m < self._rule.height_m / 2
        height_m = torch.where(self.landed, height_m, 0.0)
        inside = self._rule.in_region(height_m, goal_distance_m)
        self.held_steps = torch.where(inside, self.held_steps + 1, 0)
        self.inside_steps += inside
        entered = inside & (self.entry_step == 0)
        self.entry_step = torch.where(entered, step - self.skipped_steps, self.entry_step)
        self.max_height_m = torch.fmax(self.max_height_m, height_m)
        self.term_sums += terms

    def held_to_end(self) -> Tensor:
        """[N] bool: the object has been in the goal region for `end_after_hold_s`."""
        if self._rule.end_after_hold_s is None:
            return torch.zeros_like(self.landed)
        return self.held_steps >= max(1, round(self._rule.end_after_hold_s / self._dt_s))

    def rows(
        self, step: Tensor, height_m: Tensor, farthest_m: Tensor, truncated: Tensor
    ) -> Tensor:
        """The figures of the present episodes, should they end now.

        Args:
            step: As for `track`.
            height_m: As for `track`.
            farthest_m: [N] largest distance of a fingertip or the grasp centre to the object.
            truncated: [N] bool, whether they end without having failed.

        Returns:
            [N, E], columns as `episode_fields`.
        """
        rule, length = self._rule, (step - self.skipped_steps).float()
        held = self.held_steps >= rule.hold_steps(self._dt_s)
        lost = (self.max_height_m > rule.height_m) & (height_m < rule.height_m / 2)
        entry_s = torch.where(self.entry_step > 0, self.entry_step * self._dt_s, NEVER)
        figures = {
            "return": self.term_sums.sum(dim=1),
            "length": length,
            "success": truncated & held & (farthest_m < rule.reach_m),
            "max_lift_m": self.max_height_m,
            "dropped": lost,
            "object": self._object_index,
            "whole": self.skipped_steps == 0,
            "time_to_goal_s": entry_s,
            "in_goal_region": self.inside_steps / length,
            **{f"reward_{name}": self.term_sums[:, i] for i, name in enumerate(TERMS)},
        }
        return torch.stack([figures[name].float() for name in episode_fields()], dim=1)
