"""What the tests of whole runs share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
import torch

from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.pool_spec import PoolSpec
from test_support.bundles import write


@pytest.fixture
def restore_torch() -> Iterator[None]:
    """A runner sets these for its whole process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def make_spec() -> Callable[..., PoolSpec]:
    """Makes the spec of a pool; those of the values that are the simulators' go to these."""
    names = {item.name for item in fields(SimulatorsConfig)}

    def make(**values) -> PoolSpec:
        simulators = {name: value for name, value in values.items() if name in names}
        others = {name: value for name, value in values.items() if name not in names}
        return PoolSpec(simulators=SimulatorsConfig(**simulators), **others)

    return make


@pytest.fixture
def other_python() -> str:
    """Another Python version that has what a worker needs; skips where there is none."""
    needed = "import numpy, pydantic, safetensors, torch, yaml"
    candidates = [os.environ.get("DEXGRASP_OTHER_PYTHON", "")]
    candidates += [f"python3.{minor}" for minor in range(10, 14)]
    command = f"{needed}; import sys; print(sys.version_info[:2])"
    for python in filter(shutil.which, candidates):
        found = subprocess.run(
            [python, "-c", command], capture_output=True, text=True, timeout=120.0
        )
        if found.returncode == 0 and found.stdout.strip() != str(sys.version_info[:2]):
            return python
    pytest.skip("no other Python version with torch here; set DEXGRASP_OTHER_PYTHON to one")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder, actor and recorded observations of one bundle; tests must not change the folder."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    actor, specs, recorded = write(folder)
    return folder, actor, specs, recorded


@pytest.fixture
def copy(small, tmp_path):
    """A copy of the bundle to spoil."""
    return shutil.copytree(small[0], tmp_path / "copy")
