"""State machine of a robot's episodes, with named states and reasons; it knows no ROS and no time
but what it is told.
"""

from enum import Enum


class State(Enum):
    """What the control loop does. An episode goes from top to bottom and home again."""

    IDLE = "idle"
    """Nothing is sent."""
    HOME = "home"
    """The robot moves to the posture in which training episodes start, around obstacles."""
    LOOK = "look"
    """It stands there until the images can be acted on."""
    GRASP = "grasp"
    """The policy acts."""
    LIFT = "lift"
    """The policy acts, and the hand has lifted something."""
    HAND_OVER = "hand_over"
    """The robot holds what it grasped until it is told to open the hand."""
    PLACE = "place"
    """It puts down what it holds, and opens the hand."""
    HOLD = "hold"
    """It stands where it stopped: the hand keeps its grip."""
    FAULT = "fault"
    """As HOLD, until a person clears the fault by `release`."""


POLICY_ACTS = frozenset({State.GRASP, State.LIFT})
_ACTIVE = frozenset({State.HOME, State.LOOK, *POLICY_ACTS, State.HAND_OVER, State.PLACE})


class Reason(Enum):
    """Why the machine is in its present state."""

    STARTED = "started"
    GOAL_ACCEPTED = "goal accepted"
    SENT_HOME = "sent home"
    AT_HOME = "at home"
    START_POSTURE_REACHED = "start posture reached"
    LIFTED = "the hand has lifted something"
    DROPPED = "what was lifted was dropped"
    TIME_UP = "episode time is up"
    PUT_DOWN = "put down"
    HANDED_OVER = "handed over"
    TRY_AGAIN = "nothing was grasped; trying again"
    CANCELLED = "cancelled by the client"
    RELEASED = "released"
    BUSY = "an episode is running, or a fault is not cleared"
    NO_WAY = "no free way was found"
    MOTION_TIMEOUT = "the robot did not arrive in time"
    STALE_JOINTS = "joint measurements are too old"
    STALE_IMAGE = "camera images are too old"
    STAMP_AHEAD = "a stamp lies in the future"
    FROZEN = "measurements arrive but do not change"
    BAD_MEASUREMENT = "a measurement is not finite or does not fit the policy"
    OUT_OF_LIMITS = "a joint is measured far outside its limits"
    BAD_CAMERA = "the camera does not fit the policy"
    NOT_THE_SCENE = "the image cannot be the scene"
    IN_OBSTACLE = "the robot stands in an obstacle"
    BAD_ACTION = "the policy's action is not finite"
    TRACKING = "the robot does not follow its commands"
    NOT_OBEYED = "the driver does not obey"
    WRONG_JOINT = "the self-test failed"
    OVERLOAD = "a joint's torque is too high"
    SECOND_PUBLISHER = "somebody else publishes on a topic of the robot"
    EMERGENCY_STOP = "emergency stop"


STALE = frozenset({Reason.STALE_JOINTS, Reason.STALE_IMAGE, Reason.STAMP_AHEAD})
"""What may pass by itself: the robot stops, but a person need not clear a fault."""


class UnfitInput(RuntimeError):
    """A measurement must not be acted on, or the robot must not start.

    Attributes:
        reason: Which rule it breaks; the message says how.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_ALLOWED = {
    State.IDLE: {State.HOME, State.PLACE, State.FAULT},
    State.HOME: {State.LOOK, State.HOLD, State.IDLE, State.FAULT},
    State.LOOK: {State.GRASP, State.HOLD, State.FAULT},
    State.GRASP: {State.LIFT, State.HOME, State.HOLD, State.FAULT},
    State.LIFT: {State.GRASP, State.HOME, State.PLACE, State.HAND_OVER, State.HOLD, State.FAULT},
    State.HAND_OVER: {State.PLACE, State.HOLD, State.FAULT},
    State.PLACE: {State.HOME, State.HOLD, State.FAULT},
    State.HOLD: {State.HOME, State.PLACE, State.IDLE, State.FAULT},
    State.FAULT: {State.IDLE},
}


class Episode:
    """The present state, since when, and why.

    Attributes:
        state: The present state.
        reason: Why it was entered.
        detail: The same in numbers and names, for people; "" where there is nothing to add.
        since_s: Monotonic time at which it was entered.
    """

    def __init__(self, now_s: float) -> None:
        self.state = State.IDLE
        self.reason = Reason.STARTED
        self.detail = ""
        self.since_s = now_s

    @property
    def active(self) -> bool:
        """Whether the robot moves or is about to."""
        return self.state in _ACTIVE

    @property
    def why(self) -> str:
        """Reason and detail in one line."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value

    def enter(self, state: State, reason: Reason, now_s: float, detail: str = "") -> None:
        """Changes the state.

        Raises:
            ValueError: The change is not allowed from the present state.
        """
        if state not in _ALLOWED[self.state]:
            allowed = ", ".join(s.name for s in State if s in _ALLOWED[self.state])
            raise ValueError(
                f"episode cannot go from {self.state.name} to {state.name} ({reason.value}); "
                f"allowed: {allowed}"
            )
        self.state, self.reason, self.detail, self.since_s = state, reason, detail, now_s

    def fault(self, reason: Reason, now_s: float, detail: str = "") -> None:
        """Enters FAULT from any state; the first reason is kept until the fault is cleared."""
        if self.state is not State.FAULT:
            self.enter(State.FAULT, reason, now_s, detail)
