"""When the next period of a loop begins."""

from collections.abc import Callable
from math import ceil


class Deadline:
    """Absolute deadlines, one period apart.

    If a period's work ends after the next deadline, that one stays due when it is less than half a
    period late. Otherwise the missed deadlines are skipped, so that two commands never follow each
    other too closely.

    Attributes:
        time_s: The next one.
    """

    def __init__(self, period_s: float, clock: Callable[[], float]) -> None:
        """The first deadline is now."""
        self._period_s, self._clock = period_s, clock
        self.time_s = clock()

    @property
    def late_s(self) -> float:
        """For how long it has been due; below 0 before that."""
        return self._clock() - self.time_s

    def advance(self) -> int:
        """Goes on to the next one; returns how many periods the work ended late, 0 if in time."""
        self.time_s += self._period_s
        late = self.late_s / self._period_s
        if late <= 0:
            return 0
        self.time_s += int(late + 0.5) * self._period_s
        return ceil(late)
