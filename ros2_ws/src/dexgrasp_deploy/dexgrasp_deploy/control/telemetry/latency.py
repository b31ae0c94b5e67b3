"""How long every stage of a control period takes, as histograms of a fixed size."""

from collections.abc import Mapping
from enum import Enum
from math import isfinite, isnan, log10
from typing import Any

import numpy as np


class Stage(Enum):
    """What is measured; each is a duration. The stages of a period are in their order.

    Attributes:
        row: 0 for the first, 1 for the next.
    """

    row: int

    def __init__(self, text: str) -> None:
        self.row = len(type(self).__members__)

    ARRIVAL = "exposure to arrival"
    """Of an image: exposure, transfer, driver and transport."""
    PAIRING = "arrival to pair"
    """From the first to the second image of a stereo pair."""
    WAITING = "arrival to step"
    """From the arrival of an image, or of the first of a pair, to the step that first uses it."""
    IMAGE_AGE = "image age"
    """From the exposure to the beginning of the step: the image's age in the observation."""
    JOINT_AGE = "joint age"
    """The same for the oldest joint measurement."""
    RECEIVING = "receiving"
    """Taking the messages of joints and images, and judging the joints."""
    PREPROCESSING = "preprocessing"
    """Judging, cropping, resizing images, and putting the observation together."""
    INFERENCE = "inference"
    """The policy."""
    DECODING = "decoding"
    """Action to joint targets: the fabric, or inverse kinematics."""
    EVIDENCE = "evidence"
    """What speaks for a grasp."""
    SAFETY = "safety"
    """The safety filter."""
    PUBLISHING = "publishing"
    """Handing the command over to the middleware or the driver."""
    REPORTING = "reporting"
    """Telling listeners of the step."""
    REST = "until the next step"
    """Callbacks of services and timers, and sleep."""
    PERIOD = "period"
    """From the beginning of a step to the next: the sum of the stages from receiving to rest."""
    ACTION_DELAY = "step to command"
    """From the beginning of the step to the end of publishing."""
    IMAGE_TO_COMMAND = "image to command"
    """From the exposure to the end of publishing."""
    LATENESS = "lateness"
    """From a period's deadline to its beginning."""


_LEAST_S = 1e-6
_PER_DECADE = 100
_BINS = 8 * _PER_DECADE + 1
"""From 1 us to 100 s in steps of 2.3 %; the first bin holds all below, the last all above."""
_UPPER_S = _LEAST_S * 10 ** (np.arange(_BINS) / _PER_DECADE)
_FORMAT = "dexgrasp latency 1"
_PERCENTILES = (50, 90, 99)


class Latencies:
    """Histograms of all stages. Adding a duration changes numbers in place and allocates nothing.

    Attributes:
        control_dt_s: Control period of the policy.
    """

    def __init__(self, control_dt_s: float) -> None:
        self.control_dt_s = control_dt_s
        self._counts = [[0] * _BINS for _ in Stage]  # lists: numpy is slow at single elements
        self._sums_s = [0.0] * len(Stage)
        self._cpu_s = [0.0] * len(Stage)
        self._largest_s = [0.0] * len(Stage)

    def add(self, stage: Stage, duration_s: float, cpu_s: float = 0.0) -> None:
        """Counts a duration, s; one that is negative counts as 0, one that is no number not.

        `cpu_s` is the part of it in which the thread computed, where that was measured.
        """
        if not isfinite(duration_s):
            return
        row, column = stage.row, 0
        if duration_s > _LEAST_S:
            column = int(_PER_DECADE * log10(duration_s / _LEAST_S)) + 1
        self._counts[row][column if column < _BINS else -1] += 1
        self._cpu_s[row] += cpu_s
        if duration_s > 0.0:
            self._sums_s[row] += duration_s
        if duration_s > self._largest_s[row]:
            self._largest_s[row] = duration_s

    def count(self, stage: Stage) -> int:
        """How many durations were counted."""
        return sum(self._counts[stage.row])

    def mean_s(self, stage: Stage) -> float:
        """Mean; NaN where nothing was counted."""
        count = self.count(stage)
        return self._sums_s[stage.row] / count if count else float("nan")

    def mean_cpu_s(self, stage: Stage) -> float:
        """Mean computing time; NaN where it was not measured."""
        measured = self._cpu_s[stage.row] > 0.0
        return self._cpu_s[stage.row] / self.count(stage) if measured else float("nan")

    def largest_s(self, stage: Stage) -> float:
        """The largest; 0 where nothing was counted."""
        return self._largest_s[stage.row]

    def percentile_s(self, stage: Stage, percent: float) -> float:
        """The duration that `percent` % do not exceed, up to 2.4 % too large; NaN without any."""
        counts = np.array(self._counts[stage.row])
        total = counts.sum()
        if not total:
            return float("nan")
        column = int(np.searchsorted(counts.cumsum(), np.ceil(total * percent / 100)))
        return min(float(_UPPER_S[min(column, _BINS - 1)]), self.largest_s(stage))

    def summary(self) -> dict[str, dict[str, float]]:
        """Figures in ms of every stage that was measured, by its name; `cpu_ms` is the mean
        computing time, where that was measured.
        """
        return {stage.value: self._figures(stage) for stage in Stage if self.count(stage)}

    def _figures(self, stage: Stage) -> dict[str, float]:
        figures: dict[str, float] = {"count": self.count(stage)}
        figures["mean_ms"] = _ms(self.mean_s(stage))
        for percent in _PERCENTILES:
            figures[f"p{percent}_ms"] = _ms(self.percentile_s(stage, percent))
        figures["max_ms"] = _ms(self.largest_s(stage))
        if not isnan(self.mean_cpu_s(stage)):
            figures["cpu_ms"] = _ms(self.mean_cpu_s(stage))
        return figures

    def as_dict(self) -> dict[str, Any]:
        """JSON values: `format`, `control_dt_s`, and `stages`, see `summary`, each with its
        `histogram`: pairs of the upper end of a bin in ms and the number in it.
        """
        stages: dict[str, dict[str, Any]] = {**self.summary()}
        for stage in Stage:
            if stage.value in stages:
                counts = self._counts[stage.row]
                filled = np.flatnonzero(counts)
                stages[stage.value]["histogram"] = [
                    [float(f"{1000 * _UPPER_S[column]:.6g}"), counts[column]] for column in filled
                ]
        return {"format": _FORMAT, "control_dt_s": self.control_dt_s, "stages": stages}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Latencies":
        """From the result of `as_dict`.

        Raises:
            ValueError: It is none.
        """
        if values.get("format") != _FORMAT:
            raise ValueError(f"format is {values.get('format')!r}, not {_FORMAT!r}")
        try:
            made = Latencies(float(values["control_dt_s"]))
            for name, figures in values["stages"].items():
                row = Stage(name).row
                made._counts[row] = _counts(figures["histogram"])
                made._sums_s[row] = figures["mean_ms"] * figures["count"] / 1000
                made._cpu_s[row] = figures.get("cpu_ms", 0.0) * figures["count"] / 1000
                made._largest_s[row] = figures["max_ms"] / 1000
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"a stage is incomplete ({error})") from None
        return made

    def table(self) -> str:
        """The summary as lines for people."""
        heads = ("count", "mean", *(f"p{percent}" for percent in _PERCENTILES), "max", "cpu")
        lines = [f"{'latency, ms':20}" + "".join(f"{head:>9}" for head in heads)]
        for name, figures in self.summary().items():
            count, *values = figures.values()
            cells = "".join(f"{value:9.2f}" for value in values)
            lines.append(f"{name:20}{count:9.0f}{cells}")
        return "\n".join(lines)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 4)


def _counts(histogram: list[list[float]]) -> list[int]:
    counts = [0] * _BINS
    for upper_ms, count in histogram:
        column = round(_PER_DECADE * log10(upper_ms / 1000 / _LEAST_S))
        counts[column] = int(count)
    return counts
