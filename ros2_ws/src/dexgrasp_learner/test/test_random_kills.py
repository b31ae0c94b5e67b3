"""One training run whose simulator workers are killed again and again, at random moments."""

import argparse

import pytest

from benchmarks import faults
from dexgrasp_sim.config import ConfigError

pytestmark = pytest.mark.slow

KILLS = 20


def measure(options):
    parser = argparse.ArgumentParser()
    faults.add_arguments(parser)
    return faults.measure(parser.parse_args(["--kinds", "workers", *options.split()]))


def test_training_survives_20_random_kills():
    # kills end connections, so that no worker is ever held for hung however busy the machine is
    _, figures = measure(f"--kills {KILLS} --hangs 0 --pause-s 0.2 --timeout-s 60 --limit-s 100")
    assert (figures["kills"], figures["hangs"]) == (KILLS, 0)
    assert figures["nans"] > 0
    assert figures["survived"] == figures["injected"] == KILLS + figures["nans"]
    assert len(figures["restart_s"]) == KILLS, "nobody was replaced who was not killed"
    assert (figures["leaked_segments"], figures["leaked_processes"]) == (0, 0)
    assert figures["weights_finite"]
    assert figures["slot_mismatches"] == 0


@pytest.mark.parametrize("options", ["--workers 1", "--kills -1", "--timeout-s 0"])
def test_numbers_out_of_range_are_refused(options, capsys):
    with pytest.raises(SystemExit) as refused:
        measure(options)
    assert refused.value.code == 2
    assert f"argument {options.split()[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("options", ["--groups 5", "--kinds all"])
def test_arguments_that_do_not_fit_the_others_are_refused(options):
    with pytest.raises(ConfigError, match=options.split()[0]):
        measure(options)
