"""The learner's connection to one simulator worker, which may be lost and made again."""

import time
from collections.abc import Set
from contextlib import suppress

from dexgrasp_sim.transport.channel import TRANSFER_TIMEOUT_S, Channel, ChannelClosed, Source
from dexgrasp_sim.transport.learner_link import LearnerLink
from dexgrasp_sim.transport.protocol import Message, MessageType, ProtocolError

_TAIL_LINES = 20


class WorkerDied(RuntimeError):
    """A worker has ended, or has lost its connection, without being asked to.

    Attributes:
        index: Worker index.
        returncode: Exit code, negative for a signal; None if it is not known or still ending.
        stderr_tail: Last lines of the traceback it has sent, else of its log.
    """

    def __init__(self, index: int, returncode: int | None, stderr_tail: list[str]) -> None:
        stderr_tail = stderr_tail[-_TAIL_LINES:]
        super().__init__(
            f"simulator worker {index} died (exit code {returncode}); it said last:\n"
            + "\n".join(stderr_tail or ["(nothing)"])
        )
        self.index = index
        self.indices = [index]
        self.returncode = returncode
        self.stderr_tail = stderr_tail


class WorkerConnection:
    """Base class of worker processes on this host and workers on other hosts.

    Attributes:
        index: Worker index.
        channel: Connection to it, None before it has connected and after it was lost.
        command_line: For a person to start it.
    """

    def __init__(self, index: int, command_line: str) -> None:
        self.index = index
        self.command_line = command_line
        self.channel: Channel | None = None

    @property
    def source(self) -> Source:
        """What to poll for its next connection or message."""
        raise NotImplementedError

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as that is known."""
        raise NotImplementedError

    @property
    def refused(self) -> int:
        """Connections of other users that were refused."""
        return 0

    @property
    def traces(self) -> str:
        """Hint for error messages: where to look if something is wrong with it."""
        raise NotImplementedError

    def spawn(self) -> None:
        """Starts it, or tells the user how to start it."""
        raise NotImplementedError

    def may_be_replaced(self, hung: bool) -> bool:
        """Whether it can be replaced safely, that is, can be kept from writing any more.

        Args:
            hung: Whether it has not answered in time; else it is lost.
        """
        raise NotImplementedError

    def replace(self) -> None:
        """Ends it, so that it cannot write any more, and starts another one."""
        raise NotImplementedError

    def hello(self) -> Message | None:
        """Connects it and returns its first message, None if that has not arrived; never waits.

        Raises:
            WorkerDied: It has ended before that.
            ProtocolError: It is of another version.
        """
        raise NotImplementedError

    def died(self, reason: str = "") -> WorkerDied:
        """The error to raise after its end.

        Args:
            reason: Its message, or what is known; "" to look into its log.
        """
        raise NotImplementedError

    def end(self, deadline_s: float) -> None:
        """Waits until `deadline_s` (monotonic) for it to stop, then ends or disconnects it."""
        raise NotImplementedError

    def lost(self, error: ChannelClosed) -> WorkerDied:
        """The error to raise when its connection has ended."""
        return self.died(str(error))

    def send(self, message: Message) -> None:
        """Sends a message; raises WorkerDied if the worker has ended."""
        try:
            self.connected().send(message)
        except ChannelClosed as error:
            raise self.lost(error) from None

    def order(self, link: LearnerLink, message: Message) -> None:
        """Sends an order and its tensors; raises WorkerDied if the worker has ended."""
        try:
            link.send(self.connected(), self.index, message)
        except ChannelClosed as error:
            raise self.lost(error) from None

    def broken(self, error: ProtocolError) -> Exception:
        """The error to raise when it has sent what it may not send."""
        return error

    def receive(self, expected: Set[MessageType]) -> Message:
        """Reads a message that has begun to arrive.

        Args:
            expected: Types that may come now, with ERROR among them.

        Raises:
            WorkerDied: It has ended, or sends an ERROR.
            ProtocolError: It is of another version, or sends something else.
        """
        try:
            message = self.connected().receive(TRANSFER_TIMEOUT_S, expected)
        except ChannelClosed as error:
            raise self.lost(error) from None
        if message.type == MessageType.ERROR:
            raise self.died(str((message.payload or {}).get("text", "")))
        return message

    def take(self, link: LearnerLink, answer: Message, order: Message) -> Message:
        """Receives the tensors of an answer.

        Raises:
            WorkerDied: The worker has ended.
            ProtocolError: It is no answer to the order.
        """
        try:
            return link.receive(self.connected(), self.index, answer, order)
        except ChannelClosed as error:
            raise self.lost(error) from None

    def ask_to_stop(self) -> None:
        """Sends STOP if it is connected."""
        if self.channel is not None:
            with suppress(ChannelClosed):
                self.channel.send(Message(MessageType.STOP))

    def connected(self) -> Channel:
        """The connection; raises RuntimeError before there is one."""
        if self.channel is None:
            raise RuntimeError(f"worker {self.index} is not connected; call start() first")
        return self.channel

    def disconnect(self) -> None:
        """Closes the connection; idempotent."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None


def drain(channel: Channel, deadline_s: float) -> None:
    """Discards messages until the other side closes, at most until `deadline_s` (monotonic)."""
    with suppress(TimeoutError, ChannelClosed, ProtocolError):
        while True:
            channel.receive(max(deadline_s - time.monotonic(), 0.0))
