"""Left and right exposures that belong together, by the time of exposure."""

from collections import deque
from typing import Any, Literal, NamedTuple

from dexgrasp_deploy.drivers.camera_config import PairingConfig

Side = Literal["left", "right"]
_OTHER: dict[Side, Side] = {"left": "right", "right": "left"}


class Exposure(NamedTuple):
    """One image of one camera.

    Attributes:
        image: Whatever the caller pairs.
        stamp_s: Monotonic time of the exposure.
        arrival_s: Monotonic time of its arrival.
    """

    image: Any
    stamp_s: float
    arrival_s: float


class Pair(NamedTuple):
    """Two exposures of one moment."""

    left: Exposure
    right: Exposure

    @property
    def stamp_s(self) -> float:
        """Of the older one."""
        return min(self.left.stamp_s, self.right.stamp_s)

    @property
    def arrival_s(self) -> float:
        """Of the one that came first: how long the pair has been on its way at most."""
        return min(self.left.arrival_s, self.right.arrival_s)


class StereoPairer:
    """Joins two streams whose images arrive in any order of the sides.

    Every exposure is in at most one pair, pairs come in the order of time, and the exposures of a
    pair differ by at most `max_skew_s`. Exposures that repeat or go back in time are dropped.
    """

    def __init__(self, config: PairingConfig) -> None:
        self._config = config
        self._waiting: dict[Side, deque[Exposure]] = {
            side: deque(maxlen=config.waiting) for side in _OTHER
        }
        self._newest: dict[Side, Exposure] = {}
        self._least_skew_s = float("inf")
        self.pairs = 0
        self.dropped = 0

    def push(self, side: Side, exposure: Exposure) -> Pair | None:
        """Takes the next exposure of a side.

        Returns:
            The pair that it completes; None if its partner is not there.
        """
        newest = self._newest.get(side)
        if newest is not None and exposure.stamp_s <= newest.stamp_s:
            self.dropped += 1
            return None
        self._newest[side] = exposure
        own, others = self._waiting[side], self._waiting[_OTHER[side]]
        partner = min(others, key=lambda one: abs(one.stamp_s - exposure.stamp_s), default=None)
        if partner is None:
            own.append(exposure)
            return None
        skew_s = abs(partner.stamp_s - exposure.stamp_s)
        if skew_s > self._config.max_skew_s:
            self._least_skew_s = min(self._least_skew_s, skew_s)
            own.append(exposure)
            return None
        # what is older than a pair can have no partner any more, as both streams go forward
        own.clear()
        while others.popleft() is not partner:
            self.dropped += 1
        self.pairs += 1
        self._least_skew_s = float("inf")
        return Pair(exposure, partner) if side == "left" else Pair(partner, exposure)

    def complaint(self, now_s: float, timeout_s: float) -> str:
        """Why there are no pairs; "" while nothing is known.

        Args:
            now_s: Monotonic time.
            timeout_s: A side that is silent for this long is missing.
        """
        for side in _OTHER:
            newest = self._newest.get(side)
            if newest is None:
                return f"no {side} exposure has come"
            if now_s - newest.arrival_s > timeout_s:
                return f"the {side} exposures ended {now_s - newest.arrival_s:.2f} s ago"
        if self._least_skew_s < float("inf"):
            return (
                f"left and right exposure are at least {self._least_skew_s:.3f} s apart, allowed "
                f"{self._config.max_skew_s} s; synchronise the cameras"
            )
        return ""
