"""Parameters of camera drivers."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_deploy.drivers.joint_config import QosConfig, TopicName
from dexgrasp_sim.config import STRICT

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Pixels = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class MockCameraConfig:
    """The empty table with a moving bar, or a moving ramp of colour.

    Attributes:
        rate_hz: Exposures per second.
    """

    rate_hz: Positive = 30.0


@dataclass(frozen=True, config=STRICT)
class SimCameraConfig:
    """The training camera in the simulated world.

    Attributes:
        rate_hz: Most exposures per second.
        kind: What it gives; `policy`: what the policy of the bundle reads.
    """

    rate_hz: Positive = 60.0
    kind: Literal["policy", "depth", "stereo_rgb"] = "policy"


@dataclass(frozen=True, config=STRICT)
class PairingConfig:
    """Which left and right exposure belong together.

    Attributes:
        max_skew_s: Exposures of a pair differ by at most this; an eighth of the period of a 25 Hz
            camera.
        waiting: Exposures of a side that wait for their partner.
    """

    max_skew_s: Positive = 0.005
    waiting: Annotated[int, Field(ge=1)] = 4


@dataclass(frozen=True, config=STRICT)
class CalibrationConfig:
    """Calibration of cameras whose images are not rectified by their driver.

    Attributes:
        left: Camera info YAML of the camera, or of the left one of a pair; empty: the images are
            rectified, and the driver knows their intrinsics.
        right: The same for the right one.
        baseline_share: The baseline may differ from that of training by this share.
    """

    left: str = ""
    right: str = ""
    baseline_share: Positive = 0.05


@dataclass(frozen=True, config=STRICT)
class PlaceConfig:
    """Where the camera is, of every camera driver; `camera_node` itself reads these.

    Attributes:
        extrinsics: extrinsics.yaml of `dexgrasp calibrate hand-eye`; empty: the camera stands
            exactly where it stood in training, as that of the simulated twin does.
        max_age_days: Oldest calibration that is accepted.
        allow_outside: Runs also where the camera stands outside of what the policy was trained
            with, or was calibrated with another robot description.
    """

    extrinsics: str = ""
    max_age_days: Positive = 30.0
    allow_outside: bool = False


@dataclass(frozen=True, config=STRICT)
class CaptureConfig:
    """When a stream of images counts as lost, and what is done then.

    Attributes:
        connect_timeout_s: Longest wait for the first exposure.
        timeout_s: Without a good exposure for this long the device is opened anew.
        frozen_s: The same where images stay the same bit for bit this long; no sensor without
            noise does that.
        retries: How often in a row the device is opened anew before the driver gives up.
        retry_wait_s: Pause before it is opened again.
    """

    connect_timeout_s: Positive = 10.0
    timeout_s: Positive = 1.0
    frozen_s: Positive = 1.0
    retries: Count = 3
    retry_wait_s: Positive = 0.5


@dataclass(frozen=True, config=STRICT)
class RealSenseConfig:
    """An Intel RealSense of the D400 family in this process.

    Attributes:
        serial: Serial number; empty: the only camera there is.
        right_serial: Of the right camera, for `color_pair`.
        image: `depth`; `infrared_pair`, the two infrared images of one camera; `color_pair`, the
            colour images of two cameras.
        width: Pixels per row of the stream.
        height: Rows of the stream.
        rate_hz: Exposures per second.
        emitter: Whether the pattern projector is on: it helps depth and disturbs stereo pairs;
            `auto` is on for depth only.
        exposure_us: Exposure time; 0: automatic.
        file: A recording (`.db3`, `.bag`) instead of a camera.
        max_age_s: Exposures that are older, or ahead of now by more than a third of it, have a
            stamp of another clock.
        pairing: Of the images of a pair.
        calibration: For cameras with lens distortion in the stream.
        capture: When the stream counts as lost. The last try resets the camera's hardware.
    """

    serial: str = ""
    right_serial: str = ""
    image: Literal["depth", "infrared_pair", "color_pair"] = "depth"
    width: Pixels = 640
    height: Pixels = 480
    rate_hz: Positive = 30.0
    emitter: Literal["auto", "on", "off"] = "auto"
    exposure_us: Annotated[float, Field(ge=0)] = 0.0
    file: str = ""
    max_age_s: Positive = 0.3
    pairing: PairingConfig = PairingConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    capture: CaptureConfig = CaptureConfig()

    @model_validator(mode="after")
    def _check(self) -> "RealSenseConfig":
        if self.image == "color_pair" and not (self.serial and self.right_serial):
            raise ValueError("color_pair needs `serial` and `right_serial` of its two cameras")
        if self.file and self.image == "color_pair":
            raise ValueError("color_pair has two cameras, `file` is a recording of one")
        return self


@dataclass(frozen=True, config=STRICT)
class OpenCvConfig:
    """Cameras and files that OpenCV reads.

    Attributes:
        source: Device (`/dev/video0`), film, or folder of PNG images.
        right_source: The same of a right camera; empty: `source` shows both sides.
        image: `depth` (16 bit PNG, millimetres) or `stereo`: left and right side by side in one
            image, or from two sources.
        width: Pixels per row to ask of a device, both sides together; 0: what it has.
        height: Rows to ask of a device; 0: what it has.
        rate_hz: Exposures per second of a file, and to ask of a device.
        fourcc: Pixel format to ask of a device.
        exposure: Exposure to ask of a device, in its own unit; 0: automatic.
        right_upside_down: Whether the right camera is mounted the other way up.
        loop: Whether a file begins again at its end.
        pairing: Of the images of two sources.
        calibration: Of the cameras.
        capture: When a device counts as lost.
    """

    source: str = ""
    right_source: str = ""
    image: Literal["depth", "stereo"] = "stereo"
    width: Count = 0
    height: Count = 0
    rate_hz: Positive = 30.0
    fourcc: Annotated[str, Field(pattern="^.{4}$")] = "MJPG"
    exposure: float = 0.0
    right_upside_down: bool = False
    loop: bool = True
    pairing: PairingConfig = PairingConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    capture: CaptureConfig = CaptureConfig()

    @model_validator(mode="after")
    def _check(self) -> "OpenCvConfig":
        if not self.source:
            raise ValueError("`source` is empty; name a device, a film or a folder of images")
        if self.image == "depth" and self.right_source:
            raise ValueError("`right_source` is of stereo images only")
        return self


@dataclass(frozen=True, config=STRICT)
class ImageTopicConfig:
    """Topics of one camera.

    Attributes:
        image: sensor_msgs/msg/Image, or CompressedImage where the name ends in `/compressed` or
            `/compressedDepth`; empty: there is no such camera.
        info: sensor_msgs/msg/CameraInfo; empty: the calibration file says it.
    """

    image: TopicName = ""
    info: TopicName = ""


@dataclass(frozen=True, config=STRICT)
class ImageTopicsConfig:
    """A camera behind another ROS driver.

    Attributes:
        depth: Topics of a depth camera.
        left: Topics of the left camera of a pair.
        right: Topics of the right camera of a pair.
        qos: Of all topics.
        stamp: What says when an image was exposed: the message's `header`, or its `arrival` for a
            device whose clock is not that of this computer.
        right_upside_down: Whether the right camera is mounted the other way up.
        pairing: Of the images of a pair.
        calibration: Where the driver does not rectify.
        connect_timeout_s: Longest wait for the first exposure.
        timeout_s: Images older than this are reported as an error of the device.
    """

    depth: ImageTopicConfig = ImageTopicConfig()
    left: ImageTopicConfig = ImageTopicConfig()
    right: ImageTopicConfig = ImageTopicConfig()
    qos: QosConfig = QosConfig()
    stamp: Literal["header", "arrival"] = "header"
    right_upside_down: bool = False
    pairing: PairingConfig = PairingConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    connect_timeout_s: Positive = 5.0
    timeout_s: Positive = 0.5

    @model_validator(mode="after")
    def _check(self) -> "ImageTopicsConfig":
        given = [name for name in ("depth", "left", "right") if getattr(self, name).image]
        if given not in (["depth"], ["left", "right"]):
            raise ValueError(
                f"image topics are given for {', '.join(given) or 'no camera'}; give "
                "`depth.image`, or `left.image` and `right.image`"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class ReplayCameraConfig:
    """Recorded images.

    Attributes:
        file: `.npz` with `time_s` [T], `image` as the driver gave it (depth [T, H, W] uint16 mm
            or pairs [T, 2, H, W, 3] uint8 RGB), `focal_px` [2] and `center_px` [2].
        loop: Begin again at the end.
    """

    file: str = ""
    loop: bool = True
