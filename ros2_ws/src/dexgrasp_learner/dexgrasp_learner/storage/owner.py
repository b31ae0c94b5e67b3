"""A run folder belongs to one process at a time, the one that trains in it."""

import errno
import fcntl
import os
import platform
from pathlib import Path

from dexgrasp_learner.console import warn
from dexgrasp_sim.config import ConfigError

LOCK = "owner.lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class OwnerLock:
    """Keeps other trainings out of a run folder until `close` or the end of the process.

    It is `flock` on `owner.lock` in the folder: the kernel drops it with the process, also after
    kill -9, so that there is never a stale one to remove. The file names the owner for the
    message; that it exists means nothing.

    On local file systems the promise is strict. On NFS (Linux clients and a server with its lock
    service) it also holds between hosts, but after the crash of a host or in a network partition
    the lock may stay, or get lost, until the server has noticed. A mount with `local_lock` or
    `nolock` keeps out processes of the same host only. Where the file system has no locks, the
    run warns and goes on without.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the folder.

        Raises:
            ConfigError: Another process trains in it, or it cannot be written.
        """
        path = folder / LOCK
        try:
            # not inherited by the workers, which may outlive a killed learner for a moment
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}); give a writable run folder"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warn(f"{folder}: its file system has no locks; let only one process train in it")
                return
            owner = self._owner()
            self._file.close()
            raise ConfigError(
                f"{folder}: {owner} trains in it; wait until it has ended, or stop it"
            ) from None
        self._write(f"{os.getpid()} {platform.node()}\n")

    def close(self) -> None:
        """Gives the folder back; idempotent."""
        if not self._file.closed:
            self._write("")
            self._file.close()

    def _owner(self) -> str:
        self._file.seek(0)
        text = (self._file.read() or b"").decode(errors="replace")
        pid, _, host = text.strip().partition(" ")
        place = f" on {host}" if host not in ("", platform.node()) else ""
        return f"process {pid}{place}" if pid else "another process"

    def _write(self, text: str) -> None:
        """For the message only: a full disk must not keep a run from going on."""
        try:
            self._file.truncate(0)
            self._file.write(text.encode())
        except OSError:
            pass
