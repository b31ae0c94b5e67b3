"""Where the time of a run goes: figures per iteration, and a table in the end."""

from collections.abc import Mapping, Sequence

ROLLOUT_STAGES = ("wait", "copy", "infer")
"""Stages of the learner that are the collecting of a rollout."""

WORKER_STAGES = ("simulating", "rendering", "waiting")


class IterationTimes:
    """Differences between totals."""

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
        # a worker that was restarted begins from zero
        spent = {name: max(v - self._before.get(name, 0.0), 0.0) for name, v in totals.items()}
        self._before = totals
        return spent


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """To milliseconds."""
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
