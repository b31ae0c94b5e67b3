"""Whose files and connections these are: memory and sockets of a run are for one user only.

`/dev/shm` is open to everybody, so another user may have made a folder or a link of any name there
before. What is attached to is therefore opened without following links, and its owner and mode are
read from the opened descriptor.
"""

import os
import socket
import stat
import struct
from pathlib import Path

from dexgrasp_sim.config import ConfigError

_CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid of `SO_PEERCRED`, see unix(7)."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def open_own_folder(path: Path) -> int:
    """A descriptor of a folder that belongs to this user and that only he can enter.

    Raises:
        FileNotFoundError: There is no such folder.
        ConfigError: It is a link, of another user, or open to others.
    """
    return _open_own(path, str(path), os.O_RDONLY | os.O_DIRECTORY, None)


def open_own_file(path: Path, folder: int | None = None, flags: int = os.O_RDWR) -> int:
    """A descriptor of a regular file that belongs to this user and that only he can read or write.

    Args:
        path: Of the file.
        folder: A descriptor of the folder it is in, in which its name is then looked up.
        flags: `os.O_RDWR` or `os.O_RDONLY`.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: It is a link, of another user, or open to others.
    """
    name = str(path) if folder is None else path.name
    descriptor = _open_own(path, name, flags, folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path} is not a regular file")
    return descriptor


def check_own(path: Path, status: os.stat_result) -> None:
    """Checks owner and mode of a file or folder.

    Raises:
        ConfigError: It belongs to another user, or others may read, write or enter it.
    """
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"{path} belongs to user {status.st_uid} and this process runs as user "
            f"{os.geteuid()}; use it as its owner"
        )
    if status.st_mode & _OTHERS:
        raise ConfigError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, others can get at it; "
            f"say: chmod go-rwx {path}"
        )


def is_own_folder(path: Path) -> bool:
    """Whether this is a folder, not a link to one, that belongs to this user."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def peer_user(connection: socket.socket) -> int:
    """Id of the user at the other end of a Unix-domain socket, when it was connected."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(data)[1]


def _open_own(path: Path, name: str, flags: int, folder: int | None) -> int:
    # O_NONBLOCK: a pipe in the place of a file must not make this process wait
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(
            f"cannot open {path}: {error.strerror}; it belongs to another user, or is no file or "
            "folder of this run"
        ) from None
    try:
        check_own(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
