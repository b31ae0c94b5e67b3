"""State machine of a grasp attempt, with named states and reasons."""

from enum import Enum


class State(Enum):
    """What the control loop does; the value is the state's number in status messages."""

    IDLE = 0
    """Nothing is sent."""
    APPROACH = 1
    """The robot moves to the posture in which training episodes start."""
    RUNNING = 2
    """The policy acts."""
    HOLD = 3
    """The last command is repeated: the hand keeps its grip."""
    FAULT = 4
    """As HOLD, until the fault is cleared by `release`."""


class Reason(Enum):
    """Why the machine is in its present state."""

    STARTED = "started"
    GOAL_ACCEPTED = "goal accepted"
    START_POSTURE_REACHED = "start posture reached"
    TIME_UP = "episode time is up"
    CANCELLED = "cancelled by the client"
    RELEASED = "released"
    START_POSTURE_TOO_FAR = "the arm is too far from the start posture"
    APPROACH_TIMEOUT = "start posture not reached in time"
    STALE_JOINTS = "joint measurements are too old"
    STALE_IMAGE = "camera images are too old"
    BAD_MEASUREMENT = "a measurement is not finite or does not fit the policy"
    BAD_ACTION = "the policy's action is not finite"
    TRACKING = "the robot does not follow its commands"


_ALLOWED = {
    State.IDLE: {State.APPROACH, State.FAULT},
    State.APPROACH: {State.RUNNING, State.HOLD, State.FAULT},
    State.RUNNING: {State.HOLD, State.FAULT},
    State.HOLD: {State.APPROACH, State.IDLE, State.FAULT},
    State.FAULT: {State.IDLE},
}


class Episode:
    """The present state, since when, and why."""

    def __init__(self, now_s: float) -> None:
        self.state = State.IDLE
        self.reason = Reason.STARTED
        self.since_s = now_s

    @property
    def active(self) -> bool:
        """Whether an attempt is running."""
        return self.state in (State.APPROACH, State.RUNNING)

    def enter(self, state: State, reason: Reason, now_s: float) -> None:
        """Changes the state.

        Raises:
            ValueError: The change is not allowed from the present state.
        """
        if state not in _ALLOWED[self.state]:
            allowed = sorted(s.name for s in _ALLOWED[self.state])
            raise ValueError(
                f"episode cannot go from {self.state.name} to {state.name} ({reason.value}); "
                f"allowed: {', '.join(allowed)}"
            )
        self.state, self.reason, self.since_s = state, reason, now_s

    def fault(self, reason: Reason, now_s: float) -> None:
        """Enters FAULT from any state; the first reason is kept until the fault is cleared."""
        if self.state is not State.FAULT:
            self.enter(State.FAULT, reason, now_s)
