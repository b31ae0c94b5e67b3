"""What the tests of whole runs share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def restore_torch() -> Iterator[None]:
    """A runner sets these for its whole process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
