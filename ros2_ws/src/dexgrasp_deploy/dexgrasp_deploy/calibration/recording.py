"""Records hand-eye samples from a robot that a person moves.

Nothing here commands the arm: it is guided by hand or from its pendant. A sample is taken by
itself whenever the arm stands still at a pose that is turned away from all that were taken before.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.calibration.board import BoardConfig, BoardDetector, Miss
from dexgrasp_deploy.calibration.hand_eye import Setup
from dexgrasp_deploy.calibration.quality import rotation_spread_deg
from dexgrasp_deploy.calibration.samples import (
    FORMAT,
    SAMPLES_FILE,
    SampleEntry,
    SampleFile,
    palm_pose,
    write_samples,
)
from dexgrasp_deploy.calibration.transforms import Matrix, distance
from dexgrasp_deploy.drivers.base import ArmDriver, CameraDriver, CameraSample, JointSample
from dexgrasp_sim.config import STRICT, ConfigError
from dexgrasp_sim.robot.robot import Robot

Positive = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True, config=STRICT)
class RecordingConfig:
    """When a sample is taken.

    Attributes:
        still_s: For so long the arm must not move before an image is taken.
        still_rad: Largest change of a joint that counts as standing still; encoders flicker.
        turned_deg: Smallest angle to every sample that was taken before.
        poll_s: Time between two looks at the drivers.
        silence_s: Longest time without joints or without images.
    """

    still_s: Positive = 0.5
    still_rad: Positive = 1e-3
    turned_deg: Positive = 5.0
    poll_s: Positive = 0.02
    silence_s: Positive = 5.0


DEFAULT = RecordingConfig()


@plain_dataclass(frozen=True)
class Taken:
    """What happened at a pose.

    Attributes:
        miss: Why the image shows no usable board; None when the sample was taken.
        count: Samples so far.
        spread_deg: [3] see `rotation_spread_deg`; zeros before the second sample.
    """

    miss: Miss | None
    count: int
    spread_deg: tuple[float, float, float]


class Recorder:
    """Takes samples and keeps `samples.json` complete, so that an interruption loses nothing."""

    def __init__(self, folder: Path, setup: Setup, robot: Robot, board: BoardConfig) -> None:
        """Makes the folder.

        Raises:
            ConfigError: It holds samples already, or cannot be made.
        """
        if (folder / SAMPLES_FILE).exists():
            raise ConfigError(f"--out {folder}: holds samples already; give another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {folder}: {error.strerror}; give another folder") from None
        self._folder, self._setup, self._robot = folder, setup, robot
        self._detector = BoardDetector(board)
        self._entries: list[SampleEntry] = []
        self._palms: list[Matrix] = []

    def angle_deg(self, joints: JointSample) -> float:
        """Smallest angle from the palm's orientation to those of the samples so far."""
        palm = palm_pose(self._robot, self._robot.palm, self._named(joints))
        return min((distance(palm, other)[1] for other in self._palms), default=np.inf)

    def add(self, joints: JointSample, image: CameraSample) -> Taken:
        """Takes a sample if its image shows the board.

        Raises:
            ConfigError: The camera gives depth, or the joints are not in their limits.
        """
        gray = gray_image(image)
        found = self._detector.find(gray)
        if isinstance(found, Miss):
            return self._taken(found)
        named = self._named(joints)
        self._palms.append(palm_pose(self._robot, self._robot.palm, named))
        name = f"{len(self._entries):03}.png"
        (self._folder / name).write_bytes(cv2.imencode(".png", gray)[1].tobytes())
        self._entries.append(SampleEntry(name, named))
        robot = str(self._robot.path)
        write_samples(self._folder, SampleFile(FORMAT, self._setup, tuple(self._entries), robot))
        return self._taken(None)

    def _named(self, joints: JointSample) -> dict[str, float]:
        return dict(zip(joints.names, joints.position.tolist(), strict=True))

    def _taken(self, miss: Miss | None) -> Taken:
        spread = (0.0, 0.0, 0.0)
        if len(self._palms) > 1:
            first, second, third = rotation_spread_deg(
                np.array([palm[:3, :3] for palm in self._palms])
            ).tolist()
            spread = (first, second, third)
        return Taken(miss, len(self._entries), spread)


def record(
    arm: ArmDriver,
    camera: CameraDriver,
    recorder: Recorder,
    clock: Callable[[], float],
    wait: Callable[[float], None],
    config: RecordingConfig = DEFAULT,
) -> Iterator[Taken]:
    """Yields once for each pose at which the arm stands still, without end.

    Args:
        arm: Configured and activated; only read.
        camera: The same; images are taken that were exposed while the arm stood still.
        recorder: Takes the samples.
        clock: Monotonic seconds, the clock of the drivers' stamps.
        wait: Waits for so many seconds.
        config: When a sample is taken.

    Raises:
        ConfigError: No joints or no images arrive, or a sample is wrong, see `Recorder.add`.
    """
    history: deque[JointSample] = deque()
    last_image_s = clock()
    waiting = True  # for an image of this pose
    while True:
        now_s = clock()
        joints = arm.read()
        if now_s - joints.stamp_s > config.silence_s:
            raise ConfigError(
                f"no joint positions for {config.silence_s:g} s; check the arm's driver"
            )
        image = camera.read()
        if image is not None:
            last_image_s = now_s
        elif now_s - last_image_s > config.silence_s:
            raise ConfigError(f"no images for {config.silence_s:g} s; check the camera's driver")
        if not history or joints.stamp_s > history[-1].stamp_s:
            if not _is_near(history, joints, config.still_rad):
                history.clear()
                waiting = True
            history.append(joints)
        since_s = history[0].stamp_s
        stood = history[-1].stamp_s - since_s >= config.still_s
        in_time = image is not None and since_s + config.still_s / 2 <= image.stamp_s
        if waiting and stood and in_time and image is not None:
            waiting = False
            if recorder.angle_deg(joints) >= config.turned_deg:
                yield recorder.add(joints, image)
        while len(history) > 1 and history[-1].stamp_s - history[1].stamp_s > config.still_s:
            del history[1]  # the first one says since when, and where
        wait(config.poll_s)


def gray_image(sample: CameraSample) -> NDArray[np.uint8]:
    """The (left) image [H, W] uint8 of an exposure.

    Raises:
        ConfigError: It is a depth image.
    """
    if sample.image.ndim != 4 or sample.image.dtype != np.uint8:
        raise ConfigError(
            "the camera's driver gives depth images, in which a printed board is not visible; "
            "configure it for colour or infrared"
        )
    return np.asarray(cv2.cvtColor(sample.image[0], cv2.COLOR_RGB2GRAY), np.uint8)


def _is_near(history: deque[JointSample], joints: JointSample, still_rad: float) -> bool:
    if not history:
        return True
    return bool(np.abs(joints.position - history[0].position).max() <= still_rad)
