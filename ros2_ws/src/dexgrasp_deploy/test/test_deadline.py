"""The deadlines of a loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_deploy.control.deadline import Deadline

PERIOD_S = 0.1


@pytest.mark.parametrize(
    ("work_s", "missed", "next_s"),
    [(0.0, 0, 0.1), (0.09, 0, 0.1), (0.14, 1, 0.1), (0.16, 1, 0.2), (0.26, 2, 0.3)],
)
def test_less_than_half_a_period_late_stays_due(clock, work_s, missed, next_s):
    deadline = Deadline(PERIOD_S, clock)
    began_s = clock.now_s
    clock.now_s += work_s
    assert deadline.advance() == missed
    assert deadline.time_s - began_s == pytest.approx(next_s)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_work_begins_on_the_grid_and_never_too_soon(durations):
    now_s = [0.0]
    deadline = Deadline(PERIOD_S, lambda: now_s[0])
    began_s = -PERIOD_S
    for duration_s in durations:
        now_s[0] = max(now_s[0], deadline.time_s)  # waits
        periods = deadline.time_s / PERIOD_S
        assert periods == pytest.approx(round(periods))
        assert now_s[0] - began_s >= 0.5 * PERIOD_S - 1e-9
        began_s = now_s[0]
        now_s[0] += duration_s
        deadline.advance()
