"""Settings of the actor and the critic."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.yaml_file import absolute_path

Width = Annotated[int, Field(gt=0, le=65_536)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class NetworkConfig:
    """Sizes and inputs of the two nets; the defaults are the laptop settings.

    Attributes:
        actor_groups: Observation groups that the actor sees; images and flat groups.
        critic_groups: Observation groups that the critic sees; may be privileged.
        encoder: Of images: `patch` for small ones (32x24), `conv` for larger ones;
            `stereo_small`, for CPUs, and `stereo_resnet`, a ResNet-18 with attention between the
            images, take stereo colour images only.
        patch_layers: Side of the patches and number of features of each layer of the `patch`
            encoder, the one that reads the pixels first.
        level_table: Depth images show what rises from the plane in which most of the table lies,
            fitted in each image, instead of from where the table should be: for cameras whose pose
            or depth is not exact.
        resnet_weights: File with weights of torchvision's resnet18 from which `stereo_resnet`
            begins; a relative path counts from the config file. None: random ones.
        attention_dropout: Share of attention weights that `stereo_resnet` drops in distillation.
        rgb_gain: Colours in [-0.5, 0.5] are multiplied by this. The laptop runs have 3; larger
            nets at a fixed learning rate of 5e-5 want 1 (Isaac Lab's camera tasks).
        fused_size: Width of the layer that joins image features and flat groups; a net without
            images has no such layer.
        memory: `lstm` gives the actor a memory, `none` makes it reactive.
        memory_size: Width of the actor's memory.
        critic_memory: As `memory`, for the critic.
        critic_memory_size: Width of the critic's memory.
        hidden: Hidden layers of the action head, ELU.
        critic_hidden: Hidden layers of the value head, ELU.
        auxiliary_group: Flat group that the actor learns to predict from what it sees (`object`:
            its position); its action head reads the prediction. None: no such head.
        auxiliary_hidden: Hidden layers of the auxiliary head, ELU.
        initial_std: Exploration noise at the start, in units of the action (range [-1, 1]).
        min_std: The noise is never smaller.
        max_std: The noise is never larger.
        observation_clip: Normalised flat observations are clipped to this many deviations.
    """

    actor_groups: tuple[str, ...] = ("proprio", "state")
    critic_groups: tuple[str, ...] = ("proprio", "critic")
    encoder: Literal["patch", "conv", "stereo_small", "stereo_resnet"] = "patch"
    patch_layers: Annotated[tuple[tuple[Width, Width], ...], Field(min_length=1)] = (
        (4, 32),
        (2, 64),
    )
    level_table: bool = False
    resnet_weights: str | None = None
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    rgb_gain: Positive = 3.0
    fused_size: Width = 128
    memory: Literal["none", "lstm"] = "none"
    memory_size: Width = 256
    critic_memory: Literal["none", "lstm"] = "none"
    critic_memory_size: Width = 256
    hidden: tuple[Width, ...] = (256, 128)
    critic_hidden: tuple[Width, ...] = (256, 128)
    auxiliary_group: str | None = None
    auxiliary_hidden: tuple[Width, ...] = ()
    initial_std: Positive = 0.6
    min_std: Positive = 0.08
    max_std: Positive = 1.2
    observation_clip: Positive = 8.0

    @field_validator("resnet_weights", mode="before")
    @classmethod
    def _find_weights(cls, path: Any) -> Any:
        return str(absolute_path(path)) if isinstance(path, str) else path

    def __post_init__(self) -> None:
        """Raises ValueError where two values contradict each other."""
        if not self.min_std <= self.initial_std <= self.max_std:
            raise ValueError(
                f"initial_std = {self.initial_std} is outside "
                f"[min_std, max_std] = [{self.min_std}, {self.max_std}]"
            )
        if not self.actor_groups or not self.critic_groups:
            raise ValueError("actor_groups and critic_groups each need at least one group")
