"""How a test waits for something that happens in another thread or process."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 120.0
"""Longest wait for one event: long enough for a busy machine, spent only by a test that fails."""

Found = TypeVar("Found")


def pause() -> None:
    """Lets the others work for a moment."""
    time.sleep(0.02)


def wait_until(
    condition: Callable[[], Found],
    what: str | Callable[[], str],
    timeout_s: float = PATIENCE_S,
    meanwhile: Callable[[], object] = pause,
) -> Found:
    """Waits for a condition.

    Args:
        condition: Called again and again; it may raise when the wait has become pointless.
        what: What is waited for; a function is called in failure, to tell what there is instead.
        timeout_s: Longest wait.
        meanwhile: What to do between two looks: nothing for a moment, or one turn of an executor.

    Returns:
        The first value of the condition that is true.

    Raises:
        AssertionError: Time is up.
    """
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            reason = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {timeout_s:g} s for {reason}")
        meanwhile()
    return found
