import fcntl
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.transport import shared_memory
from dexgrasp_sim.transport.layout import RunLayout, split_envs
from dexgrasp_sim.transport.protocol import ProtocolError
from dexgrasp_sim.transport.shared_memory import (
    PREFIX,
    Segment,
    live_runs,
    remove_dead_runs,
    remove_if_dead,
    run_folder,
)
from dexgrasp_sim.vec_env import EnvSpecs

OBSERVATIONS = (
    TensorSpec("depth", (3, 5), "int16"),
    TensorSpec("state", (4,)),
    TensorSpec("contact", (), "bool"),
)
LAYOUT = RunLayout(EnvSpecs(OBSERVATIONS, 2, 0.1), 3, split_envs(5, 2))


@pytest.mark.slow
def test_another_process_sees_every_byte(segment):
    code = (
        "import sys; from dexgrasp_sim.transport.shared_memory import Segment\n"
        "tensors = Segment.attach(sys.argv[1]).tensors\n"
        "for n, t in enumerate(tensors.values()):\n"
        "    assert not t.any()\n"
        "    t.view(-1).copy_((__import__('torch').arange(t.numel()) + n) % 100)\n"
    )
    subprocess.run([sys.executable, "-c", code, segment.run_id], check=True, timeout=60)
    for number, tensor in enumerate(segment.tensors.values()):
        expected = (torch.arange(tensor.numel()) + number) % 100
        assert torch.equal(tensor.view(-1), expected.to(tensor.dtype))


def test_tensors_have_the_layout_s_shapes_types_and_alignment(segment):
    for block in LAYOUT.rollout_blocks:
        tensor = segment.tensors[block.name]
        assert tensor.shape == block.shape
        assert tensor.dtype == block.torch_dtype
        assert tensor.data_ptr() % 64 == 0
        assert tensor.is_contiguous()


def test_attaching_tells_what_the_run_is(segment):
    attached = Segment.attach(segment.run_id)
    assert attached.layout == LAYOUT
    assert attached.learner_pid == os.getpid()
    attached.close()
    assert run_folder(segment.run_id).exists()


def test_tensors_outlive_the_segment(run_id):
    segment = Segment.create(run_id, LAYOUT)
    state = segment.tensors["state"]
    state.fill_(3.0)
    segment.close()
    segment.close()
    assert not run_folder(run_id).exists()
    assert (state == 3.0).all()


def test_only_this_user_can_read_a_run(segment):
    folder = run_folder(segment.run_id)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "tensors").stat().st_mode & 0o777 == 0o600


def test_the_memory_is_really_there(segment):
    status = (run_folder(segment.run_id) / "tensors").stat()
    assert status.st_blocks * 512 >= status.st_size >= LAYOUT.nbytes


@pytest.mark.parametrize("name", ["", "a/b", "..%", "x" * 49, "a b"])
def test_run_ids_that_are_no_file_names_are_refused(name):
    with pytest.raises(ConfigError, match="run id"):
        run_folder(name)


def test_a_run_id_in_use_is_refused(segment):
    with pytest.raises(ConfigError, match="in use"):
        Segment.create(segment.run_id, LAYOUT)
    assert segment.run_id in live_runs()


def test_attaching_to_no_run_names_those_there_are(segment):
    with pytest.raises(ConfigError, match=segment.run_id):
        Segment.attach("no-such-run")


def test_too_little_shared_memory_is_said_before_anything_starts(run_id, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**19))
    layout = RunLayout(
        EnvSpecs((TensorSpec("image", (1000, 1000), "uint8"),), 1, 0.1), 1, ((0, 1),)
    )
    with pytest.raises(ConfigError, match=r"0\.5 MiB free and this run needs 1\.9 MiB"):
        Segment.create(run_id, layout)


def test_memory_that_vanishes_after_the_check_is_an_error_and_leaves_nothing(run_id, monkeypatch):
    monkeypatch.setattr(shared_memory, "_check_space", lambda needed: None)
    huge = shutil.disk_usage(shared_memory.SHARED_MEMORY_ROOT).total * 2
    layout = RunLayout(EnvSpecs((TensorSpec("image", (huge,), "uint8"),), 1, 0.1), 1, ((0, 1),))
    with pytest.raises(ConfigError, match="enlarge it"):
        Segment.create(run_id, layout)


@pytest.mark.parametrize(
    ("magic", "file_format", "complaint"),
    [(b"SOMEFILE", 2, "SOMEFILE"), (b"DEXGRASP", 3, "format 3, .* reads format 2")],
)
def test_files_of_another_format_are_refused(segment, magic, file_format, complaint):
    with open(run_folder(segment.run_id) / "tensors", "r+b") as file:
        file.write(PREFIX.pack(magic, file_format, 0))
    with pytest.raises(ProtocolError, match=complaint):
        Segment.attach(segment.run_id)


@pytest.mark.slow
def test_what_a_dead_learner_left_is_removed_and_what_a_live_one_has_is_not(segment):
    dead = f"{segment.run_id}-dead"
    code = (
        "import os, sys; from test_shared_memory import LAYOUT, Segment\n"
        "segment = Segment.create(sys.argv[1], LAYOUT); os._exit(0)\n"
    )
    paths = [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    subprocess.run([sys.executable, "-c", code, dead], check=True, timeout=60, env=environment)
    assert (run_folder(dead) / "tensors").exists()
    assert not remove_if_dead(segment.run_id)
    assert dead in remove_dead_runs()
    assert not run_folder(dead).exists()
    assert run_folder(segment.run_id).exists()


def test_a_run_whose_lock_another_holds_counts_as_alive(run_id):
    folder = run_folder(run_id)
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not remove_if_dead(run_id)
    os.close(descriptor)
    assert remove_if_dead(run_id)
    assert not remove_if_dead(run_id)
