"""Times by stage, with a clock that the test moves."""

import threading
import time

import pytest

from dexgrasp_learner.run.stopwatch import Stopwatch
from test_support.waiting import PATIENCE_S


@pytest.fixture
def tick(monkeypatch):
    """Makes the next looks at the clock read these seconds."""

    def set_times(*times_s):
        now = iter(times_s)
        monkeypatch.setattr(time, "perf_counter", lambda: next(now))

    return set_times


def test_a_stopwatch_adds_up_by_stage_also_when_a_stage_fails(tick):
    tick(0.0, 1.5, 10.0, 12.0, 20.0, 20.25)
    watch = Stopwatch()
    with watch.measure("rollout"):
        pass
    with watch.measure("update"):
        pass
    with pytest.raises(KeyError), watch.measure("rollout"):
        raise KeyError
    assert watch.seconds == {"rollout": 1.75, "update": 2.0}


def test_a_stage_inside_another_is_no_part_of_it(tick):
    # infer from 0 to 10 with copies from 1 to 3 and 4 to 5, then once more infer alone
    tick(0.0, 1.0, 3.0, 4.0, 5.0, 10.0, 20.0, 21.0)
    watch = Stopwatch()
    with watch.measure("infer"):
        for _ in range(2):
            with watch.measure("copy"):
                pass
    with watch.measure("infer"):
        pass
    assert watch.seconds == {"copy": 3.0, "infer": 8.0}


def test_threads_do_not_take_time_out_of_each_other(tick):
    # one thread updates from 0 to 10, the other one infers from 1 to 4
    tick(0.0, 1.0, 4.0, 10.0)
    watch = Stopwatch()
    inside, done = threading.Event(), threading.Event()

    def learn():
        with watch.measure("update"):
            inside.set()
            assert done.wait(PATIENCE_S)

    thread = threading.Thread(target=learn)
    thread.start()
    assert inside.wait(PATIENCE_S)
    with watch.measure("infer"):
        pass
    done.set()
    thread.join(PATIENCE_S)
    assert watch.seconds == {"infer": 3.0, "update": 10.0}
