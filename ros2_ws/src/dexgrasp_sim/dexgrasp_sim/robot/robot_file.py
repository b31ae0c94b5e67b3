"""The format of a robot's YAML file, which is in the folder of its URDF; see `robot.py`."""

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Vector3 = tuple[float, float, float]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
PerJoint = Positive | tuple[Positive, ...]
"""One number for all joints of a group, or one for each."""

POSTURES = ("reset", "relaxed", "pregrasp")
GAIN_SETS = ("stiff", "paper")


@dataclass(frozen=True, config=STRICT)
class FingerEntry:
    """One finger.

    Attributes:
        name: Name of the finger.
        joints: From the palm to the tip.
        tip: Frame on the surface of its tip, x axis outward.
    """

    name: str
    joints: Names
    tip: str


@dataclass(frozen=True, config=STRICT)
class PostureEntry:
    """Joint positions in rad, in the order of `arm` and of the fingers' joints."""

    arm: tuple[float, ...]
    hand: tuple[float, ...]


@dataclass(frozen=True, config=STRICT)
class ServoEntry:
    """Position servos of a group: stiffness in N m/rad, damping in N m s/rad, and inertia of the
    drive reflected to the joint in kg m2.
    """

    stiffness: PerJoint
    damping: PerJoint
    armature: PerJoint


@dataclass(frozen=True, config=STRICT)
class GainsEntry:
    """One set of servo gains."""

    arm: ServoEntry
    hand: ServoEntry


@dataclass(frozen=True, config=STRICT)
class MotionLimitsEntry:
    """Limits of joint targets besides the URDF's position and velocity limits."""

    acceleration_rad_s2: PerJoint
    jerk_rad_s3: PerJoint


@dataclass(frozen=True, config=STRICT)
class MotionEntry:
    """Motion limits by group."""

    arm: MotionLimitsEntry
    hand: MotionLimitsEntry


@dataclass(frozen=True, config=STRICT)
class SynergyEntry:
    """Hand joints that one action moves together.

    Attributes:
        name: Of the action dimension.
        range: Lowest and highest value; it must include 0, the start.
        rate_per_s: Rate of the value at an action of 1.
        joints: By joint, the angle in rad that a value of 1 adds to the `pregrasp` posture.
        closes: Whether an increasing value closes the hand.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    range: tuple[float, float]
    rate_per_s: Positive
    joints: Annotated[dict[str, float], Field(min_length=1)]
    closes: bool = False

    @model_validator(mode="after")
    def _check(self) -> "SynergyEntry":
        low, high = self.range
        if not low <= 0.0 <= high or low == high:
            raise ValueError(f"range [{low:g}, {high:g}] must hold 0 and more than one number")
        return self


@dataclass(frozen=True, config=STRICT)
class PalmVelocityEntry:
    """The palm-velocity action space on this robot.

    Attributes:
        workspace_m: Lower and upper corner of the box that limits the target of the grasp centre.
        max_yaw_rad: Largest yaw of the palm to either side of its start.
        synergies: Of the hand, in action order.
    """

    workspace_m: tuple[Vector3, Vector3]
    max_yaw_rad: Positive
    synergies: Annotated[tuple[SynergyEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> "PalmVelocityEntry":
        lower, upper = self.workspace_m
        if any(low >= high for low, high in zip(lower, upper)):
            raise ValueError(
                f"workspace_m has its lower corner {lower} not below the upper one {upper} on "
                "every axis; correct one of them"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class SphereEntry:
    """A sphere that covers a part of the robot, its centre at `offset_m` in the frame."""

    frame: str
    radius_m: Positive
    offset_m: Vector3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True, config=STRICT)
class SpheresEntry:
    """The spheres with which the robot avoids obstacles, and the hand avoids the upper arm."""

    upper_arm: Annotated[tuple[SphereEntry, ...], Field(min_length=1)]
    forearm: tuple[SphereEntry, ...]
    hand: Annotated[tuple[SphereEntry, ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class FabricEntry:
    """The fabric's action space on this robot.

    Attributes:
        palm_m: Palm position at actions of -1 and of 1, base frame.
        palm_euler_zyx_rad: Centre of the palm's orientation, ZYX Euler angles stored z, y, x.
        principal_components: YAML file of the hand's principal components, beside this one.
        spheres: Body spheres.
    """

    palm_m: tuple[Vector3, Vector3]
    palm_euler_zyx_rad: Vector3
    principal_components: str
    spheres: SpheresEntry


@dataclass(frozen=True, config=STRICT)
class RobotFile:
    """A robot's YAML file.

    Attributes:
        urdf: URDF file beside this one; its root link is the base frame.
        arm: Arm joints, base first.
        fingers: In order.
        thumb: Name of the finger that opposes the others.
        palm: Frame of the palm.
        grasp_center: Frame between the opposed thumb and the fingers.
        postures: `reset` (start of the fabric's action space), `relaxed` (target of redundant
            joints) and `pregrasp` (start of the palm-velocity action space).
        flat_hand: [H] rad, the posture towards which the curl reward pulls.
        gains: Servo gains by name, `stiff` and `paper`.
        motion: Limits of joint targets.
        palm_velocity: See `PalmVelocityEntry`.
        fabric: See `FabricEntry`; None: the robot has no such action space.
        touching_links: Pairs of bodies whose contact is ignored.
    """

    urdf: str
    arm: Names
    fingers: Annotated[tuple[FingerEntry, ...], Field(min_length=2)]
    thumb: str
    palm: str
    grasp_center: str
    postures: dict[str, PostureEntry]
    flat_hand: tuple[float, ...]
    gains: dict[str, GainsEntry]
    motion: MotionEntry
    palm_velocity: PalmVelocityEntry
    fabric: FabricEntry | None = None
    touching_links: tuple[tuple[str, str], ...] = ()

    @property
    def hand(self) -> tuple[str, ...]:
        """The hand's joints, one finger after the other."""
        return tuple(joint for finger in self.fingers for joint in finger.joints)

    @model_validator(mode="after")
    def _check(self) -> "RobotFile":
        for kind, given, needed in (
            ("postures", self.postures, POSTURES),
            ("gains", self.gains, GAIN_SETS),
        ):
            if missing := [name for name in needed if name not in given]:
                raise ValueError(f"`{kind}` lacks {', '.join(missing)}; add it")
        fingers = [finger.name for finger in self.fingers]
        synergies = [synergy.name for synergy in self.palm_velocity.synergies]
        for kind, names in (
            ("joint", (*self.arm, *self.hand)),
            ("finger", fingers),
            ("synergy", synergies),
        ):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{kind} {twice[0]!r} is named twice; name each once")
        if self.thumb not in fingers:
            raise ValueError(f"thumb {self.thumb!r} is none of `fingers`; give one of their names")
        for name, posture in self.postures.items():
            self._check_length(f"postures.{name}.arm", posture.arm, self.arm)
            self._check_length(f"postures.{name}.hand", posture.hand, self.hand)
        self._check_length("flat_hand", self.flat_hand, self.hand)
        for synergy in self.palm_velocity.synergies:
            if unknown := [joint for joint in synergy.joints if joint not in self.hand]:
                raise ValueError(
                    f"synergy {synergy.name!r} moves {unknown[0]!r}, which is no joint of "
                    f"`fingers`; they have {', '.join(self.hand)}"
                )
        return self

    def _check_length(self, name: str, values: tuple[float, ...], joints: tuple[str, ...]) -> None:
        if len(values) != len(joints):
            raise ValueError(
                f"`{name}` has {len(values)} numbers for {len(joints)} joints; give one for each"
            )
