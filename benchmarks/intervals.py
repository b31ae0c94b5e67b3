"""Confidence intervals over the runs of a benchmark."""

import math
import statistics
from collections.abc import Sequence

from scipy.stats import t as student_t

CONFIDENCE = 0.95


def interval_of_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a mean by Student's t, to four places; None for a single value."""
    if len(values) < 2:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return round(mean - half, 4), round(mean + half, 4)
