"""`dexgrasp bench faults`: what counts as handled, and a few faults injected for real."""

import argparse

import pytest

from benchmarks import faults
from benchmarks.fault_kinds.case import Outcome
from benchmarks.fault_kinds.processes import process_cases

TRACEBACK = "Traceback (most recent call last):\n  File ...\nOSError: no\n"


@pytest.mark.parametrize(
    ("outcome", "handled"),
    [
        (Outcome("goes on", 0, "done"), True),
        (Outcome("is refused", 2, "dexgrasp train: state.json is cut off\n"), True),
        (Outcome("fails with a reason", 1, "dexgrasp: no space\ncheckpoint: x\n"), True),
        (Outcome("is refused on two lines", 2, "dexgrasp: a\ndexgrasp: b\n"), False),
        (Outcome("is refused without a word", 2, ""), False),
        (Outcome("dies of a signal", -9, "dexgrasp: a\n"), False),
        (Outcome("traceback", 1, TRACEBACK), False),
        (Outcome("traceback, then success", 0, TRACEBACK), False),
        (Outcome("must be refused and is not", 0, "done", expected=()), False),
        (Outcome("ends, but leaves half a file", 0, "done", sound=False), False),
        (Outcome("is interrupted as it should", 130, "", expected=(130,)), True),
    ],
    ids=lambda value: value.fault if isinstance(value, Outcome) else None,
)
def test_what_counts_as_handled(outcome, handled):
    assert outcome.handled is handled
    assert outcome.traceback is ("Traceback" in outcome.said)


@pytest.mark.slow
def test_faults_are_injected_and_counted():
    parser = argparse.ArgumentParser()
    faults.add_arguments(parser)
    arguments = ["--kinds", "processes", "--only", "inspect,"]
    settings, figures = faults.measure(parser.parse_args(arguments))
    names = [name for name in process_cases() if "inspect," in name]
    assert settings["kinds"] == ["processes"]
    assert [case["fault"] for case in figures["cases"]] == names and len(names) > 5
    assert figures["injected"] == figures["survived_or_refused"] == len(names)
    assert figures["tracebacks"] == 0
