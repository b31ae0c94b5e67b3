"""The topics that the drivers of a deployment use, from their parameters alone."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from dexgrasp_deploy.checks.deployment import Deployment
from dexgrasp_deploy.drivers.camera_config import ImageTopicConfig, ImageTopicsConfig
from dexgrasp_deploy.drivers.joint_config import JointTopicsConfig, QosConfig
from dexgrasp_deploy.drivers.registry import chosen_config

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


class TopicUse(NamedTuple):
    """One topic of a driver.

    Attributes:
        kind: "arm", "hand" or "camera".
        role: What goes over it; `command` is what we publish.
        topic: Full name.
        type: Of its messages; of a service the type of the service.
        reliability: Of our end.
        durability: Of our end.
    """

    kind: str
    role: Literal["state", "command", "image", "info"]
    topic: str
    type: str
    reliability: str
    durability: str


def topic_uses(deployment: Deployment) -> Iterator[TopicUse]:
    """The topics of all drivers on topics.

    Raises:
        ConfigError: A parameter is unknown or not allowed.
    """
    for kind in ("arm", "hand"):
        config = joint_config(deployment, kind)
        if config is not None:
            state, command = config.state, config.command
            yield _use(kind, "state", state.topic, state.type, state.qos)
            yield _use(kind, "command", command.topic, command.type, command.qos)
    config = camera_config(deployment)
    if config is not None:
        for side in (config.depth, config.left, config.right):
            yield from _of_camera(side, config.qos)


def joint_config(deployment: Deployment, kind: str) -> JointTopicsConfig | None:
    """Parameters of an arm or hand on topics; None where the driver is another one."""
    config = chosen_config(kind, deployment.drivers[kind], deployment.parameters[kind])
    return config if isinstance(config, JointTopicsConfig) else None


def camera_config(deployment: Deployment) -> ImageTopicsConfig | None:
    """The same of a camera."""
    config = chosen_config("camera", deployment.drivers["camera"], deployment.camera_drivers_own)
    return config if isinstance(config, ImageTopicsConfig) else None


def _of_camera(side: ImageTopicConfig, qos: QosConfig) -> Iterator[TopicUse]:
    if side.image:
        packed = side.image.rsplit("/", maxsplit=1)[-1] in ("compressed", "compressedDepth")
        yield _use("camera", "image", side.image, COMPRESSED if packed else IMAGE, qos)
    if side.info:
        yield _use("camera", "info", side.info, CAMERA_INFO, qos)


def _use(
    kind: str,
    role: Literal["state", "command", "image", "info"],
    topic: str,
    type_name: str,
    qos: QosConfig,
) -> TopicUse:
    name = topic if topic.startswith("/") or not topic else f"/{topic}"
    return TopicUse(kind, role, name, type_name, qos.reliability, qos.durability)
