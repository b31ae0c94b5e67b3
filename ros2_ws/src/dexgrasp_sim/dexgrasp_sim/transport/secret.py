"""The secret of a run, which its learner and its remote workers know."""

import os
import secrets
from pathlib import Path

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.transport.ownership import open_own_file

VALUE = "DEXGRASP_SECRET"
FILE = "DEXGRASP_SECRET_FILE"
"""Environment variables with the secret itself, or with the path of a file that holds it."""

_LEAST_BYTES = 32
_LARGEST_BYTES = 4096
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_hex(32))"'


def find_secret(path: Path | None) -> bytes:
    """The secret that a user has given.

    Args:
        path: A file that only its owner may read, else None: one of the variables names it.

    Raises:
        ConfigError: There is none or there are two, it can be guessed, or others can read it.
    """
    given = {name: value for name in (VALUE, FILE) if (value := os.environ.get(name))}
    if path is not None:
        return _read(path)
    if len(given) != 1:
        found = "both are set" if given else "none of them is given"
        raise ConfigError(
            f"a remote worker needs the secret of the run in --secret-file FILE, {FILE} or "
            f"{VALUE}: {found}; FILE is a copy of `secret` in the run folder of the learner"
        )
    return _check(given[VALUE], VALUE) if VALUE in given else _read(Path(given[FILE]))


def learner_secret(path: Path | None) -> tuple[bytes, str]:
    """The secret of a run, and where it stands, for a message.

    Args:
        path: File in the run folder, made with a new secret if it does not exist and the
            environment gives none; None: the environment must give one.

    Raises:
        ConfigError: As for `find_secret`; or the file cannot be written.
    """
    for name in (VALUE, FILE):
        if os.environ.get(name):
            return find_secret(None), name
    if path is None:
        raise ConfigError(
            f"a learner that listens for remote workers needs a secret: set {FILE} or {VALUE}; "
            f"make one with: {_MAKE_ONE}"
        )
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(path, new, 0o600), "w") as file:
            file.write(secrets.token_hex(_LEAST_BYTES) + "\n")
    except FileExistsError:
        pass  # the run goes on, and so may the workers that know it
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; set {VALUE}") from None
    return _read(path), str(path)


def _read(path: Path) -> bytes:
    try:
        descriptor = open_own_file(path.resolve(), flags=os.O_RDONLY)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; copy `secret` from the run folder of the learner"
        ) from None
    with open(descriptor, "rb") as file:
        data = file.read(_LARGEST_BYTES)
    try:
        return _check(data.decode(), str(path))
    except UnicodeDecodeError:
        raise ConfigError(f"{path} holds no text; make one with: {_MAKE_ONE}") from None


def _check(secret: str, source: str) -> bytes:
    """The key of the proofs; raises ConfigError if it is so short that it could be guessed."""
    key = secret.strip().encode(errors="surrogateescape")
    if len(key) < _LEAST_BYTES:
        raise ConfigError(
            f"{source}: a secret of {len(key)} bytes can be guessed, at least {_LEAST_BYTES} are "
            f"needed; make one with: {_MAKE_ONE}"
        )
    return key
