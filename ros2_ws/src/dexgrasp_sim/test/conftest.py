"""What tests need of the machine beside the Python packages."""

import importlib
import os
import shutil

import pytest
import torch

from dexgrasp_sim.physics.backends import BACKENDS
from dexgrasp_sim.transport.shared_memory import Segment, run_folder
from engine_lab import COMPILES, Lab
from test_support.tape import NoHostReads

_BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")


def missing(what: str, package: str) -> None:
    """Ends a test that cannot run here: a skip, but a failure in continuous integration."""
    reason = f"{what} is not installed; run: sudo apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def no_host_reads():
    """A context in which tensors must not be read."""
    return NoHostReads()


_MARKS = dict.fromkeys(("mujoco_warp", "isaaclab"), (pytest.mark.slow, COMPILES))


@pytest.fixture(params=[pytest.param(name, marks=_MARKS.get(name, ())) for name in BACKENDS])
def lab(request):
    """Makes engines, of each backend in turn."""
    lab = Lab(request.param)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def one_thread():
    """Tensors are too small for two threads to help; on a busy machine they get in each other's
    way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def egl():
    """MuJoCo's module of OpenGL contexts that need no display."""
    try:
        return importlib.import_module("mujoco.egl")
    except (ImportError, AttributeError):  # PyOpenGL: no attribute where there is no library
        return missing("OpenGL without a display", "libegl1 libgl1-mesa-dri")


@pytest.fixture(scope="session")
def browser():
    """Path of a browser of the Chromium family."""
    paths = [path for path in map(shutil.which, _BROWSERS) if path]
    return paths[0] if paths else missing("a Chromium", "chromium-headless-shell")


@pytest.fixture
def run_id():
    """An id of a run that leaves nothing in shared memory."""
    name = f"test-{os.getpid()}-{os.urandom(4).hex()}"
    yield name
    assert not run_folder(name).exists()


@pytest.fixture
def segment(run_id, request):
    """The shared memory of such a run, of the test module's `LAYOUT`."""
    segment = Segment.create(run_id, request.module.LAYOUT)
    yield segment
    segment.close()
