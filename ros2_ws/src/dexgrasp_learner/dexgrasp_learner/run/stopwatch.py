"""Where the time of a process goes, by stage."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds by stage.

    A stage that is measured inside another one is taken out of it, so that the stages of a thread
    add up to the time that it measured. Threads may measure at once, each its own stages.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._thread = threading.local()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the `with` block takes to a stage."""
        outer: list[float] | None = getattr(self._thread, "inner_s", None)
        self._thread.inner_s = inner_s = [0.0]
        started_s = time.perf_counter()
        try:
            yield
        finally:
            total_s = time.perf_counter() - started_s
            self.seconds[stage] = self.seconds.get(stage, 0.0) + total_s - inner_s[0]
            self._thread.inner_s = outer
            if outer is not None:
                outer[0] += total_s
