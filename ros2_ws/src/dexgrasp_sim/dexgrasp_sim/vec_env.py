"""The interface of batched environments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dexgrasp_sim.specs import TensorSpec, Term, flat_spec

EVERY_EPISODE = ("return", "length", "success", "whole")
"""The first columns of the `episode` result of every environment; an environment adds its own.

A row is valid only in the step that ends the episode. `length` counts simulated steps. `success`
and `whole` are 0 or 1. `whole` is 0 for a first episode with a staggered start: it was shorter
than others, so statistics must leave it out.
"""
SUCCESS = EVERY_EPISODE.index("success")
WHOLE = EVERY_EPISODE.index("whole")


def result_specs(episode_fields: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Specs of the results that an environment writes besides its observation groups.

    Args:
        episode_fields: The columns of its `episode` result.
    """
    return (
        TensorSpec("reward", ()),
        TensorSpec("terminated", (), "bool"),
        TensorSpec("truncated", (), "bool"),
        flat_spec("episode", [Term(name, 1, "") for name in episode_fields]),
    )


def whole_episodes(episode: Tensor, ended: Tensor) -> Tensor:
    """The rows of whole episodes, which statistics may use.

    Args:
        episode: [..., E] rows of the `episode` result.
        ended: [...] bool, which rows are valid.

    Returns:
        [K, E].
    """
    rows = episode[ended]
    return rows[rows[:, WHOLE] > 0]


@dataclass(frozen=True)
class EnvSpecs:
    """Properties of an environment that are known before it is built.

    Attributes:
        observation_specs: Observation groups, without the environment axis.
        action_dim: Length of an action.
        control_dt_s: Control period.
        episode_fields: Columns of the `episode` result, those of `EVERY_EPISODE` first.
        view_specs: Tensors of `VecEnv.telemetry`, for viewers.
    """

    observation_specs: tuple[TensorSpec, ...]
    action_dim: int
    control_dt_s: float
    episode_fields: tuple[str, ...] = EVERY_EPISODE
    view_specs: tuple[TensorSpec, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError if `episode_fields` does not begin with `EVERY_EPISODE`."""
        if self.episode_fields[: len(EVERY_EPISODE)] != EVERY_EPISODE:
            raise ValueError(
                f"episode fields {self.episode_fields} do not begin with {EVERY_EPISODE}; put "
                "an environment's own after these"
            )

    @property
    def result_specs(self) -> tuple[TensorSpec, ...]:
        """See the function of this name."""
        return result_specs(self.episode_fields)


class VecEnv(Protocol):
    """N environments that step together and write in place.

    `out` maps the names of `observation_specs` and `result_specs` to tensors [N, *shape].

    Attributes:
        episode_fields: Columns of the `episode` result, see `EnvSpecs`.
        episode_count: [N] int64, number of each environment's episode. Random draws of an episode
            depend only on the seed, the environment and this number.
        diverged: [N] bool, where the physics failed in the last step; their rows of `out` are
            meaningless even if finite.
    """

    num_envs: int
    action_dim: int
    control_dt_s: float
    observation_specs: tuple[TensorSpec, ...]
    episode_fields: tuple[str, ...]
    episode_count: Tensor
    diverged: Tensor

    def reset(self, out: Mapping[str, Tensor], first_episode: int = 0) -> None:
        """Starts an episode in all environments; writes observations and sets results to 0.

        Args:
            out: Written in place.
            first_episode: Value from which `episode_count` counts up.
        """
        ...

    def reset_envs(self, env_ids: Tensor, out: Mapping[str, Tensor]) -> None:
        """Starts an episode in environments [K] int64, rising, at least one.

        Writes their observations. Other environments, other rows and all results do not change.
        An episode that is interrupted in this way has no `episode` row.
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
        """The state needed to continue bit-exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
        """Restores `state_dict` and writes the observations that belong to it."""
        ...

    def set_difficulty(self, difficulty: float) -> None:
        """Sets the difficulty, 0 to 1, of episodes that begin from now on.

        It is not in `state_dict`: set it again after `load_state_dict`.
        """
        ...

    def telemetry(self, index: int) -> dict[str, Tensor]:
        """The tensors of `EnvSpecs.view_specs` for one environment, for viewers."""
        ...

    def timings(self) -> dict[str, float]:
        """Seconds spent since construction, by stage: at least `physics` and `render`."""
        ...

    def close(self) -> None:
        """Frees threads and memory; idempotent."""
        ...


def allocate(env: VecEnv) -> dict[str, Tensor]:
    """Zeros for `VecEnv.step` to write into, by name, on the environments' device."""
    specs = (*env.observation_specs, *result_specs(env.episode_fields))
    device = env.episode_count.device
    return {spec.name: spec.empty(env.num_envs).to(device) for spec in specs}
