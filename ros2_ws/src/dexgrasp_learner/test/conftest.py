"""What the tests of whole runs share."""

from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
import torch

from dexgrasp_learner.pool.config import SimulatorsConfig
from dexgrasp_learner.pool.pool_spec import PoolSpec


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
