"""Configuration of the grasp-and-lift task."""

import math
from typing import Annotated, Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT, to_dict
from dexgrasp_sim.control.action_decoder import ActionConfig
from dexgrasp_sim.physics.engine import PhysicsConfig
from dexgrasp_sim.tasks.grasp.latency import LatencyConfig
from dexgrasp_sim.tasks.grasp.object_sets import object_set, set_name
from dexgrasp_sim.tasks.grasp.objects import LAPTOP_OBJECTS, ObjectConfig
from dexgrasp_sim.tasks.grasp.observation_noise import ObservationNoiseConfig
from dexgrasp_sim.tasks.grasp.randomization import RandomizationConfig
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import ImageConfig

Vector3 = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class TableConfig:
    """The table as a box, base frame (DextrAH scene: top at z = 0.25 m)."""

    center_m: Vector3 = (-0.5725, 0.088, 0.235)
    size_m: tuple[Positive, Positive, Positive] = (0.725, 1.16, 0.03)

    @property
    def top_m(self) -> float:
        """Height of the table top."""
        return self.center_m[2] + self.size_m[2] / 2


@dataclass(frozen=True, config=STRICT)
class SpawnConfig:
    """Where an object starts: standing on the table, uniform in a rectangle, any yaw.

    Attributes:
        center_m: Centre of the rectangle in x and y, base frame.
        half_width_m: Half its extent in x and y.
        yaw_rad: Yaw is uniform in plus or minus this.
    """

    center_m: tuple[float, float] = (-0.55, 0.10)
    half_width_m: tuple[NonNegative, NonNegative] = (0.10, 0.10)
    yaw_rad: Annotated[float, Field(ge=0.0, le=math.pi)] = math.pi


@dataclass(frozen=True, config=STRICT)
class RewardConfig:
    """Weights of the reward terms; see `rewards.py` for each term's formula."""

    reach: float = 1.0
    lift: float = 5.0
    goal: float = 3.0
    scale: Positive = 0.1


@dataclass(frozen=True, config=STRICT)
class SuccessConfig:
    """When an episode counts as a success: lifted, held to the end and still in the hand.

    Attributes:
        height_m: Least height above the start height.
        hold_s: How long before the time-out the height must have been kept.
        reach_m: Largest distance of any fingertip or the grasp centre from the object.
    """

    height_m: Positive = 0.10
    hold_s: Positive = 0.5
    reach_m: Positive = 0.20

    def hold_steps(self, control_dt_s: float) -> int:
        """`hold_s` in control steps, at least one: a success was lifted at its end."""
        return max(1, round(self.hold_s / control_dt_s))


def _side_camera() -> CameraConfig:
    """Beside the table on the ring-finger side, where the hand does not hide the object."""
    return CameraConfig(
        width=32,
        height=24,
        fovy_deg=36.0,
        position_m=(-1.07, 0.40, 0.61),
        look_at_m=(-0.55, 0.10, 0.38),
        near_m=0.20,
        far_m=0.95,
    )


@dataclass(frozen=True, config=STRICT)
class GraspConfig:
    """The task. The defaults are the `laptop` preset's geometry at 15 Hz.

    Attributes:
        control_hz: Rate of the policy; a whole number of physics steps must fit a period.
        episode_s: Time-out.
        goal_height_m: Goal of the object centre above its start height, over the spawn centre.
        workspace_m: An episode ends when the object is further than this from the spawn centre
            in x or y, or falls below the table top.
        objects: The objects, or the name of a set: laptop, primitives, train or held_out; see
            `object_sets.py`. Environments get them in turn.
        stagger_starts: First episodes start at random times of their episode, so that
            environments do not end in step.
        camera: Depth camera, base frame; a mapping overrides the default one key by key.
        stereo_baseline_m: Distance of the right camera from the left one (`camera`).
        image: How the simulated images differ from ideal ones.
        difficulty: Where the schedules of `observation_noise`, `latency` and `randomization`
            stand, 0 (initial) to 1 (final), until the learner's curriculum says otherwise.
    """

    control_hz: Positive = 15.0
    episode_s: Positive = 4.5
    goal_height_m: Positive = 0.20
    workspace_m: Positive = 0.30
    stagger_starts: bool = True
    table: TableConfig = TableConfig()
    spawn: SpawnConfig = SpawnConfig()
    objects: tuple[ObjectConfig, ...] = LAPTOP_OBJECTS
    action: ActionConfig = ActionConfig()
    reward: RewardConfig = RewardConfig()
    success: SuccessConfig = SuccessConfig()
    physics: PhysicsConfig = PhysicsConfig()
    camera: CameraConfig = Field(default_factory=_side_camera)
    stereo_baseline_m: Positive = 0.06
    image: ImageConfig = ImageConfig()
    observation_noise: ObservationNoiseConfig = ObservationNoiseConfig()
    latency: LatencyConfig = LatencyConfig()
    randomization: RandomizationConfig = RandomizationConfig()
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.0

    @field_validator("objects", mode="before")
    @classmethod
    def _look_up_set(cls, value: Any) -> Any:
        return object_set(value) if isinstance(value, str) else value

    @field_serializer("objects", mode="wrap")
    def _write_set_name(
        self, objects: tuple[ObjectConfig, ...], write: SerializerFunctionWrapHandler
    ) -> Any:
        return set_name(objects) or write(objects)

    @field_validator("camera", mode="before")
    @classmethod
    def _lay_over_default_camera(cls, value: Any) -> Any:
        return {**to_dict(_side_camera()), **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> "GraspConfig":
        steps = 1.0 / (self.control_hz * self.physics.timestep_s)
        if abs(steps - round(steps)) > 1e-6 or round(steps) < 1:
            raise ValueError(
                f"control_hz {self.control_hz} is no whole number of physics steps of "
                f"{self.physics.timestep_s:.6f} s ({steps:.3f}); change `physics.timestep_s`"
            )
        if not self.objects or len({item.name for item in self.objects}) != len(self.objects):
            raise ValueError("`objects` must hold at least one object, names must be unique")
        if self.success.hold_steps(self.control_dt_s) > self.episode_steps:
            raise ValueError(
                f"episode_s {self.episode_s} is shorter than success.hold_s "
                f"{self.success.hold_s} or a step; raise `episode_s`"
            )
        return self

    @property
    def measures_exactly(self) -> bool:
        """Whether the policy's measurements are always true and of now."""
        return self.observation_noise.is_off and not self.latency.delays_observations

    @property
    def control_dt_s(self) -> float:
        """Control period."""
        return 1.0 / self.control_hz

    @property
    def physics_steps(self) -> int:
        """Physics steps in a control period."""
        return round(self.control_dt_s / self.physics.timestep_s)

    @property
    def episode_steps(self) -> int:
        """Control steps until the time-out."""
        return round(self.episode_s * self.control_hz)
