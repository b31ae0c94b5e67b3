"""What episodes came to, on average: one set of figures for training and for evaluation."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.vec_env import EPISODE_FIELDS, REWARD_TERMS, whole_episodes

_OBJECT, _SUCCESS = EPISODE_FIELDS.index("object"), EPISODE_FIELDS.index("success")
_PER_OBJECT = 50
"""Over how many of its last episodes the success of one object is taken."""


def episode_means(rows: Tensor) -> dict[str, float]:
    """Averages over episodes.

    Args:
        rows: [K, E], columns as `EPISODE_FIELDS`, K at least 1.

    Returns:
        `return`, `length` (steps), `success` (rate), `max_lift_m`, `drop_rate`; `time_to_goal_s`
        over the episodes that reached the goal region, NaN where none did; `in_goal_region`, the
        fraction of all steps in which the object was there; `reward_...` sums of the terms.
    """
    columns = dict(zip(EPISODE_FIELDS, rows.double().T, strict=True))
    means = {name: column.mean().item() for name, column in columns.items()}
    entry_s, length = columns["time_to_goal_s"], columns["length"]
    inside = columns["in_goal_region"] * length
    return {
        **{name: means[name] for name in ("return", "length", "success", "max_lift_m")},
        "drop_rate": means["dropped"],
        "time_to_goal_s": entry_s[entry_s >= 0].mean().item(),
        "in_goal_region": (inside.sum() / length.sum()).item(),
        **{f"reward_{name}": means[f"reward_{name}"] for name in REWARD_TERMS},
    }


class EpisodeStatistics:
    """Figures over the last whole episodes that ended, from the `episode` rows of rollouts."""

    def __init__(self, object_names: Sequence[str] = (), window: int = 300) -> None:
        """Args:
        object_names: Of the task's objects, in its order; those without a name are not listed.
        window: How many episodes the figures look back.
        """
        self._names = tuple(object_names)
        self._rows: deque[list[float]] = deque(maxlen=window)
        self._successes = [deque[float](maxlen=_PER_OBJECT) for _ in self._names]
        self.count = 0

    def add(self, episode: Tensor, ended: Tensor) -> None:
        """Takes the rows [..., E] where `ended` [...] bool is set; see `whole_episodes`."""
        rows = whole_episodes(episode, ended).tolist()
        self._rows.extend(rows)
        self.count += len(rows)
        for row in rows:
            if row[_OBJECT] < len(self._names):
                self._successes[int(row[_OBJECT])].append(row[_SUCCESS])

    @property
    def success(self) -> float:
        """Fraction of successes among the last episodes; NaN before any ended."""
        if not self._rows:
            return math.nan
        return sum(row[_SUCCESS] for row in self._rows) / len(self._rows)

    def per_object(self) -> dict[str, float]:
        """Success rate of each object over its last 50 episodes, of those that had any."""
        named = zip(self._names, self._successes, strict=True)
        return {name: sum(values) / len(values) for name, values in named if values}

    def figures(self) -> dict[str, float]:
        """For the metrics of an iteration: `episode/...`, `reward/<term>`, `object/<name>`."""
        if not self._rows:
            return {}
        figures = {}
        for name, value in episode_means(torch.tensor(list(self._rows))).items():
            term = name.removeprefix("reward_")
            figures[f"episode/{name}" if term == name else f"reward/{term}"] = value
        return figures | {f"object/{name}": rate for name, rate in self.per_object().items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "count": self.count,
            "fields": list(EPISODE_FIELDS),
            "rows": list(self._rows),
            "successes": dict(zip(self._names, map(list, self._successes), strict=True)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; of objects that are no longer in the task nothing is kept.

        Raises:
            ConfigError: It is of a version that kept other figures, as do its simulators.
        """
        if state.get("fields") != list(EPISODE_FIELDS):
            raise ConfigError(
                "the checkpoint is of a version that kept other figures of its episodes, so it "
                "cannot go on here; use the commit in run.json or start a new run"
            )
        self.count = state["count"]
        self._rows.clear()
        self._rows.extend(state["rows"])
        for name, values in zip(self._names, self._successes, strict=True):
            values.clear()
            values.extend(state["successes"].get(name, ()))
