"""Where the time of a control period goes."""

import time
from collections.abc import Callable

from dexgrasp_deploy.control.telemetry.latency import Latencies, Stage


class LapTimer:
    """Divides control periods into stages that follow each other, so that they add up to it.

    A stage lasts from the end of the one before to its own. What the thread does after the last
    one, and its sleep, are `Stage.REST`.
    """

    def __init__(
        self,
        latencies: Latencies,
        clock: Callable[[], float],
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """Args:
        latencies: Where the stages are counted.
        clock: Monotonic seconds.
        cpu_clock: Seconds that this thread has computed.
        """
        self._latencies, self._clock, self._cpu_clock = latencies, clock, cpu_clock
        self._durations_s = [0.0] * len(Stage)
        self._cpu_s = [0.0] * len(Stage)
        self._used: list[Stage] = []
        self._kept = False
        self._last_s, self._last_cpu_s = clock(), cpu_clock()

    def begin(self) -> None:
        """A period begins, and the one before ends; it is counted if it was to be kept."""
        self.end(Stage.REST)
        if self._kept:
            for stage in self._used:
                row = stage.row
                self._latencies.add(stage, self._durations_s[row], self._cpu_s[row])
            self._latencies.add(Stage.PERIOD, sum(self._durations_s), sum(self._cpu_s))
        for stage in self._used:
            self._durations_s[stage.row] = self._cpu_s[stage.row] = 0.0
        self._used.clear()
        self._kept = False

    def end(self, stage: Stage) -> None:
        """A stage ends; one that comes in several parts is their sum."""
        now_s, cpu_s = self._clock(), self._cpu_clock()
        self._durations_s[stage.row] += now_s - self._last_s
        self._cpu_s[stage.row] += cpu_s - self._last_cpu_s
        self._last_s, self._last_cpu_s = now_s, cpu_s
        if stage not in self._used:
            self._used.append(stage)

    def keep(self) -> None:
        """This period counts: the policy has acted in it."""
        self._kept = True
