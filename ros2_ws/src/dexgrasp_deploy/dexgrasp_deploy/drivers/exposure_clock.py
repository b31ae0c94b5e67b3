"""Frame stamps of a camera as times of the monotonic clock."""

import time
from collections.abc import Callable

_DRIFT = 1e-4
"""Share by which a device's clock may run slow against ours; quartz is within 100 ppm."""

_LEAP_S = 5.0
"""No frame waits longer than this for the first to come."""


class ExposureClock:
    """Converts stamps of one device, in each of its clock domains.

    Stamps of the host's wall clock are as old as the wall clock says. Those of the device's own
    clock, whose zero is unknown, are placed so that the fastest frame took no time: what a frame
    waited more than the fastest is its age.
    """

    def __init__(
        self, clock: Callable[[], float], wall_clock: Callable[[], float] = time.time
    ) -> None:
        """Args:
        clock: Monotonic seconds.
        wall_clock: Seconds since 1970.
        """
        self._clock, self._wall = clock, wall_clock
        self._offset_s: float | None = None
        self._last_s = 0.0

    def of_wall_clock(self, stamp_s: float) -> float:
        """Monotonic time of a stamp in seconds since 1970."""
        return self._clock() - (self._wall() - stamp_s)

    def of_device(self, stamp_s: float) -> float:
        """Monotonic time of a stamp of the device's own clock; call it for every frame.

        A stamp that leaps forward counts from the frames before it, and so lies in the future.
        """
        now_s = self._clock()
        offset_s = now_s - stamp_s
        if self._offset_s is not None:
            allowed_s = self._offset_s + _DRIFT * max(0.0, now_s - self._last_s)
            if offset_s < allowed_s - _LEAP_S:
                return stamp_s + allowed_s
            offset_s = min(offset_s, allowed_s)
        self._offset_s, self._last_s = offset_s, now_s
        return stamp_s + offset_s
