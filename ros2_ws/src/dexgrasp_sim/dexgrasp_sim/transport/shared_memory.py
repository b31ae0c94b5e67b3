"""One memory-mapped file per run, which learner, workers and observers map into their memory.

A run has the folder `/dev/shm/dexgrasp_<run id>/` with the file `tensors` and one socket per
worker. The run id is enough to attach, also from another interpreter or for a process started by
hand. Folder, file and sockets are for one user only, which both sides check (`ownership`). The
learner holds a lock on the folder; the operating system releases it when the learner
ends in any way. So every process can recognise dead runs, also across process-id namespaces, and
remove them.
"""

import errno
import fcntl
import json
import mmap
import os
import re
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.layout import Block, RunLayout, round_up
from dexgrasp_sim.transport.ownership import is_own_folder, open_own_file, open_own_folder
from dexgrasp_sim.transport.protocol import ProtocolError

SHARED_MEMORY_ROOT = Path("/dev/shm")
FILE_MAGIC = b"DEXGRASP"
FILE_FORMAT = 2
PREFIX = struct.Struct("<8sII")
"""magic, file format version, bytes of the JSON that follows; the tensors start a page later."""

_FOLDER_PREFIX = "dexgrasp_"
_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,48}")


def run_folder(run_id: str) -> Path:
    """The folder of a run.

    Raises:
        ConfigError: The id cannot be part of a file name, or would make a socket's path longer
            than the 107 bytes that Linux allows.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"run id {run_id!r}: 1 to 48 letters, digits, dots, underscores or dashes are needed"
        )
    return SHARED_MEMORY_ROOT / f"{_FOLDER_PREFIX}{run_id}"


def socket_path(run_id: str, index: int) -> Path:
    """Where the learner listens for worker `index`."""
    return run_folder(run_id) / f"worker_{index}.sock"


class Segment:
    """The mapped file of a run and the tensors in it.

    Attributes:
        run_id: Id of the run.
        layout: Layout of the file.
        learner_pid: Id of the process that created the run, for information only.
        tensors: The rollout tensors by name; see `RunLayout.rollout_blocks`.
        telemetry: The telemetry tensors by name; see `RunLayout.telemetry_blocks`.
    """

    def __init__(self, run_id: str, lock: int | None = None) -> None:
        """Maps an existing file; use `create` or `attach`."""
        self.run_id = run_id
        self._lock = lock
        with _open_file(run_id) as file:
            path = run_folder(run_id) / "tensors"
            self.learner_pid, self.layout, data_start = _read_head(file, path)
            self._map = mmap.mmap(file.fileno(), 0)
        self.tensors = self._views(self.layout.rollout_blocks, data_start)
        self.telemetry = self._views(self.layout.telemetry_blocks, data_start)

    @classmethod
    def create(cls, run_id: str, layout: RunLayout) -> "Segment":
        """Creates the folder and the zeroed file of a run; called by the learner.

        Raises:
            ConfigError: Shared memory is too small, or the run id is in use.
        """
        remove_dead_runs()
        folder = run_folder(run_id)
        header = {"run_id": run_id, "learner_pid": os.getpid(), "layout": layout.to_dict()}
        head = json.dumps(header).encode()
        head = PREFIX.pack(FILE_MAGIC, FILE_FORMAT, len(head)) + head
        size = _data_start(len(head)) + layout.nbytes
        _check_space(size)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise ConfigError(f"run id {run_id!r} is in use; choose another one") from None
        lock = _try_lock(folder)
        try:
            if lock is None:
                raise ConfigError(f"run {run_id!r} is being cleaned up; start it again")
            _write_file(folder, head, size)
            return cls(run_id, lock)
        except BaseException:
            _remove(folder, lock)
            raise

    @classmethod
    def attach(cls, run_id: str) -> "Segment":
        """Maps the file of a run that another process has created.

        Raises:
            ConfigError: There is no such run; the message names the existing ones. Or it belongs
                to another user.
            ProtocolError: The file is of another format, places its tensors differently, or is
                damaged.
        """
        try:
            return cls(run_id)
        except FileNotFoundError:
            known = ", ".join(live_runs()) or "none"
            raise ConfigError(f"no run {run_id!r} on this host; there are: {known}") from None

    def close(self) -> None:
        """Drops the tensors, and removes the run if this process created it; idempotent.

        The memory is freed when no tensor refers to it any more.
        """
        self.tensors, self.telemetry = {}, {}
        if self._lock is not None:
            _remove(run_folder(self.run_id), self._lock)
            self._lock = None

    def _views(self, blocks: Iterable[Block], data_start: int) -> dict[str, Tensor]:
        views = {}
        for block in blocks:
            count = block.nbytes // block.torch_dtype.itemsize
            flat = torch.frombuffer(
                self._map, dtype=block.torch_dtype, count=count, offset=data_start + block.offset
            )
            views[block.name] = flat.view(block.shape)
        return views


def live_runs() -> list[str]:
    """Ids of this user's runs whose learner is alive."""
    return [_run_id(folder) for folder in _run_folders() if not _is_unlocked(folder)]


def dead_runs() -> list[Path]:
    """Folders that this user's learners have left behind."""
    return [folder for folder in _run_folders() if _is_unlocked(folder)]


def remove_dead_runs() -> list[str]:
    """Removes the files of this user's runs whose learner has ended; returns the run ids."""
    return [_run_id(folder) for folder in _run_folders() if _remove_unlocked(folder)]


def remove_if_dead(run_id: str) -> bool:
    """Removes one run if its learner has ended; returns whether it did."""
    return _remove_unlocked(run_folder(run_id))


def _run_folders() -> list[Path]:
    folders = SHARED_MEMORY_ROOT.glob(f"{_FOLDER_PREFIX}*")
    return sorted(folder for folder in folders if is_own_folder(folder))


def _run_id(folder: Path) -> str:
    return folder.name.removeprefix(_FOLDER_PREFIX)


def _remove_unlocked(folder: Path) -> bool:
    lock = _try_lock(folder)
    if lock is None:
        return False
    _remove(folder, lock)
    return True


def _is_unlocked(folder: Path) -> bool:
    lock = _try_lock(folder)
    if lock is not None:
        os.close(lock)
    return lock is not None


def _try_lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if it is locked or cannot be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(folder: Path, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _check_space(needed: int) -> None:
    free = shutil.disk_usage(SHARED_MEMORY_ROOT).free
    if free < needed:
        raise _too_small(needed, free)


def _too_small(needed: int, free: int) -> ConfigError:
    return ConfigError(
        f"{SHARED_MEMORY_ROOT} has {free / 2**20:.1f} MiB free and this run needs "
        f"{needed / 2**20:.1f} MiB; use fewer environments, a shorter horizon or smaller images, "
        "or enlarge it (docker run --shm-size=..., or --ipc=host)"
    )


def _write_file(folder: Path, head: bytes, size: int) -> None:
    """Writes header and zeros; the file gets its name when it is complete."""
    part = folder / "tensors.part"
    new = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(part, new, 0o600), "w+b") as file:
        try:
            # without allocation, a process would be killed by SIGBUS when memory runs out
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _too_small(size, shutil.disk_usage(SHARED_MEMORY_ROOT).free) from None
        file.write(head)
    part.rename(folder / "tensors")


def _open_file(run_id: str) -> BinaryIO:
    """The file of a run, of which it is made sure that only this user can read and write it."""
    folder = open_own_folder(run_folder(run_id))
    try:
        return open(open_own_file(run_folder(run_id) / "tensors", folder), "r+b")
    finally:
        os.close(folder)


def _read_head(file: BinaryIO, path: Path) -> tuple[int, RunLayout, int]:
    """The learner's process id, the layout, and where the tensors start in a run's file.

    Raises:
        ProtocolError: Not a run's file, of another format, or damaged.
    """
    prefix = file.read(PREFIX.size)
    if not prefix.startswith(FILE_MAGIC) or len(prefix) < PREFIX.size:
        raise ProtocolError(f"{path} starts with {prefix[:8]!r}, not {FILE_MAGIC!r}")
    _, file_format, length = PREFIX.unpack(prefix)
    if file_format != FILE_FORMAT:
        raise ProtocolError(
            f"{path} is of format {file_format}, this interpreter's dexgrasp_sim reads "
            f"format {FILE_FORMAT}; install the same version of dexgrasp on both sides"
        )
    start, size = _data_start(PREFIX.size + length), os.fstat(file.fileno()).st_size
    try:
        header = json.loads(file.read(length) if start <= size else b"")
        pid, layout = int(header["learner_pid"]), RunLayout.from_dict(header["layout"])
    except (ValueError, KeyError, TypeError):
        raise ProtocolError(f"{path} is damaged; start the run again") from None
    if start + layout.nbytes > size:
        raise ProtocolError(f"{path} is cut off; start the run again")
    return pid, layout, start


def _data_start(head_bytes: int) -> int:
    return round_up(head_bytes, mmap.PAGESIZE)
