"""Output of a run's figures: a JSON line per iteration, TensorBoard and a progress bar."""

import json
import math
from contextlib import suppress
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dexgrasp_learner.console import warn
from dexgrasp_learner.storage.checkpoint_files import write_atomically


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
    """The progress bar of a run: rate, reward, success and remaining time."""

    def __init__(self, total: int, start: int, description: str, enabled: bool) -> None:
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=description,
            unit="it",
            disable=not enabled,
            dynamic_ncols=True,
            mininterval=1.0,
        )

    def update(self, steps_per_s: float, reward: float, success: float) -> None:
        """Advances by one iteration."""
        self._bar.set_postfix_str(
            f"{steps_per_s:,.0f} steps/s, reward {reward:.3f}, success {success:.2f}",
            refresh=False,
        )
        self._bar.update(1)

    def message(self, text: str) -> None:
        """A line above the bar."""
        if not self._bar.disable:
            self._bar.write(text)

    @property
    def remaining_s(self) -> float:
        """Estimated time to the end, NaN while unknown."""
        rate = self._bar.format_dict["rate"]
        return (self._bar.total - self._bar.n) / rate if rate else math.nan

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
