"""Reads the steps of a policy from a recording, without ROS."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError

from dexgrasp_deploy.control.sensing.image_message import from_camera_info, from_image
from dexgrasp_deploy.control.sensing.streams import Measurement
from dexgrasp_deploy.drivers.base import CameraSample, Intrinsics
from dexgrasp_sim.config import ConfigError

Vector = NDArray[np.float64]
_STREAMS = {"depth": ("depth",), "stereo_rgb": ("left", "right")}
_PAIR_SKEW_NS = 5_000_000
"""As in the topic port."""


@dataclass(frozen=True)
class RecordedStep:
    """A step as it was recorded.

    Attributes:
        number: 1 for the first step of an episode.
        stamp_ns: Of its beginning.
        measured: The joints that it saw.
        image_ns: Stamp of the image that it saw; None: it saw none.
        action: [A].
        decoded: [J] rad, the joint targets of the action.
        safe: [J] rad, what the safety filter made of them.
    """

    number: int
    stamp_ns: int
    measured: Measurement
    image_ns: int | None
    action: NDArray[np.float32]
    decoded: Vector
    safe: Vector


@dataclass
class RecordedEpisode:
    """Steps in a row.

    Attributes:
        start: [J] rad, the joint targets from which the decoder started; None: not recorded.
        steps: The steps.
    """

    start: Vector | None
    steps: list[RecordedStep] = field(default_factory=list)


@dataclass
class Recording:
    """The policy's part of a recording.

    Attributes:
        path: The folder.
        bundle_id: Of the policy that acted; "" where no step was recorded.
        episodes: What it did.
        incomplete: Steps of which a part is not in the recording; they are left out.
    """

    path: Path
    bundle_id: str = ""
    episodes: list[RecordedEpisode] = field(default_factory=list)
    incomplete: int = 0


@contextmanager
def _opened(path: Path) -> Iterator[AnyReader]:
    try:
        with AnyReader([path]) as reader:
            yield reader
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no complete recording (a folder with metadata.yaml and one MCAP file); "
            "`mcap recover` mends a file that was cut off"
        ) from None
    except AnyReaderError as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None


def _messages(reader: AnyReader, *ends: str) -> Iterator[tuple[str, Any]]:
    """Messages of the topics with these last parts, in the order of their arrival."""
    chosen = [c for c in reader.connections if any(c.topic.endswith(f"/{end}") for end in ends)]
    if not chosen:
        return
    for connection, _, data in reader.messages(connections=chosen):
        end = next(end for end in ends if connection.topic.endswith(f"/{end}"))
        yield end, reader.deserialize(data, connection.msgtype)


def read_recording(path: Path) -> Recording:
    """The steps in a recording.

    Raises:
        ConfigError: It cannot be read.
    """
    recording = Recording(path)
    parts: dict[str, dict[int, Any]] = defaultdict(dict)
    starts: list[tuple[int, Vector]] = []
    names = ("step", "measured", "decoded", "safe", "image_time")
    with _opened(path) as reader:
        for end, message in _messages(reader, *(f"policy/{name}" for name in (*names, "start"))):
            name, stamp_ns = end.removeprefix("policy/"), nanoseconds(message.header.stamp)
            if name == "start":
                starts.append((stamp_ns, np.array(message.position)))
            else:
                parts[name][stamp_ns] = message
    for stamp_ns, status in sorted(parts["step"].items()):
        recording.bundle_id = status.bundle_id
        found = [parts[name].get(stamp_ns) for name in ("measured", "decoded", "safe")]
        if any(each is None for each in found):
            recording.incomplete += 1
            continue
        step = _step(stamp_ns, status, found, parts["image_time"].get(stamp_ns))
        _append(recording.episodes, step, starts)
    return recording


def _step(stamp_ns: int, status: Any, found: list[Any], image: Any) -> RecordedStep:
    measured, decoded, safe = found
    return RecordedStep(
        int(status.step),
        stamp_ns,
        Measurement(
            np.array(measured.position),
            np.array(measured.velocity),
            np.array(measured.effort),
            stamp_ns * 1e-9,
        ),
        None if image is None else nanoseconds(image.time_ref),
        np.array(status.action, np.float32),
        np.array(decoded.position),
        np.array(safe.position),
    )


def _append(
    episodes: list[RecordedEpisode], step: RecordedStep, starts: list[tuple[int, Vector]]
) -> None:
    """Adds a step to the last episode, or to a new one where its number does not go on."""
    last = episodes[-1].steps[-1] if episodes else None
    if last is None or step.number <= last.number:
        before = [start for start_ns, start in starts if start_ns <= step.stamp_ns]
        usable = before and step.number == 1
        episodes.append(RecordedEpisode(before[-1] if usable else None))
    episodes[-1].steps.append(step)


def read_images(
    path: Path, group: str, stamps_ns: set[int], convert: Callable[[CameraSample], NDArray[Any]]
) -> dict[int, NDArray[Any]]:
    """The images of some stamps, converted one by one: only the results are kept.

    Args:
        path: The recording.
        group: `depth` or `stereo_rgb`.
        stamps_ns: Of the depth images, or of the left ones.
        convert: What to keep of an exposure; its `stamp_s` is that of the message.

    Raises:
        ConfigError: It cannot be read.
    """
    found: dict[int, NDArray[Any]] = {}
    lens: Intrinsics | None = None
    newest: dict[str, tuple[int, NDArray[Any]]] = {}
    first, *others = _STREAMS[group]
    ends = {f"camera/{stream}/image_raw": stream for stream in (first, *others)}
    info = f"camera/{first}/camera_info"
    with _opened(path) as reader:
        lens = next((from_camera_info(each) for _, each in _messages(reader, info)), None)
        place = next((_pose(each.pose) for _, each in _messages(reader, "camera/pose")), None)
        for end, message in _messages(reader, *ends):
            newest[ends[end]] = nanoseconds(message.header.stamp), from_image(message)
            exposures = [newest.get(stream) for stream in (first, *others)]
            stamps = [each[0] for each in exposures if each is not None]
            wanted = len(stamps) == len(exposures) and stamps[0] in stamps_ns
            if wanted and max(stamps) - min(stamps) < _PAIR_SKEW_NS:
                images = [each[1] for each in exposures if each is not None]
                image = images[0] if len(images) == 1 else np.stack(images)
                found[stamps[0]] = convert(CameraSample(image, stamps[0] * 1e-9, lens, pose=place))
    return found


def _pose(message: Any) -> Vector:
    """[7] xyz m and quaternion wxyz of a geometry_msgs/Pose."""
    place, turn = message.position, message.orientation
    return np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])


def read_latencies(path: Path) -> str:
    """The last latency report in a recording, JSON; "" where there is none.

    Raises:
        ConfigError: It cannot be read.
    """
    with _opened(path) as reader:
        texts = [message.data for _, message in _messages(reader, "policy/latency")]
    return texts[-1] if texts else ""


def nanoseconds(stamp: Any) -> int:
    """A builtin_interfaces/Time."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
