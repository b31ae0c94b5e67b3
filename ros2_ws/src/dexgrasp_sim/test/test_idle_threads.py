"""Idle OpenMP threads do not spin, unless the user says so."""

import os
import subprocess
import sys

import pytest

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def seen_by(package, given):
    """`GOMP_SPINCOUNT` and the loaded torch, right after a package was imported."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    shown = "os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules"
    code = f"import os, sys, {package}; print({shown})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **given}, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("package", ["dexgrasp_sim", "dexgrasp_learner", "dexgrasp_deploy"])
def test_every_package_says_so_before_torch_is_imported(package):
    assert seen_by(package, {}) == ["0", "False"]


def test_what_the_user_has_set_stays():
    assert seen_by("dexgrasp_sim", {"GOMP_SPINCOUNT": "77"})[0] == "77"
    assert seen_by("dexgrasp_sim", {"OMP_WAIT_POLICY": "ACTIVE"})[0] == "None"
