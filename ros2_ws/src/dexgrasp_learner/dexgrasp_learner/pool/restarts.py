"""How often lost workers may be replaced, and the record of those that were."""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 600.0
"""What is lost again and again within this time is broken and not unlucky."""


@dataclass
class Restart:
    """One worker that was lost and replaced.

    Attributes:
        index: Worker index.
        hung: Whether it hung; else it had ended.
        noticed_s: When that was noticed, monotonic.
        ready_s: When the slot that it owed was complete; NaN until then.
    """

    index: int
    hung: bool
    noticed_s: float
    ready_s: float = math.nan


class RestartBudget:
    """Grants every worker a number of restarts within `WINDOW_S`."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        limit: The number.
        clock: Monotonic seconds.
        """
        self._limit, self._clock = limit, clock
        self._taken_s: defaultdict[int, list[float]] = defaultdict(list)

    def take(self, index: int) -> bool:
        """Whether worker `index` may be restarted once more; if so, it counts as done."""
        now_s = self._clock()
        recent = [taken_s for taken_s in self._taken_s[index] if now_s - taken_s < WINDOW_S]
        if len(recent) >= self._limit:
            return False
        self._taken_s[index] = [*recent, now_s]
        return True
