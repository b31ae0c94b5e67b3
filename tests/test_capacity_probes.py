"""What measures capacity: lines by hand, and real processes that run out of memory."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.capacity_probes.calibrate import Sample, fit_line, run_probe
from benchmarks.capacity_probes.probe import Probe
from benchmarks.capacity_probes.search import largest_that_fits
from dexgrasp_learner.capacity.costs import load_costs
from dexgrasp_learner.capacity.workload import plan_config
from dexgrasp_sim.config import replace, to_dict


def test_the_fit_agrees_with_our_activations():
    """Its one free slope of the update is of the size that this repository's nets really have."""
    results = Path(__file__).parents[1] / "benchmarks" / "results"
    measured = load_costs(str(results / "capacity_costs_cpu.json")).update_pixel
    assert load_costs("paper").update_pixel == pytest.approx(measured, rel=0.5)


def test_a_line_is_found_again():
    samples = [
        Sample(count, pixels, 1000 + 20 * count + 3 * count * pixels)
        for count in (1, 5, 9)
        for pixels in (10, 40)
    ]
    line = fit_line(samples)
    assert (line.fixed, line.env, line.pixel) == pytest.approx((1000, 20, 3))
    assert line.residual == pytest.approx(0, abs=1e-6)


def test_no_slope_is_negative():
    line = fit_line([Sample(1, 10, 100), Sample(5, 10, 80), Sample(1, 40, 100), Sample(5, 40, 80)])
    assert (line.env, line.pixel) == (0, 0)
    assert line.fixed == pytest.approx(90)
    assert line.residual == pytest.approx(10)


@given(capacity=st.integers(0, 3000), guess=st.integers(1, 3000))
def test_the_search_finds_the_end(capacity, guess):
    found = largest_that_fits(guess, lambda n: n <= capacity)
    assert found <= capacity
    assert capacity - found <= max(1, 0.04 * capacity)


@pytest.mark.slow
def test_a_process_keeps_to_its_budget_or_runs_out_of_it():
    """4 environments of 8 MiB each: 20 MiB are too few, whatever else a simulator takes."""
    config = to_dict(plan_config(None, (32, 24), 2))
    probe = Probe(role="simulator", config=config, envs=4, simulator_env_bytes=8 * 2**20)
    footprint = run_probe(replace(probe, budget_bytes=400 * 2**20))
    assert footprint is not None
    assert footprint.peak >= 4 * 8 * 2**20
    assert run_probe(replace(probe, budget_bytes=20 * 2**20)) is None


@pytest.mark.slow
def test_separate_simulators_and_a_learner_fit_or_do_not():
    config = to_dict(plan_config(None, (32, 24), 2))
    probe = Probe(role="split", config=config, envs=3, simulators=3, storage="float32")
    assert run_probe(replace(probe, budget_bytes=400 * 2**20)) is not None
    greedy = replace(probe, simulator_env_bytes=500 * 2**20, budget_bytes=400 * 2**20)
    assert run_probe(greedy) is None


@pytest.mark.slow
def test_other_failures_are_no_want_of_memory():
    with pytest.raises(RuntimeError, match="code 1"):
        run_probe(Probe(role="simulator", config={"unknown": 1}))
