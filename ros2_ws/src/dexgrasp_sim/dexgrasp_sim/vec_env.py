"""The contract between a batched environment and whatever steps it: a worker or a test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dexgrasp_sim.specs import TensorSpec

REWARD_TERMS = ("reach", "lift", "goal", "height", "curl")
"""What the reward of a step is the sum of."""

EPISODE_FIELDS = (
    "return",
    "length",
    "success",
    "max_lift_m",
    "dropped",
    "object",
    "whole",
    "time_to_goal_s",
    "in_goal_region",
    *(f"reward_{name}" for name in REWARD_TERMS),
)
"""Columns of the `episode` result; a row holds an episode's figures in the step that ended it.

`length` counts the steps that were lived. `success`, `dropped` and `whole` are 0 or 1; `whole` is
0 for a first episode that a staggered start let begin late: it had less time than others, so no
figures may count it. `time_to_goal_s` is when the object was first in the goal region, -1 if
never: averages must leave these out. `in_goal_region` is the fraction of the steps in which it
was there; its mean over episodes of equal length is the "success rate" of the paper's tables.
`reward_...` are the weighted sums of the reward terms, which add up to `return`.
"""
_WHOLE = EPISODE_FIELDS.index("whole")

RESULT_SPECS = (
    TensorSpec("reward", ()),
    TensorSpec("terminated", (), "bool"),
    TensorSpec("truncated", (), "bool"),
    TensorSpec("episode", (len(EPISODE_FIELDS),)),
)
"""Results that every environment writes beside its observation groups."""


def whole_episodes(episode: Tensor, ended: Tensor) -> Tensor:
    """The rows of the episodes that figures may count.

    Args:
        episode: [..., E] rows of `EPISODE_FIELDS`.
        ended: [...] bool, which rows hold an episode.

    Returns:
        [K, E].
    """
    rows = episode[ended]
    return rows[rows[:, _WHOLE] > 0]


@dataclass(frozen=True)
class EnvSpecs:
    """What must be known of an environment before one is built."""

    observation_specs: tuple[TensorSpec, ...]
    action_dim: int
    control_dt_s: float


class VecEnv(Protocol):
    """N environments that step together and write in place.

    `out` maps the names of `observation_specs` and `RESULT_SPECS` to tensors [N, *shape].

    Attributes:
        episode_count: [N] int64, number of each environment's episode. What an episode draws at
            random is a function of the seed, the environment and this number.
        diverged: [N] bool, where the physics failed in the last step; what `out` says of these
            means nothing, finite or not.
    """

    num_envs: int
    action_dim: int
    control_dt_s: float
    observation_specs: tuple[TensorSpec, ...]
    episode_count: Tensor
    diverged: Tensor

    def reset(self, out: Mapping[str, Tensor], first_episode: int = 0) -> None:
        """Starts an episode everywhere; writes observations, zeroes the results.

        Args:
            out: Written in place.
            first_episode: What `episode_count` counts from.
        """
        ...

    def reset_envs(self, env_ids: Tensor, out: Mapping[str, Tensor]) -> None:
        """Starts an episode in environments [K] int64, rising, of which at least one is given.

        Writes their observations; the other environments and their rows stay as they are, and so
        do the results. An episode that is cut off this way leaves no `episode` row.
        """
        ...

    def step(self, actions: Tensor, out: Mapping[str, Tensor]) -> None:
        """Advances one control period.

        Environments whose episode ends are reset inside: their reward, flags and `episode` row
        belong to the step that ended, their observations to the new episode.

        Args:
            actions: [N, action_dim] float32; values outside [-1, 1] are clamped.
            out: Written in place.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that is needed to continue bit-exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
        """Restores `state_dict` and writes the observations that belong to it."""
        ...

    def set_difficulty(self, difficulty: float) -> None:
        """How hard the episodes that begin from now on are, 0 to 1.

        No part of `state_dict`: who sets it says it again after `load_state_dict`.
        """
        ...

    def telemetry(self, index: int) -> dict[str, Tensor]:
        """One environment for people to look at.

        Returns:
            joint_position [23] rad, joint_velocity [23] rad/s, object_pose [7] (xyz m, quaternion
            wxyz, base frame), goal [3] m.
        """
        ...

    def timings(self) -> dict[str, float]:
        """Seconds spent since construction, by stage: at least `physics` and `render`."""
        ...

    def close(self) -> None:
        """Frees threads and memory; idempotent."""
        ...


def allocate(env: VecEnv) -> dict[str, Tensor]:
    """Zeros for `VecEnv.step` to write into, by name."""
    return {
        spec.name: spec.empty(env.num_envs) for spec in (*env.observation_specs, *RESULT_SPECS)
    }
