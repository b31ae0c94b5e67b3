"""Judges every stream of measurements before anything is done with it: one monitor for each.

A stream is a sequence of samples, each with the time at which it was taken, the time at which it
arrived here, and data. Both times are judged: a device whose clock runs ahead must not make old
data look fresh, and data that waited in a queue must not look fresh because it just arrived.
"""

from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.sensing.robot_in_view import RobotInView
from dexgrasp_deploy.drivers.base import CameraSample, JointSample
from dexgrasp_sim.config import STRICT
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.vision.camera import CameraConfig

Positive = Annotated[float, Field(gt=0)]
Vector = NDArray[np.float64]

_FULL_TURN_RAD = 2 * np.pi
"""No joint of an arm or a hand measures more than a turn; a number above it is in degrees."""


@dataclass(frozen=True, config=STRICT)
class FreshnessConfig:
    """Which measurements may be acted on.

    Attributes:
        max_joint_age_s: Largest age of joint measurements, by stamp and by arrival.
        max_image_age_s: The same for images.
        max_ahead_s: A stamp may lie this far in the future: clocks of two computers differ.
        frozen_s: Data that stay the same bit for bit this long, while they should change, are
            frozen: stamps of the driver go on, but the device is dead.
        arm_travel_rad: Measured arm joints should change when the arm's command does by this.
        image_travel_px: Images should change when what they show of the hand moves this far, in
            pixels of the training camera.
        hand_travel_rad: Measured hand joints should change when the hand's command does by this.
        max_pair_skew_s: Left and right image belong together if their stamps differ by less; 5 ms
            is an eighth of the period of a 25 Hz camera.
        max_echo_s: A driver that echoes commands must do so within this.
        max_beyond_limit_rad: A joint measured further than this outside its limits is an error of
            unit, zero or driver, and not a posture.
    """

    max_joint_age_s: Positive = 0.2
    max_image_age_s: Positive = 0.3
    max_ahead_s: Positive = 0.05
    frozen_s: Positive = 0.5
    arm_travel_rad: Positive = 0.1
    hand_travel_rad: Positive = 0.3
    image_travel_px: Positive = 2.0
    max_pair_skew_s: Positive = 0.005
    max_echo_s: Positive = 0.3
    max_beyond_limit_rad: Positive = 0.1


class Sample(Protocol):
    """What all samples have."""

    @property
    def stamp_s(self) -> float:
        """Monotonic time at which it was taken."""
        ...

    @property
    def received_s(self) -> float:
        """Monotonic time at which it arrived."""
        ...


def judge_age(
    name: str, sample: Sample, now_s: float, max_age_s: float, max_ahead_s: float, stale: Reason
) -> None:
    """Judges the age of a sample by its stamp and by its arrival.

    Args:
        name: Of the stream, for the message.
        sample: The newest sample.
        now_s: Monotonic time.
        max_age_s: Largest age.
        max_ahead_s: Largest time by which the stamp may lie in the future.
        stale: Reason for one that is too old.

    Raises:
        UnfitInput: It is too old, or its stamp lies in the future or is not a number.
    """
    waited_s = now_s - sample.received_s
    if not waited_s <= max_age_s:
        raise UnfitInput(
            stale, f"{name}: last arrival {waited_s:.3f} s ago, allowed {max_age_s} s"
        )
    age_s = now_s - sample.stamp_s
    if not age_s >= -max_ahead_s:
        raise UnfitInput(
            Reason.STAMP_AHEAD,
            f"{name}: stamp {-age_s:.3f} s ahead of now, allowed {max_ahead_s} s; synchronise the "
            "clocks of the computers",
        )
    if age_s > max_age_s:
        raise UnfitInput(stale, f"{name}: {age_s:.3f} s old, allowed {max_age_s} s")


@plain_dataclass(frozen=True)
class Measurement:
    """All joints at about one time, in the robot's joint order.

    Attributes:
        position: [J] rad.
        velocity: [J] rad/s.
        effort: [J] N m, NaN where it is not measured.
        stamp_s: Monotonic time of the oldest sample in it.
    """

    position: Vector
    velocity: Vector
    effort: Vector
    stamp_s: float


class JointMonitor:
    """Puts the samples of all joint streams together and judges them."""

    def __init__(self, robot: Robot, config: FreshnessConfig) -> None:
        self._robot, self._config = robot, config
        self._parts = {
            "arm": _Frozen("arm", robot.arm, config.arm_travel_rad, config.frozen_s),
            "hand": _Frozen("hand", robot.hand, config.hand_travel_rad, config.frozen_s),
        }
        self._command: Vector | None = None

    def commanded(self, position: Vector | None) -> None:
        """Tells what was sent last, [J] rad; None: nothing is sent any more."""
        self._command = position

    def judge(self, samples: Sequence[JointSample], now_s: float) -> Measurement:
        """The measured joints.

        Args:
            samples: The newest sample of each stream; together they must have every joint.
            now_s: Monotonic time.

        Raises:
            UnfitInput: None arrived, a joint is missing, too old, stamped in the future, not
                finite, far outside its limits or frozen; the message names stream and joint.
        """
        if not samples:
            raise UnfitInput(Reason.STALE_JOINTS, "joints: none arrived")
        names = self._robot.joint_names
        place = self._place(samples)
        used = [sample for sample in samples if any(s is sample for s, _ in place)]
        config = self._config
        for sample in used:
            judge_age(
                _stream_name(sample, self._robot),
                sample,
                now_s,
                config.max_joint_age_s,
                config.max_ahead_s,
                Reason.STALE_JOINTS,
            )
        measured = Measurement(
            np.array([sample.position[column] for sample, column in place], dtype=np.float64),
            np.array([sample.velocity[column] for sample, column in place], dtype=np.float64),
            np.array([_effort(sample, column) for sample, column in place]),
            min(sample.stamp_s for sample in used),
        )
        _check_finite(names, "position", measured.position)
        _check_finite(names, "velocity", measured.velocity)
        self._check_limits(measured.position)
        for part in self._parts.values():
            part.judge(measured, self._command)
        return measured

    def _place(self, samples: Sequence[JointSample]) -> list[tuple[JointSample, int]]:
        """Of each joint, the newest sample that has it, and its column there."""
        found: dict[str, tuple[JointSample, int]] = {}
        for sample in sorted(samples, key=lambda each: each.received_s):
            if not sample.consistent:
                raise UnfitInput(
                    Reason.BAD_MEASUREMENT,
                    f"{_stream_name(sample, self._robot)}: {len(sample.names)} names, "
                    f"{len(sample.position)} positions and {len(sample.velocity)} velocities",
                )
            found |= {name: (sample, column) for column, name in enumerate(sample.names)}
        missing = [name for name in self._robot.joint_names if name not in found]
        if missing:
            known = sorted(name for name in found if name not in self._robot.joint_names)
            others = f"; measured are also {', '.join(known)}" if known else ""
            message = f"joints: {', '.join(missing)} not measured{others}"
            raise UnfitInput(Reason.BAD_MEASUREMENT, message)
        return [found[name] for name in self._robot.joint_names]

    def _check_limits(self, position: Vector) -> None:
        lower, upper = self._robot.lower, self._robot.upper
        beyond = np.maximum(lower - position, position - upper)
        worst = int(beyond.argmax())
        if beyond[worst] <= self._config.max_beyond_limit_rad:
            return
        value = position[worst]
        hint = "; is it in degrees?" if abs(value) > _FULL_TURN_RAD else "; check zero and sign"
        raise UnfitInput(
            Reason.OUT_OF_LIMITS,
            f"{self._robot.joint_names[worst]} measures {value:.4g} rad, its limits are "
            f"{lower[worst]:.4g} to {upper[worst]:.4g}{hint}",
        )


class _Frozen:
    """Notices that the joints of a device stay the same bit for bit while their command moves."""

    def __init__(self, name: str, joints: slice, travel_rad: float, frozen_s: float) -> None:
        self._name, self._joints = name, joints
        self._travel_rad, self._frozen_s = travel_rad, frozen_s
        self._seen: NDArray[np.float64] = np.zeros(0)
        self._since_s = 0.0
        self._reference: Vector | None = None

    def judge(self, measured: Measurement, command: Vector | None) -> None:
        """Raises UnfitInput where the device is frozen."""
        seen = np.stack((measured.position[self._joints], measured.velocity[self._joints]))
        if command is None or self._reference is None or not np.array_equal(seen, self._seen):
            self._seen, self._since_s, self._reference = seen, measured.stamp_s, command
            return
        travel = np.abs(command - self._reference)[self._joints].max()
        frozen_s = measured.stamp_s - self._since_s
        if frozen_s > self._frozen_s and travel > self._travel_rad:
            raise UnfitInput(
                Reason.FROZEN,
                f"{self._name}: joints unchanged for {frozen_s:.2f} s of new stamps while their "
                f"command moved {travel:.2f} rad; the driver is alive, the device is not",
            )


class ImageMonitor:
    """Judges the age of images, and notices a camera that repeats one."""

    def __init__(self, robot: Robot, config: FreshnessConfig, camera: CameraConfig) -> None:
        """Args:
        robot: The robot.
        config: What is allowed.
        camera: The training camera.
        """
        self._config, self._view = config, RobotInView(robot, camera)
        self._image: NDArray[Any] = np.zeros(0)
        self._stamp_s = -np.inf
        self._since_s = 0.0
        self._reference: Vector | None = None

    def reset(self) -> None:
        """Forgets the images of another episode."""
        self._image, self._reference = np.zeros(0), None

    def judge(self, sample: CameraSample | None, position: Vector, now_s: float) -> CameraSample:
        """Returns the sample.

        Args:
            sample: The newest exposure.
            position: [J] rad, measured: an image must change when the hand moves in it.
            now_s: Monotonic time.

        Raises:
            UnfitInput: None arrived, it is too old or stamped in the future, or frozen.
        """
        if sample is None:
            raise UnfitInput(Reason.STALE_IMAGE, "image: none arrived")
        config = self._config
        judge_age(
            "image",
            sample,
            now_s,
            config.max_image_age_s,
            config.max_ahead_s,
            Reason.STALE_IMAGE,
        )
        if sample.stamp_s != self._stamp_s:
            self._stamp_s = sample.stamp_s
            self._watch(sample, position)
        return sample

    def _watch(self, sample: CameraSample, position: Vector) -> None:
        if self._reference is None or not np.array_equal(sample.image, self._image):
            self._image, self._reference = sample.image, position.copy()
            self._since_s = sample.stamp_s
            return
        frozen_s = sample.stamp_s - self._since_s
        if frozen_s <= self._config.frozen_s:
            return
        moved_px = self._view.moved_px(self._reference, position)
        if moved_px > self._config.image_travel_px:
            raise UnfitInput(
                Reason.FROZEN,
                f"image: unchanged for {frozen_s:.2f} s of new stamps while the hand moved "
                f"{moved_px:.1f} pixels in it; the camera repeats one",
            )


def _stream_name(sample: JointSample, robot: Robot) -> str:
    own = set(sample.names)
    if own >= set(robot.joint_names):
        return "joints"
    parts = {"arm": robot.arm_joints, "hand": robot.hand_joints}
    found = [name for name, joints in parts.items() if own & set(joints)]
    return " and ".join(found) or f"joints {', '.join(sample.names)}"


def _effort(sample: JointSample, column: int) -> float:
    return float("nan") if sample.effort is None else float(sample.effort[column])


def _check_finite(names: Sequence[str], what: str, values: Vector) -> None:
    bad = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]
    if bad:
        raise UnfitInput(
            Reason.BAD_MEASUREMENT, f"joints: {what} of {', '.join(bad)} is not finite"
        )
