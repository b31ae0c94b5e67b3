"""How a process is told to stop: SIGINT, SIGTERM and SIGHUP, whatever its parent has set.

A shell script starts a command in the background with SIGINT ignored; that is not meant for a
command that runs for hours. `nohup` ignores SIGHUP; that is meant, and stays.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_REQUEST_S = 1.0


def interrupt() -> NoReturn:
    """Raises KeyboardInterrupt."""
    raise KeyboardInterrupt


@contextmanager
def stop_signals(ask: Callable[[], None] = interrupt) -> Iterator[None]:
    """Within this, the first stop signal calls `ask`, and a later Ctrl-C raises KeyboardInterrupt.

    One request may arrive as several signals: a terminal that closes sends SIGHUP twice, and a
    launcher passes on the Ctrl-C that its children have had already. Another request is therefore
    only a SIGINT that comes at least a second later. After the block, stop signals are ignored if
    there was one, since the process is about to end. Does nothing outside the main thread.

    Args:
        ask: Called in the main thread between two instructions; it must not print, because it may
            interrupt another print.
    """
    asked_s: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked_s
        now_s = time.monotonic()
        if asked_s is None:
            asked_s = now_s
            ask()
        elif number == signal.SIGINT and now_s - asked_s >= _SAME_REQUEST_S:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in STOP_SIGNALS if not _is_kept(number)]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if asked_s is not None:
                signal.signal(number, signal.SIG_IGN)
            elif signal.getsignal(number) == handle:
                signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """For the end of a process, which a late signal must not turn into a failure."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def take_default_signals() -> None:
    """SIGINT raises KeyboardInterrupt and SIGTERM ends the process, even if a parent ignored them.

    Must be called in the main thread.
    """
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def children_without_stop_signals() -> Iterator[None]:
    """A child that is started within this does not get stop signals: its parent ends it.

    Ctrl-C in a terminal, a launcher or a process manager may signal all processes at once. The
    child starts with these signals blocked, which holds from its first instruction on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_kept(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
