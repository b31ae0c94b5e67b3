"""How often lost workers may be replaced, and the record of those that were."""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 600.0
"""Restarts of a worker are counted over this time: several within it mean a lasting fault."""


@dataclass
class Restart:
    """One worker that was lost and replaced.

    Attributes:
        index: Worker index.
        hung: Whether it hung; else it had ended.
        noticed_s: When that was noticed, monotonic.
        ready_s: When the slot that it had to fill was complete; NaN until then.
    """

    index: int
    hung: bool
    noticed_s: float
    ready_s: float = math.nan


class RestartBudget:
    """Grants every worker a number of restarts within `WINDOW_S`."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        limit: Restarts per worker within `WINDOW_S`.
        clock: Monotonic seconds.
        """
        self._limit, self._clock = limit, clock
        self._taken_s: defaultdict[int, list[float]] = defaultdict(list)

    def take(self, index: int) -> bool:
        """Whether worker `index` may be restarted once more; counts the restart if so."""
        now_s = self._clock()
        recent = [taken_s for taken_s in self._taken_s[index] if now_s - taken_s < WINDOW_S]
        if len(recent) >= self._limit:
            return False
        self._taken_s[index] = [*recent, now_s]
        return True
