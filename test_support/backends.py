"""Which physics backends this machine can test, and on which device."""

import os

import pytest

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.physics.backends import BACKENDS
from dexgrasp_sim.physics.isaaclab.start import installed_version

DEVICE = os.environ.get("DEXGRASP_TEST_DEVICE", "cpu")
"""Device of the backends that compute on it; the others are tested on the CPU."""


def device_under_test(backend: str) -> str:
    """The device on which a backend is tested; skips the test where it is not installed."""
    if backend == "isaaclab":  # it may have an interpreter of its own
        try:
            installed_version()
        except ConfigError as error:
            pytest.skip(str(error))
    else:
        pytest.importorskip(BACKENDS[backend].package.replace("-", "_"))
    return DEVICE if DEVICE.split(":")[0] in BACKENDS[backend].devices else "cpu"
