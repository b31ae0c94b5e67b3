"""Shared memory and sockets of a run are for one user: what another one finds, and may not do."""

import os
import stat
import subprocess
import sys

import pytest

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.transport.channel import ChannelClosed, Listener, connect
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.ownership import open_own_file, open_own_folder
from dexgrasp_sim.transport.protocol import ProtocolError
from dexgrasp_sim.transport.secret import find_secret, learner_secret
from dexgrasp_sim.transport.shared_memory import (
    Segment,
    dead_runs,
    live_runs,
    remove_dead_runs,
    run_folder,
    socket_path,
)
from dexgrasp_sim.vec_env import EnvSpecs

LAYOUT = RunLayout(EnvSpecs((TensorSpec("state", (4,)),), 2, 0.1), 3, ((0, 2),))
NOBODY = 65534
TIMEOUT_S = 60.0
SECRET = "0123456789abcdef" * 2

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


AS_ANOTHER = """
import os, socket, sys
from pathlib import Path
import test_other_users as t
os.setgroups([])
os.setgid(t.NOBODY)
os.setuid(t.NOBODY)
"""
"""Begins as root, because another user may not be allowed to read the code."""


class AnotherUser:
    """A process of another user that runs some lines of Python until its stdin is closed."""

    def __init__(self, code, *arguments):
        paths = [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        code = f"{AS_ANOTHER}{code}\nprint('ready', flush=True)\nsys.stdin.read()\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def wait_until_ready(self):
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()

    def leave(self):
        """What it has written to stderr, which is empty unless it has failed."""
        _, stderr = self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, stderr


@pytest.fixture
def act():
    """Lets another user act; he has done it when this returns, and stays until the test ends."""
    users = []

    def act(code, *arguments):
        users.append(AnotherUser(code, *arguments))
        users[-1].wait_until_ready()

    yield act
    for user in users:
        user.leave()


@pytest.mark.slow
@needs_root
def test_another_user_can_neither_attach_nor_read_nor_connect(segment, act):
    listener = Listener(socket_path(segment.run_id, 0))
    segment.tensors["state"].fill_(3.0)
    act(
        "folder = t.run_folder(sys.argv[1])\n"
        "for name in ('tensors', 'worker_0.sock'):\n"
        "    for flags in (os.O_RDONLY, os.O_RDWR):\n"
        "        with t.pytest.raises(PermissionError):\n"
        "            os.open(folder / name, flags)\n"
        "with t.pytest.raises(PermissionError):\n"
        "    os.listdir(folder)\n"
        "with t.pytest.raises(t.ConfigError, match='another user'):\n"
        "    t.Segment.attach(sys.argv[1])\n"
        "with t.pytest.raises(t.ChannelClosed, match='Permission denied'):\n"
        "    t.connect(t.socket_path(sys.argv[1], 0))\n"
        "assert sys.argv[1] not in t.live_runs()\n"
        "t.remove_dead_runs()\n",
        segment.run_id,
    )
    assert listener.accept(0.0) is None and listener.refused == []
    listener.close()
    assert (Segment.attach(segment.run_id).tensors["state"] == 3.0).all()


@pytest.mark.slow
@needs_root
def test_a_run_that_another_user_has_made_is_not_attached_to(run_id, act):
    act("segment = t.Segment.create(sys.argv[1], t.LAYOUT)", run_id)
    try:
        with pytest.raises(ConfigError, match=f"belongs to user {NOBODY} and this process runs"):
            Segment.attach(run_id)
        with pytest.raises(ConfigError, match="in use"):
            Segment.create(run_id, LAYOUT)
        assert run_id not in live_runs()
    finally:
        act("import shutil; shutil.rmtree(t.run_folder(sys.argv[1]))", run_id)


@pytest.mark.slow
@needs_root
def test_files_of_another_user_in_a_folder_of_our_own_are_refused(segment):
    path = run_folder(segment.run_id) / "tensors"
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=f"tensors belongs to user {NOBODY}"):
        Segment.attach(segment.run_id)


@pytest.mark.slow
@needs_root
def test_a_connection_of_another_user_is_refused_even_where_the_file_lets_him(tmp_path, act):
    folder = open_to_all(tmp_path)
    listener = Listener(folder / "sock")
    (folder / "sock").chmod(0o666)
    act(
        "peer = socket.socket(socket.AF_UNIX)\n"
        "peer.connect(sys.argv[1])\n"
        "peer.settimeout(t.TIMEOUT_S)\n",
        folder / "sock",
    )
    assert listener.accept(TIMEOUT_S) is None
    assert listener.refused == [NOBODY]
    ours = connect(folder / "sock")
    assert listener.accept(TIMEOUT_S) is not None
    ours.close()
    listener.close()


@pytest.mark.slow
@needs_root
def test_a_listener_of_another_user_is_not_spoken_to(tmp_path, act):
    folder = open_to_all(tmp_path)
    act("listener = t.Listener(Path(sys.argv[1]))", folder / "sock")
    with pytest.raises(ChannelClosed, match=f"user {NOBODY} listens at"):
        connect(folder / "sock")


def open_to_all(tmp_path):
    """A folder that every user can reach and write into."""
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:  # pytest's own, one more under xdist
            parent.chmod(0o755)
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_what_a_learner_makes_is_for_its_user_alone_whatever_the_umask(run_id):
    before = os.umask(0)
    try:
        segment = Segment.create(run_id, LAYOUT)
        listener = Listener(socket_path(run_id, 0))
    finally:
        os.umask(before)
    folder = run_folder(run_id)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {folder.name: 0o700, "tensors": 0o600, "worker_0.sock": 0o600}
    listener.close()
    segment.close()


@pytest.mark.parametrize("name", ["", "tensors"])
@pytest.mark.parametrize("mode", [0o750, 0o701, 0o620, 0o604])
def test_a_run_that_is_open_to_others_is_not_attached_to(segment, name, mode):
    (run_folder(segment.run_id) / name).chmod(mode | 0o600)
    with pytest.raises(ConfigError, match=f"mode {mode | 0o600:04o}, others .* chmod go-rwx"):
        Segment.attach(segment.run_id)


def test_links_in_the_place_of_a_run_or_of_its_file_are_not_followed(segment):
    other = run_folder(f"{segment.run_id}-link")
    other.symlink_to(run_folder(segment.run_id))
    try:
        with pytest.raises(ConfigError, match="cannot open"):
            Segment.attach(f"{segment.run_id}-link")
        assert f"{segment.run_id}-link" not in live_runs() and other not in dead_runs()
        remove_dead_runs()
        assert other.is_symlink()
    finally:
        other.unlink()
    tensors = run_folder(segment.run_id) / "tensors"
    tensors.rename(tensors.with_name("elsewhere"))
    tensors.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="cannot open"):
        Segment.attach(segment.run_id)


def test_a_new_file_does_not_take_the_place_of_another(run_id, tmp_path, monkeypatch):
    target = tmp_path / "victim"
    target.write_text("precious")
    made = os.mkdir

    def mkdir_and_plant(path, *arguments, **named):
        made(path, *arguments, **named)
        os.symlink(target, os.path.join(path, "tensors.part"))

    monkeypatch.setattr(os, "mkdir", mkdir_and_plant)
    with pytest.raises(FileExistsError):
        Segment.create(run_id, LAYOUT)
    assert target.read_text() == "precious"


def test_a_pipe_or_a_folder_in_the_place_of_a_file_does_not_make_one_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        open_own_file(tmp_path / "pipe")
    (tmp_path / "file").touch(0o600)
    with pytest.raises(ConfigError, match="Not a directory"):
        open_own_folder(tmp_path / "file")


@pytest.mark.parametrize("size", [0, 10, 100, 4096, -1])
def test_a_file_that_is_cut_off_is_not_mapped(segment, size):
    path = run_folder(segment.run_id) / "tensors"
    os.truncate(path, size if size >= 0 else path.stat().st_size - 1)
    with pytest.raises(ProtocolError, match=r"damaged|cut off|starts with"):
        Segment.attach(segment.run_id)


def test_a_run_makes_its_secret_once_and_for_its_user_alone(tmp_path, monkeypatch):
    without_variables(monkeypatch)
    before = os.umask(0)
    try:
        key, place = learner_secret(tmp_path / "secret")
    finally:
        os.umask(before)
    assert len(key) == 64 and place == str(tmp_path / "secret")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert learner_secret(tmp_path / "secret")[0] == key, "a resumed run keeps it"
    assert find_secret(tmp_path / "secret") == key
    assert learner_secret(tmp_path / "other")[0] != key


def test_a_secret_comes_from_the_environment_too(tmp_path, monkeypatch):
    without_variables(monkeypatch)
    monkeypatch.setenv("DEXGRASP_SECRET", f"{SECRET}\n")
    assert find_secret(None) == SECRET.encode()
    assert learner_secret(tmp_path / "secret") == (SECRET.encode(), "DEXGRASP_SECRET")
    assert not (tmp_path / "secret").exists()
    (tmp_path / "given").write_text(SECRET)
    (tmp_path / "given").chmod(0o400)
    monkeypatch.setenv("DEXGRASP_SECRET_FILE", str(tmp_path / "given"))
    with pytest.raises(ConfigError, match="both are set"):
        find_secret(None)
    monkeypatch.delenv("DEXGRASP_SECRET")
    assert find_secret(None) == SECRET.encode()


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (SECRET, 0o640, "mode 0640, others can get at it; say: chmod go-rwx"),
        ("short", 0o600, "5 bytes can be guessed"),
        ("", 0o600, "0 bytes can be guessed"),
        ("\udcff" * 40, 0o600, "holds no text"),
        (None, 0o600, "does not exist; copy `secret` from the run folder"),
    ],
)
def test_a_secret_that_keeps_nobody_out_is_refused(tmp_path, content, mode, complaint):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
        path.chmod(mode)
    with pytest.raises(ConfigError, match=complaint):
        find_secret(path)


def without_variables(monkeypatch):
    for name in ("DEXGRASP_SECRET", "DEXGRASP_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
