"""What was seen on a ROS graph, as plain values that also go from process to process as JSON."""

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT

Measured = Annotated[float, Field(allow_inf_nan=True)]
"""A device may send anything."""


@dataclass(frozen=True, config=STRICT)
class Endpoint:
    """A publisher or subscription of another node.

    Attributes:
        node: Full name.
        type: Of its messages.
        reliability: `reliable` or `best_effort`.
        durability: `volatile` or `transient_local`.
    """

    node: str
    type: str
    reliability: str
    durability: str


@dataclass(frozen=True, config=STRICT)
class Stream:
    """Messages of one kind that arrived on a topic.

    Attributes:
        count: How many.
        seconds: From the first to the last one.
        longest_gap_s: Between two of them.
        oldest_s: Largest age of a stamp on arrival.
        newest_s: Smallest age; negative where stamps are ahead of this computer's clock.
        stamped: Whether they have stamps.
        names: Joint names; empty for images.
        position: Of the last message, in the order of `names`.
        velocity: The same; empty where there is none.
        effort: The same.
        one_publisher: Whether their numbers only increase; else two nodes publish the same.
        text: What an image is: `640x480 16UC1`.
        bytes: Size of an image.
    """

    count: int
    seconds: float
    longest_gap_s: float
    oldest_s: float
    newest_s: float
    stamped: bool
    names: tuple[str, ...] = ()
    position: tuple[Measured, ...] = ()
    velocity: tuple[Measured, ...] = ()
    effort: tuple[Measured, ...] = ()
    one_publisher: bool = True
    text: str = ""
    bytes: int = 0

    @property
    def rate_hz(self) -> float:
        """Messages per second; 0 where fewer than two came."""
        return (self.count - 1) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, config=STRICT)
class TopicFacts:
    """A topic.

    Attributes:
        publishers: Of all nodes.
        subscribers: Of all nodes but the listener itself.
        streams: What arrived; joint states of different names are different streams.
    """

    publishers: tuple[Endpoint, ...] = ()
    subscribers: tuple[Endpoint, ...] = ()
    streams: tuple[Stream, ...] = ()


@dataclass(frozen=True, config=STRICT)
class JointLimits:
    """A joint in a URDF that is published.

    Attributes:
        lower: rad.
        upper: rad.
        velocity: rad/s.
    """

    lower: float
    upper: float
    velocity: float


@dataclass(frozen=True, config=STRICT)
class GraphFacts:
    """A graph.

    Attributes:
        nodes: Full names, without the listener.
        topics: By full name: those that were asked for, and every `joint_command`.
        services: Names of all services.
        limits: Joints of the robot descriptions that are published.
        clock_jump_s: Largest change of the time of day against the monotonic clock.
        domain: Of the listener.
        range: How far it looked for others.
    """

    nodes: tuple[str, ...] = ()
    topics: dict[str, TopicFacts] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    limits: dict[str, JointLimits] = field(default_factory=dict)
    clock_jump_s: float = 0.0
    domain: str = "0"
    range: str = ""
