"""Configuration of the grasp-and-lift task."""

import math
from typing import Annotated, Any

import numpy as np
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT, to_dict
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig
from dexgrasp_sim.objects.config import LAPTOP_OBJECTS, ObjectConfig
from dexgrasp_sim.objects.sets import object_set, set_name
from dexgrasp_sim.physics.scene import PhysicsConfig, Scene, TableConfig
from dexgrasp_sim.robot.robot import DEFAULT_ROBOT, Robot, load_robot
from dexgrasp_sim.tasks.grasp.episodes import SuccessConfig
from dexgrasp_sim.tasks.grasp.latency import LatencyConfig
from dexgrasp_sim.tasks.grasp.observation_noise import ObservationNoiseConfig
from dexgrasp_sim.tasks.grasp.randomization import RandomizationConfig
from dexgrasp_sim.tasks.grasp.rewards import RewardConfig
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import ImageConfig
from dexgrasp_sim.yaml_file import absolute_path

_LEAST_IN_VIEW = 0.5
_MOST_PHYSICS_STEPS = 1000
"""In a control period; more is a mistake in a rate, and a step would take seconds."""

Vector3 = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class SpawnConfig:
    """Where an object starts: uniform in a rectangle, any yaw.

    Attributes:
        center_m: Centre of the rectangle in x and y, base frame.
        half_width_m: Half its extent in x and y.
        yaw_rad: Yaw is uniform in plus or minus this.
        height_m: Height from which the object's centre drops, base frame. None: it stands on the
            table, or, if it may be tilted, starts just above it.
    """

    center_m: tuple[float, float] = (-0.55, 0.10)
    half_width_m: tuple[NonNegative, NonNegative] = (0.10, 0.10)
    yaw_rad: Annotated[float, Field(ge=0.0, le=math.pi)] = math.pi
    height_m: Positive | None = None


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
        robot: One of `robot_names`, or the path of a `robot.yaml`; a relative one counts from
            the file that says so, one on the command line from the working folder.
        control_hz: Rate of the policy; a whole number of physics steps must fit a period.
        episode_s: Time-out.
        goal_m: Goal of the object centre, base frame; (-0.5, 0, 0.75) in the paper. None:
            `goal_height_m` above the spawn centre.
        goal_height_m: Height of the goal above the object's start height, where `goal_m` is None.
        workspace_m: An episode ends when the object is further than this from the spawn centre
            in x or y, or falls below the table top.
        workspace_box_m: Lower and upper corner of a box, base frame; an episode ends when the
            object's centre leaves it. Replaces `workspace_m`. A floor some centimetres below the
            table top spares small objects that drop on it fast and sink in for a step.
        objects: The objects, or the name of a set: laptop, primitives, train or held_out; see
            `objects/sets.py`. Environment i has object i modulo their number.
        table: The table on which objects start.
        spawn: Where an object starts.
        reward: Weights and shapes of the reward's terms.
        success: When an episode counts as a success.
        physics: The physics engine and its settings.
        observation_noise: Errors of measured joints and object poses.
        latency: Delays of actions and observations.
        randomization: What differs between episodes.
        action: What an action means: `kind: velocity` (the default) or `kind: fabric`.
        stagger_starts: The first episode of each environment starts at a random step, so that
            episodes do not all end at the same time.
        camera: Depth camera, base frame; a mapping overrides the default one key by key.
        stereo_baseline_m: Distance of the right camera from the left one (`camera`).
        image: How the simulated images differ from ideal ones.
        difficulty: 0 (initial) to 1 (final), for the schedules of `observation_noise`, `latency`,
            `randomization`, `reward` and a fabric's `action`, until the learner's curriculum sets
            another one.
    """

    robot: str = DEFAULT_ROBOT
    control_hz: Positive = 15.0
    episode_s: Positive = 4.5
    goal_m: Vector3 | None = None
    goal_height_m: Positive = 0.20
    workspace_m: Positive = 0.30
    workspace_box_m: tuple[Vector3, Vector3] | None = None
    stagger_starts: bool = True
    table: TableConfig = TableConfig()
    spawn: SpawnConfig = SpawnConfig()
    objects: tuple[ObjectConfig, ...] = LAPTOP_OBJECTS
    action: ActionConfig | FabricConfig = Field(default=ActionConfig(), discriminator="kind")
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

    @field_validator("robot", mode="before")
    @classmethod
    def _find_robot(cls, name: Any) -> Any:
        # workers may run in another folder
        is_file = isinstance(name, str) and name.endswith(".yaml")
        return str(load_robot(absolute_path(name)).path) if is_file else name

    @field_validator("objects", mode="before")
    @classmethod
    def _look_up_set(cls, value: Any) -> Any:
        return object_set(value) if isinstance(value, str) else value

    @field_serializer("objects", mode="wrap")
    def _write_set_name(
        self, objects: tuple[ObjectConfig, ...], write: SerializerFunctionWrapHandler
    ) -> Any:
        return set_name(objects) or write(objects)

    @field_validator("action", mode="before")
    @classmethod
    def _name_default_action_space(cls, value: Any) -> Any:
        return {"kind": "velocity", **value} if isinstance(value, dict) else value

    @field_validator("camera", mode="before")
    @classmethod
    def _lay_over_default_camera(cls, value: Any) -> Any:
        return {**to_dict(_side_camera()), **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> "GraspConfig":
        steps = 1.0 / (self.control_hz * self.physics.timestep_s)
        if abs(steps - round(steps)) > 1e-6 or not 1 <= round(steps) <= _MOST_PHYSICS_STEPS:
            raise ValueError(
                f"control_hz {self.control_hz} is no whole number from 1 to {_MOST_PHYSICS_STEPS} "
                f"of physics steps of {self.physics.timestep_s:.6f} s ({steps:.3f}); change "
                "`physics.timestep_s`"
            )
        if not self.objects or len({item.name for item in self.objects}) != len(self.objects):
            raise ValueError("`objects` must hold at least one object, names must be unique")
        if self.success.hold_steps(self.control_dt_s) > self.episode_steps:
            raise ValueError(
                f"episode_s {self.episode_s} is shorter than success.hold_s "
                f"{self.success.hold_s} or a step; raise `episode_s`"
            )
        self._check_workspace()
        self._check_goal()
        self._check_action()
        return self

    def _check_workspace(self) -> None:
        """Objects must start inside the workspace or on its edge."""
        lower, upper = self.workspace
        spawn = zip(self.spawn.center_m, self.spawn.half_width_m, strict=True)
        for axis, (center, half) in enumerate(spawn):
            if center - half < lower[axis] - 1e-6 or center + half > upper[axis] + 1e-6:
                raise ValueError(
                    f"objects start up to {half:g} m from {center:g} along axis {axis}, outside "
                    f"the workspace from {lower[axis]:g} to {upper[axis]:g} m; narrow `spawn` or "
                    "widen `workspace_m` or `workspace_box_m`"
                )

    def _check_goal(self) -> None:
        lower, upper = self.workspace
        lower = (*lower[:2], max(lower[2], self.table.top_m))
        goal = self.goal_m
        if goal and not all(lo < x < hi for lo, x, hi in zip(lower, goal, upper)):
            raise ValueError(
                f"`goal_m` {goal} is not above the table and in the workspace from {lower} to "
                f"{upper} m; move it, or widen `workspace_m` or `workspace_box_m`"
            )

    def check_view(self) -> None:
        """ValueError if the camera hardly sees the objects; matters where images are used."""
        share = self.spawn_in_view
        if share < _LEAST_IN_VIEW:
            camera = self.camera
            raise ValueError(
                f"`task.camera` sees {share:.0%} of the spawn area on the table between near_m "
                f"{camera.near_m:g} and far_m {camera.far_m:g}, at least {_LEAST_IN_VIEW:.0%} is "
                "needed; move or turn it, or widen `fovy_deg`, `near_m` and `far_m`"
            )

    def _check_action(self) -> None:
        """The action space must fit the robot."""
        robot = self.load_robot()
        try:
            self.action.check(robot)
        except ValueError as error:
            raise ValueError(f"`action`: {error}") from None

    def load_robot(self) -> Robot:
        """The robot that `robot` names."""
        return load_robot(self.robot)

    @property
    def action_names(self) -> tuple[str, ...]:
        """What each dimension of an action commands."""
        return self.action.action_names(self.load_robot())

    @property
    def table_obstacle(self) -> Obstacle:
        """The table as an obstacle for the fabric."""
        return Obstacle("table", self.table.center_m, self.table.size_m)

    def scene(self, num_envs: int, env_offset: int = 0) -> Scene:
        """What the physics simulates.

        Args:
            num_envs: Environments.
            env_offset: Global index of the first; environment i holds object number
                (env_offset + i) modulo the number of objects.
        """
        return Scene(
            robot=self.load_robot(),
            table=self.table,
            objects=self.objects,
            object_of_env=tuple(
                (env_offset + index) % len(self.objects) for index in range(num_envs)
            ),
            physics=self.physics,
            substeps=self.physics_steps,
            camera=self.camera,
            stereo_baseline_m=self.stereo_baseline_m,
            look=self.image.look,
        )

    @property
    def workspace(self) -> tuple[Vector3, Vector3]:
        """Lower and upper corner, base frame, of where an object's centre may be."""
        if self.workspace_box_m is not None:
            return self.workspace_box_m
        (x, y), size = self.spawn.center_m, self.workspace_m
        return (x - size, y - size, self.table.top_m), (x + size, y + size, math.inf)

    @property
    def spawn_in_view(self) -> float:
        """Fraction of the spawn area, at table height, that the camera sees within its range."""
        steps = np.linspace(-1.0, 1.0, 9)
        points = np.full((9, 9, 3), self.table.top_m)  # a grid over the spawn area
        points[..., 0] = self.spawn.center_m[0] + self.spawn.half_width_m[0] * steps[:, None]
        points[..., 1] = self.spawn.center_m[1] + self.spawn.half_width_m[1] * steps
        return float(self.camera.sees(points).mean())

    @property
    def measures_exactly(self) -> bool:
        """Whether measurements have neither noise nor delay."""
        return self.observation_noise.is_off and not self.latency.delays_observations

    def goal_at(self, start_height_m: float) -> Vector3:
        """The goal, base frame, of an object whose centre rests at this height."""
        return self.goal_m or (*self.spawn.center_m, start_height_m + self.goal_height_m)

    @property
    def control_dt_s(self) -> float:
        """Control period."""
        return 1.0 / self.control_hz

    @property
    def command_dt_s(self) -> float:
        """From one target for the joints to the next; a control period holds one or several."""
        return self.control_dt_s / self.action.steps(self.control_dt_s)

    @property
    def physics_steps(self) -> int:
        """Physics steps in a control period."""
        return round(self.control_dt_s / self.physics.timestep_s)

    @property
    def episode_steps(self) -> int:
        """Control steps until the time-out."""
        return round(self.episode_s * self.control_hz)
