"""What is drawn when episodes begin, on a GPU by one replay."""

from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from torch import Tensor

from dexgrasp_sim.device_graphs import Captured


class EpisodePart(Protocol):
    """Has values that are drawn at the start of an episode."""

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> tuple[Tensor, ...]:
        """Values [K, ...] of episodes, a function of the arguments that a GPU can replay.

        Args:
            ids: [K] int64 environments.
            episode: [K] int64, numbers of the episodes that begin.
            difficulty: Difficulty at which the schedules are evaluated, 0 to 1.
        """
        ...


class EpisodeDraws:
    """The draws of several parts."""

    def __init__(self, parts: Sequence[EpisodePart]) -> None:
        """Takes the parts."""
        self._parts, self._counts = parts, [0] * len(parts)
        self._values = Captured(self._values_of, any_rows=True)

    def draw(self, ids: Tensor, episode: Tensor, difficulty: float) -> list[tuple[Tensor, ...]]:
        """What `EpisodePart.draw` gives, for each part."""
        values = iter(self._values(ids, episode, difficulty=difficulty))
        return [tuple(islice(values, count)) for count in self._counts]

    def _values_of(self, ids: Tensor, episode: Tensor, *, difficulty: float) -> tuple[Tensor, ...]:
        drawn = [part.draw(ids, episode, difficulty) for part in self._parts]
        self._counts = [len(values) for values in drawn]
        return tuple(value for values in drawn for value in values)
