"""A thread that reads a camera, keeps the newest exposure and opens the device again when lost."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dexgrasp_deploy.drivers.base import CameraDriver, CameraSample, Health, Level
from dexgrasp_deploy.drivers.camera_config import CaptureConfig
from dexgrasp_sim.config import ConfigError

_STOP_S = 5.0
_TURN_S = 0.1


class SourceLost(RuntimeError):
    """The device does not answer or gives nothing that can be used; the text says why."""


class SourceEnded(RuntimeError):
    """A recording has ended."""


class Source(Protocol):
    """An open device or file."""

    def next(self, timeout_s: float) -> CameraSample | None:
        """The newest good exposure.

        Args:
            timeout_s: Longest wait.

        Returns:
            None if none came; `complaint` tells of bad ones.

        Raises:
            SourceLost: The device must be opened again.
            SourceEnded: There will be no more.
        """
        ...

    def complaint(self) -> str:
        """What was wrong with the exposures that were dropped lately; "" for nothing."""
        ...

    def close(self) -> None:
        """Lets go of the device."""
        ...


class Capture:
    """Reads a source in a thread of its own."""

    def __init__(
        self,
        open_source: Callable[[bool], Source],
        config: CaptureConfig,
        clock: Callable[[], float],
        live: bool = True,
    ) -> None:
        """Args:
        open_source: Opens the device; its argument tells to reset the hardware first. It may
            raise SourceLost, and ConfigError for what no other try can mend.
        config: When the source counts as lost, and how often it is opened again.
        clock: Monotonic seconds.
        live: Whether it is a device; a file may show the same image for long.
        """
        self._open, self._config, self._clock = open_source, config, clock
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._sample: CameraSample | None = None
        self._problem = "no exposure yet"
        self._over = False
        self._watch = _FrozenImage(config.frozen_s if live else float("inf"))
        self.reopened = 0
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def start(self) -> None:
        """Starts to read.

        Raises:
            ConfigError: No exposure comes in time; the message says why.
        """
        self._thread.start()
        with self._changed:
            self._changed.wait_for(
                lambda: self._sample is not None or self._over, self._config.connect_timeout_s
            )
            arrived, problem = self._sample is not None, self._problem
        if not arrived:
            self.stop()
            raise ConfigError(f"camera: {problem}")

    def read(self) -> CameraSample | None:
        """The newest exposure that was not returned yet."""
        with self._changed:
            sample, self._sample = self._sample, None
            return sample

    def health(self) -> Health:
        """An error while no exposures come."""
        with self._changed:
            if self._problem:
                return Health(Level.ERROR, self._problem)
        return Health(Level.OK, f"ok, opened again {self.reopened} times")

    def stop(self) -> None:
        """Ends the thread; idempotent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        tries = 0
        while not self._stop.is_set():
            reset = 0 < self._config.retries <= tries
            try:
                source = self._open(reset)
                try:
                    tries = self._read(source, tries)
                finally:
                    source.close()
            except (SourceEnded, ConfigError) as end:
                self._tell(str(end), over=True)
                return
            except RuntimeError as error:  # SourceLost, or what the device's library raises
                self._tell(str(error))
            except BaseException as error:
                self._tell(f"{type(error).__name__}: {error}", over=True)
                raise
            tries += 1
            if tries > self._config.retries:
                self._tell(f"given up after {tries} tries: {self._problem}", over=True)
                return
            self._stop.wait(self._config.retry_wait_s)
            self.reopened += not self._stop.is_set()

    def _read(self, source: Source, tries: int) -> int:
        """Reads until the source is lost or the thread is to end; the tries in vain before."""
        good_s = self._clock()
        while not self._stop.is_set():
            sample = source.next(_TURN_S)
            now_s = self._clock()
            if sample is not None and not self._watch.frozen(sample):
                good_s, tries = now_s, 0
                self._tell("", sample)
            elif sample is not None:
                self._tell(f"the image is the same for {self._config.frozen_s:g} s: opening again")
                return tries
            elif now_s - good_s > self._config.timeout_s:
                reason = source.complaint() or "the device is silent"
                self._tell(f"no good exposure for {now_s - good_s:.2g} s: {reason}")
                return tries
        return tries

    def _tell(self, problem: str, sample: CameraSample | None = None, over: bool = False) -> None:
        with self._changed:
            self._problem, self._over = problem, over
            if sample is not None:
                self._sample = sample
            self._changed.notify_all()


class CapturedCamera(CameraDriver):
    """A camera that a `Capture` reads; `configure` makes `_capture` and starts it."""

    _capture: Capture | None = None

    def read(self) -> CameraSample | None:
        """The newest exposure that was not returned yet."""
        assert self._capture is not None, "configure() comes first"
        return self._capture.read()

    def health(self) -> Health:
        """An error while no exposures come."""
        return Health() if self._capture is None else self._capture.health()

    def deactivate(self) -> None:
        """Closes the device or the files."""
        if self._capture is not None:
            self._capture.stop()


class _FrozenImage:
    """Notices that an image, or one of a pair, stays the same bit for bit while stamps go on."""

    def __init__(self, frozen_s: float) -> None:
        self._frozen_s = frozen_s
        self._seen: dict[int, tuple[NDArray[Any], float]] = {}

    def frozen(self, sample: CameraSample) -> bool:
        """Whether an image is that of `frozen_s` ago."""
        sides = [sample.image] if sample.image.ndim == 2 else list(sample.image)
        unchanged = [self._unchanged(*side, sample.stamp_s) for side in enumerate(sides)]
        return any(unchanged)  # after all were looked at

    def _unchanged(self, side: int, image: NDArray[Any], stamp_s: float) -> bool:
        seen, since_s = self._seen.get(side, (None, 0.0))
        if seen is None or not np.array_equal(seen, image):
            self._seen[side] = (image, stamp_s)
            return False
        return stamp_s - since_s > self._frozen_s
