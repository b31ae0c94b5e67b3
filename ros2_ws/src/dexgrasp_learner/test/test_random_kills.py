"""One training run whose simulator workers are killed again and again, at random moments."""

import argparse

from dexgrasp_learner.benchmarks import faults

KILLS = 20


def test_training_survives_20_random_kills():
    parser = argparse.ArgumentParser()
    faults.add_arguments(parser)
    # kills end connections, so that no worker is ever held for hung however busy the machine is
    options = f"--kills {KILLS} --hangs 0 --workers 4 --pause-s 0.2 --timeout-s 60 --limit-s 300"
    _, figures = faults.measure(parser.parse_args(options.split()))
    assert (figures["kills"], figures["hangs"]) == (KILLS, 0)
    assert figures["nans"] > 0
    assert figures["survived"] == figures["injected"] == KILLS + figures["nans"]
    assert len(figures["restart_s"]) == KILLS, "nobody was replaced who was not killed"
    assert (figures["leaked_segments"], figures["leaked_processes"]) == (0, 0)
    assert figures["weights_finite"]
    assert figures["slot_mismatches"] == 0
