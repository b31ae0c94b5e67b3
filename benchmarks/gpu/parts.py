"""A benchmark in parts, whose figures are written after each part and kept for the next call."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.result import write_result

_OUT_OF_MEMORY = (
    "out of memory",
    "bad alloc",
    "can't allocate",
    "failed to allocate",
    "alloc_failed",
    "do not fit into the memory",
)
"""Parts of the messages with which torch, Warp, C++ and our engines report a lack of memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception reports that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)


class Parts:
    """The parts of one benchmark by name, in its result file from the first one on.

    A part that failed is `{"failed": message}` and is tried again by the next call, unless memory
    ran out, which is a result: `{"out_of_memory": message}`.
    """

    def __init__(
        self, folder: Path, name: str, settings: dict[str, Any], until_s: float | None = None
    ) -> None:
        """Takes over the parts that an earlier call with the same settings has written.

        Args:
            folder: Where `<name>.json` is.
            name: Of the benchmark.
            settings: Of this call; figures of others are discarded.
            until_s: `time.monotonic` after which no part begins; None: no limit.
        """
        self.figures: dict[str, Any] = {}
        self._folder, self._name, self._settings = folder, name, settings
        self._until_s = until_s
        path = folder / f"{name}.json"
        if path.is_file():
            earlier = json.loads(path.read_text())
            if earlier.get("settings") == json.loads(json.dumps(settings)):
                self.figures = earlier.get("parts", {})

    def run(self, name: str, measure: Callable[[], Any]) -> Any:
        """The figures of a part, measured now if they are not known; None: failed, or no time."""
        known = self.figures.get(name)
        if known is not None and "failed" not in known:
            return None if "out_of_memory" in known else known
        if self._until_s is not None and time.monotonic() > self._until_s:
            print(f"{self._name}: no time left for {name}", file=sys.stderr)
            return None
        started_s = time.monotonic()
        try:
            figures = measure()
        except Exception as error:  # one part must not cost the others
            kind = "out_of_memory" if is_out_of_memory(error) else "failed"
            figures, result = {kind: f"{type(error).__name__}: {error}"[:1000]}, None
        else:
            result = figures
        self.figures[name] = figures
        print(f"{self._name}: {name}: {time.monotonic() - started_s:.1f} s: {figures}",
              file=sys.stderr, flush=True)  # fmt: skip
        self.write()
        return result

    def write(self, **more: Any) -> None:
        """Writes the result file with the figures so far."""
        figures = {**more, "parts": self.figures}
        write_result(self._folder, self._name, self._settings, figures)
