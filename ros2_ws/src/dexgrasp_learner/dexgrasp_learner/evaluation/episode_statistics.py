"""Averages over episodes: the same figures for training and for evaluation."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.vec_env import EVERY_EPISODE, SUCCESS, whole_episodes

_PER_OBJECT = 50
"""Number of last episodes over which the success rate of one object is taken."""
_NOT_AVERAGED = ("whole", "object")


def episode_means(rows: Tensor, fields: Sequence[str]) -> dict[str, float]:
    """Averages over episodes.

    Args:
        rows: [K, E], K at least 1.
        fields: Names of the columns, see `EnvSpecs.episode_fields`.

    Returns:
        The mean of every numeric column by its name, except: `dropped` is named `drop_rate`;
        `time_to_goal_s` is the mean over episodes that reached the goal region, NaN if none did;
        `in_goal_region` is the fraction of all steps in which the object was there.
    """
    columns = dict(zip(fields, rows.double().T, strict=True))
    means = {n: column.mean().item() for n, column in columns.items() if n not in _NOT_AVERAGED}
    if "time_to_goal_s" in columns:
        entry_s = columns["time_to_goal_s"]
        means["time_to_goal_s"] = entry_s[entry_s >= 0].mean().item()
    if "in_goal_region" in columns:
        inside = columns["in_goal_region"] * columns["length"]
        means["in_goal_region"] = (inside.sum() / columns["length"].sum()).item()
    return {"drop_rate" if name == "dropped" else name: mean for name, mean in means.items()}


class EpisodeStatistics:
    """Figures over the last complete episodes, from the `episode` rows of rollouts."""

    def __init__(
        self,
        fields: Sequence[str] = EVERY_EPISODE,
        object_names: Sequence[str] = (),
        window: int = 300,
    ) -> None:
        """Args:
        fields: Columns of the `episode` result; includes `object` if `object_names` is given.
        object_names: Of the task's objects, in its order; those without a name are not listed.
        window: Number of last episodes over which the figures are taken.
        """
        self._fields = tuple(fields)
        self._names = tuple(object_names)
        self._object = self._fields.index("object") if object_names else -1
        self._rows: deque[list[float]] = deque(maxlen=window)
        self._successes = [deque[float](maxlen=_PER_OBJECT) for _ in self._names]
        self.count = 0

    def add(self, episode: Tensor, ended: Tensor) -> None:
        """Adds the rows [..., E] where `ended` [...] bool is set; see `whole_episodes`."""
        rows = whole_episodes(episode, ended).tolist()
        self._rows.extend(rows)
        self.count += len(rows)
        for row in rows:
            if self._names and row[self._object] < len(self._names):
                self._successes[int(row[self._object])].append(row[SUCCESS])

    @property
    def success(self) -> float:
        """Fraction of successes among the last episodes; NaN before any ended."""
        if not self._rows:
            return math.nan
        return sum(row[SUCCESS] for row in self._rows) / len(self._rows)

    def per_object(self) -> dict[str, float]:
        """Success rate over the last 50 episodes of each object that had any."""
        named = zip(self._names, self._successes, strict=True)
        return {name: sum(values) / len(values) for name, values in named if values}

    def figures(self) -> dict[str, float]:
        """For the metrics of an iteration: `episode/...`, `reward/<term>`, `object/<name>`."""
        if not self._rows:
            return {}
        figures = {}
        means = episode_means(torch.tensor(list(self._rows)), self._fields)
        for name, value in means.items():
            term = name.removeprefix("reward_")
            figures[f"episode/{name}" if term == name else f"reward/{term}"] = value
        return figures | {f"object/{name}": rate for name, rate in self.per_object().items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "count": self.count,
            "fields": list(self._fields),
            "rows": list(self._rows),
            "successes": dict(zip(self._names, map(list, self._successes), strict=True)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; objects that are no longer in the task are dropped.

        Raises:
            ConfigError: It comes from a version with other episode columns.
        """
        if state.get("fields") != list(self._fields):
            raise ConfigError(
                "the checkpoint comes from a version with other episode columns and cannot be "
                "resumed here; use the commit in run.json or start a new run"
            )
        self.count = state["count"]
        self._rows.clear()
        self._rows.extend(state["rows"])
        for name, values in zip(self._names, self._successes, strict=True):
            values.clear()
            values.extend(state["successes"].get(name, ()))
