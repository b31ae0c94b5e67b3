"""stdout and stderr of a process that outlives the reader of its pipe and its terminal."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from typing_extensions import Buffer, override

_READER_IS_GONE = (errno.EPIPE, errno.EIO)
"""A pipe whose other end is closed; a terminal that is closed."""


class Outlet(io.FileIO):
    """A file descriptor that turns into /dev/null at the first error.

    Attributes:
        failure: The error with which output was lost; None also if only the reader has left.
    """

    failure: OSError | None = None

    @override
    def write(self, data: Buffer, /) -> int:
        """Writes; after an error it discards the data, so that the work goes on."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _READER_IS_GONE:
                self.failure = error
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return memoryview(data).nbytes


@contextmanager
def lasting_streams() -> Iterator[Outlet | None]:
    """Within this, a lost reader of stdout or stderr raises no error.

    Does nothing for streams that were replaced already, as tests do.

    Yields:
        stdout; None if it was replaced.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    outlet = None
    if sys.stdout is sys.__stdout__:
        sys.stdout, outlet = _lasting(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr, _ = _lasting(sys.stderr, 2)
    own = sys.stdout, sys.stderr
    try:
        yield outlet
    finally:
        for stream in own:
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Opens /dev/null where the parent has closed a stream, so that no other file gets there."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the smallest free number


def _lasting(stream: TextIO | None, descriptor: int) -> tuple[TextIO, Outlet]:
    """A text stream on a descriptor with the settings of the present one."""
    outlet = Outlet(descriptor, "w", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):  # None: it was closed
        return io.TextIOWrapper(io.BufferedWriter(outlet)), outlet
    stream.flush()
    text = io.TextIOWrapper(
        outlet if stream.write_through else io.BufferedWriter(outlet),  # type: ignore[arg-type]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return text, outlet
