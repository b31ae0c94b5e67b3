"""Output of a run's figures: a JSON line per iteration, TensorBoard and the progress on stderr."""

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dexgrasp_learner.console import warn
from dexgrasp_learner.storage.checkpoint_files import write_atomically

_LINE_PERIOD_S = 30.0


class MetricsWriter:
    """Appends one record per iteration to `metrics.jsonl` and to TensorBoard."""

    def __init__(self, folder: Path, iterations: int = 0) -> None:
        """Opens both.

        Args:
            folder: The run folder.
            iterations: Iterations done. A killed run may have left records of later iterations,
                which will be written again, or half a line; both are dropped.
        """
        path = folder / "metrics.jsonl"
        _drop_records(path, iterations)
        self._file = path.open("a", buffering=1)
        board = str(folder / "tensorboard")
        self._board = SummaryWriter(board, purge_step=iterations + 1 if iterations else None)

    def write(self, iteration: int, record: dict[str, float]) -> None:
        """Writes one iteration's figures; names with a slash are grouped in TensorBoard.

        On a full disk it only warns, so that the run continues.
        """
        line = {"iteration": iteration, **{key: _plain(value) for key, value in record.items()}}
        try:
            self._file.write(json.dumps(line) + "\n")
            for key, value in record.items():
                if math.isfinite(value):
                    self._board.add_scalar(key, value, iteration)
        except OSError as error:
            warn(f"the figures of iteration {iteration} are lost: {error}")

    def close(self) -> None:
        """Flushes both; idempotent."""
        for end in (self._file.close, self._board.close):
            with suppress(OSError):
                end()


class Progress:
    """The progress of a run on stderr: a bar on a terminal, else a line every half minute."""

    def __init__(
        self,
        total: int,
        start: int,
        description: str,
        enabled: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock.

        Args:
            total: Iterations of the run.
            start: Iterations done.
            description: Name of the run.
            enabled: Whether to show anything.
            clock: Monotonic seconds.
        """
        self._total, self._first, self._done = total, start, start
        self._clock, self._since_s = clock, clock()
        self._said_s = -math.inf
        self._enabled = enabled
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=description,
            unit="it",
            disable=None if enabled else True,  # None: unless stderr is a terminal
            dynamic_ncols=True,
            mininterval=1.0,
        )

    def update(self, steps_per_s: float, reward: float, success: float) -> None:
        """Advances by one iteration."""
        self._done += 1
        figures = f"{steps_per_s:,.0f} steps/s, reward {reward:.3f}, success {success:.2f}"
        self._bar.set_postfix_str(figures, refresh=False)
        self._bar.update(1)
        now_s, ended = self._clock(), self._done >= self._total
        if self._done == self._first + 1:
            self._since_s = now_s
        if self._bar.disable and (ended or now_s - self._said_s >= _LINE_PERIOD_S):
            self._said_s = now_s
            left_s = self.remaining_s
            left = f", {tqdm.format_interval(left_s)} left" if math.isfinite(left_s) else ""
            self.message(f"iteration {self._done}/{self._total}: {figures}{left}")

    def message(self, text: str) -> None:
        """A line of its own, above the bar if there is one."""
        if self._enabled:
            tqdm.write(text, file=sys.stderr)

    @property
    def remaining_s(self) -> float:
        """Estimated time to the end; NaN before the second iteration.

        The first one takes longer: simulators start in it and kernels are compiled.
        """
        measured = self._done - self._first - 1
        if measured < 1:
            return math.nan
        return (self._total - self._done) * (self._clock() - self._since_s) / measured

    def close(self) -> None:
        """Removes the bar; idempotent."""
        self._bar.close()


def _drop_records(path: Path, iterations: int) -> None:
    """Keeps only complete records of the first `iterations` in a file, if it exists."""
    if not path.exists():
        return
    # zeros or half a character may be what a power failure left of a line
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("}\n") and _iteration(line) <= iterations]
    if kept != lines:
        write_atomically(path, "".join(kept))


def _iteration(line: str) -> float:
    """The iteration of a record; infinity if the line is none."""
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _plain(value: float) -> float | None:
    """The rounded value; None if it is not finite, because JSON has no NaN."""
    return round(float(value), 6) if math.isfinite(value) else None
