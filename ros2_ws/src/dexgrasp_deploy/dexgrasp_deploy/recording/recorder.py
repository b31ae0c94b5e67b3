"""What is recorded and when: a recording while it is switched on, a black box after a fault."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from math import inf
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.recording.bag_thread import BagThread, Message
from dexgrasp_deploy.recording.message_types import MessageTypes
from dexgrasp_sim.config import STRICT

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class RecorderConfig:
    """How is recorded.

    Attributes:
        folder: Where recordings and black boxes go, each in a folder of its own.
        record: Record from the beginning; else when told to.
        black_box_s: The last seconds that are kept in memory; 0: no black box.
        black_box_mb: Memory for it; the oldest messages leave first.
        after_fault_s: A black box is written so long after the fault, to show what followed.
        min_free_mb: A recording ends before less than this is free on the disk.
        queue_mb: Memory for messages that wait for the disk.
        extra_topics: More topics, separated by commas; `*` stands for any part of a name.
        calibration: A file, or a folder of YAML files, that is copied into every recording;
            "": none.
    """

    folder: str = "~/dexgrasp_recordings"
    record: bool = False
    black_box_s: NotNegative = 30.0
    black_box_mb: Positive = 512.0
    after_fault_s: NotNegative = 2.0
    min_free_mb: NotNegative = 500.0
    queue_mb: Positive = 256.0
    extra_topics: str = ""
    calibration: str = ""


class BlackBox:
    """The messages of the last seconds."""

    def __init__(self, duration_s: float, max_mb: float) -> None:
        self._duration_s, self._max_bytes = duration_s, max_mb * 1e6
        self._kept: deque[tuple[float, Message]] = deque()
        self._bytes = 0

    def add(self, message: Message, now_s: float) -> None:
        """Keeps a message that arrives at a monotonic time; the oldest ones leave."""
        self._kept.append((now_s, message))
        self._bytes += len(message.data)
        while self._kept and (
            now_s - self._kept[0][0] > self._duration_s or self._bytes > self._max_bytes
        ):
            self._bytes -= len(self._kept.popleft()[1].data)

    def messages(self) -> list[Message]:
        """What is kept, oldest first."""
        return [message for _, message in self._kept]


class Recorder:
    """Takes messages and writes those that are wanted; nothing here waits for a disk.

    What went wrong is logged in one line, once.

    Attributes:
        problem: Why the last recording ended early; "" if it did not.
    """

    def __init__(
        self,
        config: RecorderConfig,
        types: MessageTypes,
        clock: Callable[[], float],
        log: Callable[[str], object],
        warn: Callable[[str], object],
    ) -> None:
        """Args:
        config: What can be set.
        types: Of the messages.
        clock: Monotonic seconds.
        log: Takes a line for people.
        warn: The same for what went wrong.
        """
        self._config, self._types, self._clock = config, types, clock
        self._log, self._warn, self.problem = log, warn, ""
        self._folder = Path(config.folder).expanduser()
        self._black_box = BlackBox(config.black_box_s, config.black_box_mb)
        self._lasting: dict[str, Message] = {}
        self._recording: BagThread | None = None
        self._closing: list[tuple[str, BagThread]] = []
        self._fault: tuple[str, float] | None = None

    @property
    def recording(self) -> bool:
        """Whether a recording is being written."""
        return self._recording is not None

    def take(self, message: Message, lasting: bool = False) -> None:
        """Takes a message.

        Args:
            message: The message.
            lasting: It holds until the next one of its topic: every file begins with it.
        """
        if lasting:
            self._lasting[message.topic] = message
        elif self._config.black_box_s:
            self._black_box.add(message, self._clock())
        if self._recording is not None:
            self._recording.put(message)

    def start(self) -> Path:
        """Begins a recording, unless one is being written; returns its folder."""
        if self._recording is None:
            self._recording = self._begin("recording", time.time_ns(), self._config.queue_mb)
            self.problem = ""
            self._log(f"recording to {self._recording.path}")
        return self._recording.path

    def stop(self) -> None:
        """Ends the recording; `check` tells when it is complete."""
        if self._recording is not None:
            self._end("recording", self._recording)
            self._recording = None

    def fault(self, reason: str) -> None:
        """Something went wrong: a black box will be written; does nothing while one is due."""
        if self._config.black_box_s and self._fault is None:
            self._fault = reason, self._clock() + self._config.after_fault_s

    def check(self) -> None:
        """Does what is due; to be called several times a second."""
        if self._fault is not None and self._clock() >= self._fault[1]:
            self._write_black_box()
        if self._recording is not None and self._recording.ended:
            self.problem = self._recording.problem
            self.stop()
        for what, bag in [each for each in self._closing if each[1].ended]:
            self._closing.remove((what, bag))
            self._tell_end(what, bag)

    def close(self, timeout_s: float) -> None:
        """Ends everything, and waits for the disk for at most so long."""
        if self._fault is not None:
            self._write_black_box()
        self.stop()
        deadline_s = self._clock() + timeout_s
        for _, bag in self._closing:
            bag.join(max(0.0, deadline_s - self._clock()))
        self.check()

    def _write_black_box(self) -> None:
        assert self._fault is not None
        what, self._fault = f"black box of {self._fault[0]!r}", None
        kept = self._black_box.messages()
        bag = self._begin("black_box", kept[0].stamp_ns if kept else time.time_ns())
        for message in kept:
            bag.put(message)
        self._end(what, bag)

    def _begin(self, kind: str, stamp_ns: int, queue_mb: float = inf) -> BagThread:
        """A file that begins at a time, with all that holds then."""
        name = f"{datetime.now():%Y%m%d_%H%M%S}_{kind}"
        paths = (self._folder / f"{name}{suffix}" for suffix in _suffixes())
        path = next(path for path in paths if not path.exists())
        bag = BagThread(path, self._types, self._config.min_free_mb, queue_mb)
        for message in self._lasting.values():
            bag.put(message._replace(stamp_ns=stamp_ns))
        return bag

    def _end(self, what: str, bag: BagThread) -> None:
        bag.close()
        self._closing.append((what, bag))

    def _tell_end(self, what: str, bag: BagThread) -> None:
        content = f"{bag.written} messages in {bag.path}"
        if bag.problem:
            self._warn(f"{what} ended: {bag.problem}; {content}")
        elif bag.lost:
            self._warn(f"{what}: {content}; {bag.lost} are missing, the disk is too slow")
        else:
            self._log(f"{what}: {content}")


def _suffixes() -> Iterator[str]:
    """What makes the names of files of one second different."""
    yield ""
    yield from (f"_{number}" for number in count(2))
