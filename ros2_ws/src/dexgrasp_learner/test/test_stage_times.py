"""Where the time of a run goes, as figures and as a table."""

from dexgrasp_learner.run.stage_times import IterationTimes, time_table


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
