"""Parameters of drivers of joints."""

from math import pi
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT

Positive = Annotated[float, Field(gt=0)]
_TOPIC = r"(~?/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*"
TopicName = Annotated[
    str, Field(pattern=rf"^({_TOPIC})?$", json_schema_extra={"format": "name of a topic"})
]
"""Name of a topic or service, with or without namespace, as design.ros2.org/articles/
topic_and_service_names.html allows it; "" for none."""
_FULL_TURN_RAD = 2 * pi
Sign = Literal[-1, 1]

FORWARD_COMMAND = "std_msgs/msg/Float64MultiArray"
JOINT_STATE = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"


@dataclass(frozen=True, config=STRICT)
class NoParameters:
    """Of drivers that need none."""


@dataclass(frozen=True, config=STRICT)
class QosConfig:
    """Quality of service of a topic.

    Attributes:
        reliability: A best-effort reader matches every publisher.
        durability: Whether late subscribers get the last message.
        depth: Messages that wait; more than 1 gives old ones to a slow reader.
    """

    reliability: Literal["best_effort", "reliable"] = "best_effort"
    durability: Literal["volatile", "transient_local"] = "volatile"
    depth: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True, config=STRICT)
class CommandQosConfig(QosConfig):
    """Quality of service of commands.

    Attributes:
        reliability: Commands must not be lost.
        durability: Whether late subscribers get the last message.
        depth: Messages that wait.
    """

    reliability: Literal["best_effort", "reliable"] = "reliable"


def qos_mismatch(
    published_reliability: str,
    published_durability: str,
    subscribed_reliability: str,
    subscribed_durability: str,
) -> str:
    """Why no message passes; "" if it does. Discovery does not tell the other settings right.

    The words are those of `QosConfig`, in any case.
    """
    if (published_reliability.lower(), subscribed_reliability.lower()) == (
        "best_effort",
        "reliable",
    ):
        return "published best effort, subscribed reliable"
    if (published_durability.lower(), subscribed_durability.lower()) == (
        "volatile",
        "transient_local",
    ):
        return "published volatile, subscribed transient local"
    return ""


@dataclass(frozen=True, config=STRICT)
class StateConfig:
    """Where the measured joints come from.

    Attributes:
        topic: Of the joint states, or the service that gives them.
        type: sensor_msgs/msg/JointState, or a service whose answer has `position`, `velocity` and
            `effort` in the order of `joint_names`.
        qos: Of the topic.
        stamp: What says when the joints were measured: the message's `header`, or its `arrival`
            for a device whose clock is not that of this computer.
        effort: Whether the efforts in it are measured torques.
        poll_hz: How often a service is asked.
    """

    topic: TopicName = "/joint_states"
    type: str = JOINT_STATE
    qos: QosConfig = QosConfig()
    stamp: Literal["header", "arrival"] = "header"
    effort: bool = True
    poll_hz: Positive = 40.0


@dataclass(frozen=True, config=STRICT)
class CommandConfig:
    """Where position targets go.

    Attributes:
        topic: Of the targets.
        type: std_msgs/msg/Float64MultiArray of a forward command controller, in the order of
            `joint_names`; sensor_msgs/msg/JointState; or trajectory_msgs/msg/JointTrajectory.
        qos: Of the topic.
        reach_s: Time in which the one point of a JointTrajectory is to be reached.
    """

    topic: TopicName = ""
    type: str = FORWARD_COMMAND
    qos: CommandQosConfig = CommandQosConfig()
    reach_s: Positive = 0.05


@dataclass(frozen=True, config=STRICT)
class JointTopicsConfig:
    """Joints behind another ROS driver.

    Attributes:
        joint_names: The driver's names of its joints, in the order of its commands.
        urdf_names: The names of the same joints, in the same order, in the robot's URDF; empty:
            they have the same names.
        sign: 1, or -1 where the driver counts the other way round, in the same order; empty:
            all 1.
        offset_rad: Added after the sign: URDF position = sign * driver's position + offset;
            empty: all 0.
        state: Where the measured joints come from.
        command: Where position targets go.
        connect_timeout_s: Longest wait for the driver at the start.
        timeout_s: Joint states older than this are reported as an error of the device.
    """

    joint_names: tuple[str, ...] = ()
    urdf_names: tuple[str, ...] = ()
    sign: tuple[Sign, ...] = ()
    offset_rad: tuple[float, ...] = ()
    state: StateConfig = StateConfig()
    command: CommandConfig = CommandConfig()
    connect_timeout_s: Positive = 5.0
    timeout_s: Positive = 0.2

    @model_validator(mode="after")
    def _check(self) -> "JointTopicsConfig":
        count = len(self.joint_names)
        for name in ("joint_names", "urdf_names"):
            names = getattr(self, name)
            if twice := sorted({one for one in names if names.count(one) > 1}):
                raise ValueError(f"{name} has {', '.join(twice)} twice")
        if degrees := [str(each) for each in self.offset_rad if abs(each) > _FULL_TURN_RAD]:
            raise ValueError(
                f"offset_rad has {', '.join(degrees)}: more than a turn; give radians"
            )
        for name in ("urdf_names", "sign", "offset_rad"):
            length = len(getattr(self, name))
            if length not in (0, count):
                raise ValueError(
                    f"{name} has {length} entries and joint_names {count}; one for each is needed"
                )
        return self


@dataclass(frozen=True, config=STRICT)
class ReplayJointsConfig:
    """Joints that move as recorded, whatever is commanded.

    Attributes:
        file: `.npz` with `names` [J], `time_s` [T], `position` [T, J] rad and, where measured,
            `velocity` [T, J] rad/s; or `.csv` with the header `time_s,<joint>,...`.
        loop: Begin again at the end; else the last measurement stays, and gets old.
    """

    file: str = ""
    loop: bool = True
