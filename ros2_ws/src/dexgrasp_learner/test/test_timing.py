"""Times by stage, with a clock that the test moves."""

import threading
import time

import pytest

from dexgrasp_learner.timing import IterationTimes, Stopwatch, time_table
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


def worker(simulating, rendering, waiting):
    return {
        "steps": 4.0, "simulating": simulating, "rendering": rendering, "waiting": waiting,
    }  # fmt: skip


def test_figures_are_what_an_iteration_took_and_the_mean_of_the_workers():
    times = IterationTimes()
    times.since_last({"wait": 1.0}, [worker(1.0, 0.0, 2.0), worker(3.0, 0.0, 2.0)])
    figures = times.since_last(
        {"wait": 1.5, "update": 4.0}, [worker(2.0, 1.0, 2.5), worker(5.0, 2.0, 2.5)]
    )
    assert figures == {
        "time/wait": 0.5,
        "time/update": 4.0,
        "time/workers_simulating": 1.5,
        "time/workers_rendering": 1.5,
        "time/workers_waiting": 0.5,
    }


def test_a_worker_that_begins_again_from_zero_gives_no_negative_time():
    times = IterationTimes()
    times.since_last({}, [worker(10.0, 10.0, 10.0)])
    assert min(times.since_last({}, [worker(1.0, 1.0, 1.0)]).values()) == 0.0


def test_the_table_has_a_line_for_the_learner_and_each_worker():
    table = time_table({"wait": 3.0, "update": 1.0}, [worker(1.0, 1.0, 2.0)] * 2)
    learner, first, second = (" ".join(line.split()) for line in table.splitlines())
    assert learner == "learner wait 3.0 s (75%) update 1.0 s (25%)"
    times = "simulating 1.0 s (25%) rendering 1.0 s (25%) waiting 2.0 s (50%)"
    assert (first, second) == (f"worker 0 {times}", f"worker 1 {times}")


def test_a_run_that_did_nothing_has_a_table_too():
    assert time_table({}, [worker(0.0, 0.0, 0.0)]).splitlines()[1].count("(0%)") == 3
