"""Writes one MCAP file in a thread of its own, so that a slow disk stops nobody."""

import shutil
import threading
import time
from math import inf
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from dexgrasp_deploy.recording.message_types import MessageTypes

_CHECK_S = 0.5
"""The free space is looked up so often."""


class Message(NamedTuple):
    """A serialized message.

    Attributes:
        topic: Full name.
        kind: Type, such as `sensor_msgs/msg/JointState`.
        stamp_ns: When it arrived, ns since 1970.
        data: CDR.
    """

    topic: str
    kind: str
    stamp_ns: int
    data: bytes


class BagThread:
    """A recording that is being written: a folder with one MCAP file and `metadata.yaml`.

    It ends by itself, with all that was written before, when the disk is full.

    Attributes:
        path: The folder.
        problem: Why it ended early; "" if it did not.
        written: Messages in the file.
        lost: Messages that were not taken, because the disk was too slow.
    """

    def __init__(
        self, path: Path, types: MessageTypes, min_free_mb: float, queue_mb: float = inf
    ) -> None:
        """Begins.

        Args:
            path: A folder that does not exist.
            types: Of the messages.
            min_free_mb: Space that is left free on the disk.
            queue_mb: So much may wait to be written.
        """
        self.path, self.problem, self.written, self.lost = path, "", 0, 0
        self._types, self._min_free_mb, self._queue_mb = types, min_free_mb, queue_mb
        self._queue: SimpleQueue[Message | None] = SimpleQueue()
        self._waiting, self._lock = 0, threading.Lock()
        self._connections: dict[tuple[str, str], Any] = {}
        self._checked_s = -inf
        self._thread = threading.Thread(target=self._run, name=path.name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written."""
        return not self._thread.is_alive()

    def put(self, message: Message) -> None:
        """Adds a message; returns at once."""
        with self._lock:
            if self._waiting > self._queue_mb * 1e6:
                self.lost += 1
                return
            self._waiting += len(message.data)
        self._queue.put(message)

    def close(self) -> None:
        """No message follows; returns at once."""
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Waits until all is written, at most so long."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._is_full():
                return
            with Writer(self.path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
                while (message := self._queue.get()) is not None and not self._is_full():
                    self._write(writer, message)
        except OSError as error:
            self.problem = f"{self.path} cannot be written ({error.strerror})"
        except WriterError as error:
            self.problem = str(error)

    def _is_full(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._checked_s < _CHECK_S:
            return False
        self._checked_s = now_s
        free_mb = shutil.disk_usage(self.path.parent).free / 1e6
        if free_mb >= self._min_free_mb:
            return False
        self.problem = (
            f"{free_mb:.0f} MB are free at {self.path.parent}, {self._min_free_mb:g} MB must "
            "stay so; delete recordings"
        )
        return True

    def _write(self, writer: Writer, message: Message) -> None:
        with self._lock:
            self._waiting -= len(message.data)
        key = (message.topic, message.kind)
        if key not in self._connections:
            self._connections[key] = writer.add_connection(*key, typestore=self._types.store)
        writer.write(self._connections[key], message.stamp_ns, message.data)
        self.written += 1
