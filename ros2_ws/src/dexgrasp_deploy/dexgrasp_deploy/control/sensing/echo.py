"""Compares the commands that a driver says it obeys with those that were sent."""

from collections import deque
from collections.abc import Mapping

_SAME_RAD = 1e-6
_KEPT_S = 2.0
"""Commands older than this are not needed to judge an echo that has just arrived."""


class CommandEcho:
    """Watches a driver's echo of commands; a driver without an echo is not judged.

    A driver that refuses commands, obeys somebody else or has lost its device shows here before
    the robot is far from where it should be. Both times are of senders, so that a reader that is
    late itself does not take the driver for late.
    """

    def __init__(self, max_delay_s: float) -> None:
        """Args:
        max_delay_s: A command must be echoed within this.
        """
        self._max_delay_s = max_delay_s
        self._sent: deque[tuple[float, Mapping[str, float]]] = deque()
        self._problem, self._heard_s = "", 0.0

    def sent(self, positions: Mapping[str, float], now_s: float) -> None:
        """Notes a command.

        Args:
            positions: rad by joint name.
            now_s: Monotonic time.
        """
        if self._sent and now_s - self._sent[-1][0] > self._max_delay_s:
            self._sent.clear()  # the robot was not commanded meanwhile: a new beginning
            self._problem = ""
        self._sent.append((now_s, positions))
        while now_s - self._sent[0][0] > _KEPT_S:
            self._sent.popleft()

    def heard(self, positions: Mapping[str, float], stamp_s: float) -> None:
        """Judges an echo.

        Args:
            positions: rad by joint name, of the command that the driver obeys.
            stamp_s: Monotonic time at which the driver said so.
        """
        self._heard_s = stamp_s
        allowed = self._allowed(stamp_s - self._max_delay_s)
        if not allowed:
            return
        if any(_is_same(command, positions) for command in allowed):
            self._problem = ""
            return
        apart, joint = min(_difference(command, positions) for command in allowed)
        self._problem = (
            f"the driver has obeyed no command for {self._max_delay_s} s: it echoes {joint} "
            f"{apart:.3g} rad from every command; see its log"
        )

    def _allowed(self, due_s: float) -> list[Mapping[str, float]]:
        """Commands that may be obeyed, newest first: those after a time and the one before them;
        empty where there is none before, and the driver has time.
        """
        found = []
        for time_s, command in reversed(self._sent):
            found.append(command)
            if time_s <= due_s:
                return found
        return []

    def problem(self, now_s: float) -> str:
        """What is wrong now; "" for nothing, or where nothing was sent or echoed lately."""
        sent_s = self._sent[-1][0] if self._sent else float("-inf")
        if now_s - min(sent_s, self._heard_s) > self._max_delay_s:
            return ""
        return self._problem


def _is_same(command: Mapping[str, float], echo: Mapping[str, float]) -> bool:
    """Whether they share joints, and all that they share are the same."""
    shared = [name for name in command if name in echo]
    return bool(shared) and all(abs(command[n] - echo[n]) <= _SAME_RAD for n in shared)


def _difference(command: Mapping[str, float], echo: Mapping[str, float]) -> tuple[float, str]:
    """Largest difference of a joint that is in both, and its name; infinite where none is."""
    shared = [(abs(command[name] - echo[name]), name) for name in command if name in echo]
    return max(shared, default=(float("inf"), "no joint"))
