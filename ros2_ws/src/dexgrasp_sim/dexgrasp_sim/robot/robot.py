"""Loads a robot from files: URDF, joint groups, frames, postures, gains and limits.

A robot is a folder with `robot.yaml` (see `robot_file.RobotFile`) and a URDF of primitive shapes.
Robots of this package are loaded by their folder's name, others by the path of `robot.yaml`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from dexgrasp_sim.config import ConfigError, load_config
from dexgrasp_sim.robot.hand_pca import HandPca, read_hand_pca
from dexgrasp_sim.robot.model import RobotModel, UrdfError
from dexgrasp_sim.robot.robot_file import (
    FabricEntry,
    PalmVelocityEntry,
    PerJoint,
    RobotFile,
    ServoEntry,
    SphereEntry,
)
from dexgrasp_sim.robot.urdf import load_urdf

DEFAULT_ROBOT = "kuka_allegro"
_FILE = "robot.yaml"
_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Finger:
    """One finger: its joints from the palm to the tip, and the frame of the tip."""

    name: str
    joints: tuple[str, ...]
    tip: str


@dataclass(frozen=True)
class ActuatorGains:
    """Position servos: torque = stiffness * (target - q) - damping * qd, cut at the URDF effort.

    Attributes:
        stiffness: [J] in the robot's joint order, N m/rad.
        damping: [J], N m s/rad.
        armature: [J], inertia of the drive reflected to the joint, kg m2.
    """

    stiffness: tuple[float, ...]
    damping: tuple[float, ...]
    armature: tuple[float, ...]


@dataclass(frozen=True)
class BodySpheres:
    """The spheres of the fabric: upper arm, forearm and hand, one after the other.

    Attributes:
        spheres: All.
        upper_arm: Indices of those that the hand must avoid.
        hand: Indices of those that must avoid the upper arm.
    """

    spheres: tuple[SphereEntry, ...]
    upper_arm: range
    hand: range


@dataclass(frozen=True, eq=False)
class FabricSpec:
    """Data of the robot for the fabric's action space.

    Attributes:
        palm_m: Palm position at actions of -1 and of 1, base frame.
        palm_euler_zyx_rad: Centre of the palm's orientation, ZYX Euler angles stored z, y, x.
        hand_pca: Principal components of the hand.
        body: Its spheres.
    """

    palm_m: tuple[tuple[float, float, float], tuple[float, float, float]]
    palm_euler_zyx_rad: tuple[float, float, float]
    hand_pca: HandPca
    body: BodySpheres


@dataclass(frozen=True, eq=False)
class Robot(RobotModel):
    """An arm with a hand. Vectors [J] are in the order of `joint_names`: the arm, then the hand.

    Attributes:
        path: Its `robot.yaml`.
        urdf_path: Its URDF.
        arm_joints: Base first.
        fingers: In order.
        thumb: Name of the finger that opposes the others.
        palm: Frame of the palm.
        grasp_center: Frame between the opposed thumb and the fingers.
        touching_links: Pairs of bodies whose contact is ignored.
        postures: [J] rad by name: `reset`, `relaxed`, `pregrasp`; see `RobotFile`.
        flat_hand: [H] rad, the posture towards which the curl reward pulls.
        gains: Servo gains by name.
        max_acceleration: [J] rad/s2, limits of joint targets.
        max_jerk: [J] rad/s3, limits of joint targets.
        palm_velocity: The palm-velocity action space on this robot.
        fabric: The fabric's action space; None: there is none.
    """

    path: Path
    urdf_path: Path
    arm_joints: tuple[str, ...]
    fingers: tuple[Finger, ...]
    thumb: str
    palm: str
    grasp_center: str
    touching_links: tuple[tuple[str, str], ...]
    postures: Mapping[str, tuple[float, ...]]
    flat_hand: tuple[float, ...]
    gains: Mapping[str, ActuatorGains]
    max_acceleration: tuple[float, ...]
    max_jerk: tuple[float, ...]
    palm_velocity: PalmVelocityEntry
    fabric: FabricSpec | None

    def __eq__(self, other: object) -> bool:
        return self is other  # loaded once, see `load_robot`

    def __hash__(self) -> int:
        return hash(self.path)

    @cached_property
    def hand_joints(self) -> tuple[str, ...]:
        """The hand's joints, one finger after the other."""
        return tuple(joint for finger in self.fingers for joint in finger.joints)

    @property
    def arm(self) -> slice:
        """Slice of the arm's joints in a [J] vector."""
        return slice(0, len(self.arm_joints))

    @property
    def hand(self) -> slice:
        """Slice of the hand's joints in a [J] vector."""
        return slice(len(self.arm_joints), self.num_joints)

    @property
    def fingertips(self) -> tuple[str, ...]:
        """The frames of the fingertips, in the order of `fingers`."""
        return tuple(finger.tip for finger in self.fingers)

    @property
    def task_frames(self) -> tuple[str, ...]:
        """Frames that observations, rewards and control use: palm, grasp centre, tips."""
        return (self.palm, self.grasp_center, *self.fingertips)

    @cached_property
    def sha256(self) -> str:
        """Hash of the files from which the robot was read."""
        digest = sha256()
        for file in sorted(self.path.parent.glob("*.yaml")):
            digest.update(file.read_bytes())
        digest.update(self.urdf_path.read_bytes())
        return digest.hexdigest()


def robot_names() -> tuple[str, ...]:
    """The robots of this package."""
    return tuple(sorted(file.parent.name for file in _FOLDER.glob(f"*/{_FILE}")))


def load_robot(name: str | Path = DEFAULT_ROBOT) -> Robot:
    """Reads a robot. Calls with the same name return the same object.

    Args:
        name: One of `robot_names`, or the path of another robot's `robot.yaml`.

    Raises:
        ConfigError: There is no such robot, or its files are wrong; the message names the file.
    """
    if str(name) in robot_names():
        return _load(_FOLDER / str(name) / _FILE)
    path = Path(name).expanduser()
    if path.suffix != ".yaml":
        raise ConfigError(
            f"robot {str(name)!r} is not one of {', '.join(robot_names())}; give one of these or "
            f"the path of a {_FILE}"
        )
    return _load(path.resolve())


@cache
def _load(path: Path) -> Robot:
    file = load_config(RobotFile, path)
    urdf_path = path.parent / file.urdf
    try:
        model = load_urdf(urdf_path, (*file.arm, *file.hand))
        _check_frames(model, file)
    except OSError as error:
        raise ConfigError(
            f"{path}: `urdf` = {file.urdf!r}: cannot be read ({error.strerror}); give a file "
            "beside this one"
        ) from None
    except UrdfError as error:
        raise ConfigError(f"{urdf_path}: {error}") from None
    try:
        return _robot(path, urdf_path, file, model)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _robot(path: Path, urdf_path: Path, file: RobotFile, model: RobotModel) -> Robot:
    groups = (len(file.arm), len(file.hand))
    motion = (file.motion.arm, file.motion.hand)
    robot = Robot(
        **{field.name: getattr(model, field.name) for field in fields(RobotModel)},
        path=path,
        urdf_path=urdf_path,
        arm_joints=file.arm,
        fingers=tuple(Finger(entry.name, entry.joints, entry.tip) for entry in file.fingers),
        thumb=file.thumb,
        palm=file.palm,
        grasp_center=file.grasp_center,
        touching_links=file.touching_links,
        postures={name: (*each.arm, *each.hand) for name, each in file.postures.items()},
        flat_hand=file.flat_hand,
        gains={name: _gains(each.arm, each.hand, groups) for name, each in file.gains.items()},
        max_acceleration=_spread([limit.acceleration_rad_s2 for limit in motion], groups),
        max_jerk=_spread([limit.jerk_rad_s3 for limit in motion], groups),
        palm_velocity=file.palm_velocity,
        fabric=file.fabric and _fabric(file.fabric, path.parent, file.hand),
    )
    _check_postures(robot)
    return robot


def _gains(arm: ServoEntry, hand: ServoEntry, groups: tuple[int, int]) -> ActuatorGains:
    servos = (arm, hand)
    return ActuatorGains(
        stiffness=_spread([servo.stiffness for servo in servos], groups),
        damping=_spread([servo.damping for servo in servos], groups),
        armature=_spread([servo.armature for servo in servos], groups),
    )


def _spread(values: list[PerJoint], groups: tuple[int, int]) -> tuple[float, ...]:
    """One number per joint of two groups."""
    spread: list[float] = []
    for value, count in zip(values, groups, strict=True):
        own = value if isinstance(value, tuple) else (value,) * count
        if len(own) != count:
            raise ValueError(
                f"{own} has {len(own)} numbers for {count} joints; give one for each joint, or a "
                "single one for all"
            )
        spread += own
    return tuple(spread)


def _fabric(entry: FabricEntry, folder: Path, hand_joints: tuple[str, ...]) -> FabricSpec:
    parts = entry.spheres
    arm = len(parts.upper_arm) + len(parts.forearm)
    body = BodySpheres(
        (*parts.upper_arm, *parts.forearm, *parts.hand),
        range(len(parts.upper_arm)),
        range(arm, arm + len(parts.hand)),
    )
    pca = read_hand_pca(folder / entry.principal_components, hand_joints)
    return FabricSpec(entry.palm_m, entry.palm_euler_zyx_rad, pca, body)


def _check_frames(model: RobotModel, file: RobotFile) -> None:
    spheres = file.fabric.spheres if file.fabric else None
    body = (*spheres.upper_arm, *spheres.forearm, *spheres.hand) if spheres else ()
    needed = [
        ("palm", file.palm),
        ("grasp_center", file.grasp_center),
        *((f"fingers.{finger.name}.tip", finger.tip) for finger in file.fingers),
        *(("fabric.spheres", sphere.frame) for sphere in body),
        *(("touching_links", link) for pair in file.touching_links for link in pair),
    ]
    for key, frame in needed:
        if frame not in model.links:
            raise UrdfError(
                f"has no link {frame!r}, which `{key}` of the robot file names; add it"
            )


def _check_postures(robot: Robot) -> None:
    """Refuses postures and ends of synergies that exceed joint limits."""
    pregrasp = np.array(robot.postures["pregrasp"])
    flat = pregrasp.copy()
    flat[robot.hand] = robot.flat_hand
    named = {f"postures.{name}": np.array(each) for name, each in robot.postures.items()}
    named["flat_hand"] = flat
    for synergy in robot.palm_velocity.synergies:
        for value in synergy.range:
            moved = pregrasp.copy()
            moved[robot.joint_indices(list(synergy.joints))] += [
                value * angle for angle in synergy.joints.values()
            ]
            named[f"synergy {synergy.name} at {value:g}"] = moved
    for name, posture in named.items():
        outside = (posture < robot.lower - 1e-9) | (posture > robot.upper + 1e-9)
        if outside.any():
            joint = int(outside.argmax())
            raise ValueError(
                f"{name} has {robot.joint_names[joint]} at {posture[joint]:g} rad, "
                f"outside its limits {robot.lower[joint]:g} to {robot.upper[joint]:g}; correct "
                "one of them"
            )
