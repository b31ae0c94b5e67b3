"""Time measurement of a run: a stopwatch, seconds per iteration, and a table at the end."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROLLOUT_STAGES = ("wait", "copy", "infer")
"""Stages of the learner that belong to collecting a rollout."""

WORKER_STAGES = ("simulating", "rendering", "waiting")


class Stopwatch:
    """Adds up seconds by stage.

    The time of a nested stage does not count for the outer one, so that the stages of a thread add
    up to its measured time. Several threads may measure at the same time if their stages differ.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._thread = threading.local()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the `with` block takes to a stage."""
        outer: list[float] | None = getattr(self._thread, "inner_s", None)
        self._thread.inner_s = inner_s = [0.0]
        started_s = time.perf_counter()
        try:
            yield
        finally:
            total_s = time.perf_counter() - started_s
            self.seconds[stage] = self.seconds.get(stage, 0.0) + total_s - inner_s[0]
            self._thread.inner_s = outer
            if outer is not None:
                outer[0] += total_s


class IterationTimes:
    """Seconds per iteration, from running totals."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}

    def since_last(
        self, seconds: Mapping[str, float], workers: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        """Seconds since the last call.

        Args:
            seconds: Of the learner since the run began, by stage.
            workers: The same of each worker, with `WORKER_STAGES`.

        Returns:
            `time/<stage>` of the learner and `time/workers_<stage>`, the mean of the workers.
        """
        totals = {f"time/{stage}": value for stage, value in seconds.items()}
        for stage in WORKER_STAGES:
            totals[f"time/workers_{stage}"] = sum(w[stage] for w in workers) / len(workers)
        # a restarted worker counts from zero again
        spent = {name: max(v - self._before.get(name, 0.0), 0.0) for name, v in totals.items()}
        self._before = totals
        return spent


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Rounds seconds to milliseconds."""
    return {name: round(value, 3) for name, value in seconds.items()}


def time_table(seconds: Mapping[str, float], workers: Sequence[Mapping[str, float]]) -> str:
    """A line per stage of the learner and per worker: seconds and share of what was measured.

    Args:
        seconds: As in `RunSummary`.
        workers: `worker_seconds` of it.
    """
    lines = [_line("learner", seconds)]
    for index, worker in enumerate(workers):
        lines.append(_line(f"worker {index}", {stage: worker[stage] for stage in WORKER_STAGES}))
    return "\n".join(lines)


def _line(name: str, seconds: Mapping[str, float]) -> str:
    total_s = max(sum(seconds.values()), 1e-9)
    parts = [f"{stage} {s:.1f} s ({s / total_s:.0%})" for stage, s in seconds.items()]
    return f"{name:10} " + "  ".join(parts)


def cpu_seconds() -> float:
    """CPU time of this process and of its children, those that have ended included.

    Children of children, and those of other hosts, count only after they have ended.
    """
    times = os.times()
    ended = times.children_user + times.children_system
    return times.user + times.system + ended + sum(map(_cpu_seconds_of, _children()))


def _children() -> list[str]:
    """Process ids of the children, where Linux tells them."""
    children: list[str] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            children += path.read_text().split()
    return children


def _cpu_seconds_of(process_id: str) -> float:
    """User and system time of a process, 0 if it has ended; see proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
