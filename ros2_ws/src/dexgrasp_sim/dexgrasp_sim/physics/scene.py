"""What a physics engine simulates and renders; independent of the task."""

from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.physics.backends import BACKENDS
from dexgrasp_sim.robot.robot import Robot
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.image_config import LookConfig

Vector3 = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]

GROUND_RGBA = (0.36, 0.40, 0.45, 1.0)
TABLE_RGBA = (0.62, 0.47, 0.33, 1.0)
_START_HEIGHT_M = 0.1


@dataclass(frozen=True, config=STRICT)
class TableConfig:
    """The table as a box, base frame (DextrAH scene: top at z = 0.25 m).

    Attributes:
        center_m: Centre of the box.
        size_m: Full edge lengths along x, y and z.
    """

    center_m: Vector3 = (-0.5725, 0.088, 0.235)
    size_m: tuple[Positive, Positive, Positive] = (0.725, 1.16, 0.03)

    @property
    def top_m(self) -> float:
        """Height of the table top."""
        return self.center_m[2] + self.size_m[2] / 2


def _known(backend: str) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"there is no such backend; give one of {', '.join(BACKENDS)}")
    return backend


@dataclass(frozen=True, config=STRICT)
class MujocoConfig:
    """Settings of MuJoCo.

    An elliptic friction cone with impratio 10 holds round objects that a pyramidal cone drops;
    fewer than 20 line-search iterations make the elliptic solver throw the object.

    Attributes:
        integrator: `discrete` is stable up to 1/60 s and about a third faster; `implicitfast` at
            1/120 s is the reference.
        impratio: Ratio of frictional to normal constraint impedance.
        iterations: Largest number of iterations of the solver in a step.
        line_search_iterations: Largest number of iterations of the solver's line search.
    """

    integrator: Literal["implicitfast", "discrete"] = "implicitfast"
    impratio: Annotated[float, Field(ge=1.0)] = 10.0
    iterations: Annotated[int, Field(ge=10)] = 20
    line_search_iterations: Annotated[int, Field(ge=20)] = 20


@dataclass(frozen=True, config=STRICT)
class MujocoWarpConfig:
    """Sizes of MuJoCo Warp's buffers; what does not fit is left out and reported.

    The environments share the sum of `nconmax` and of `nccdmax`, with some spare for small
    numbers of environments. Measured: with random motions of arm and hand among all kinds of
    objects of the `train` set, 5 contacts per environment and up to 99 constraints in one. All
    other settings are those of `mujoco`.

    Attributes:
        nconmax: Contacts, and pairs of geoms that may touch, per environment.
        nccdmax: Those of them with a cylinder, an ellipsoid or a mesh; they need 5 KiB each.
        njmax: Constraints of one environment: four per contact, one per joint at its limit, one
            per joint with dry friction.
        cuda_graph: False: a GPU's kernels are launched one by one, which is slow; to find faults.
    """

    nconmax: Annotated[int, Field(ge=1)] = 24
    nccdmax: Annotated[int, Field(ge=1)] = 12
    njmax: Annotated[int, Field(ge=1)] = 192
    cuda_graph: bool = True


@dataclass(frozen=True, config=STRICT)
class IsaacLabConfig:
    """Settings of Isaac Lab with Newton's MuJoCo Warp solver.

    It takes `impratio` and both numbers of iterations from `mujoco`. Its integrator is always
    `implicitfast`: this version of the solver has no `discrete` one.

    Attributes:
        python: Interpreter that has Isaac Lab, where this one has not; "": that of
            `make setup-isaac`.
        solver_step_s: Longest step of the solver; a longer physics step is divided.
        nconmax: Contacts of one environment.
        njmax: Constraints of one environment, as in `mujoco_warp`.
    """

    python: str = ""
    solver_step_s: Annotated[float, Field(gt=0.0, le=1 / 60 + 1e-9)] = 1 / 120
    nconmax: Annotated[int, Field(ge=1)] = 48
    njmax: Annotated[int, Field(ge=1)] = 192


@dataclass(frozen=True, config=STRICT)
class PhysicsConfig:
    """Physics settings: those common to all backends, then those of each backend.

    Attributes:
        backend: Physics engine, see `backends.BACKENDS`.
        timestep_s: Physics step.
        friction: Sliding friction coefficient of all contacts.
        actuator_gains: Which gains of the robot the servos have, "stiff" or "paper".
        mujoco: Settings of MuJoCo, on the CPU and in Warp.
        mujoco_warp: Settings of MuJoCo Warp only.
        isaaclab: Settings of Isaac Lab only.
    """

    backend: Annotated[str, AfterValidator(_known)] = "mujoco"
    timestep_s: Annotated[float, Field(gt=0.0, le=1 / 60 + 1e-9)] = 1 / 120
    friction: Annotated[float, Field(gt=0.0)] = 1.0
    actuator_gains: Literal["stiff", "paper"] = "stiff"
    mujoco: MujocoConfig = MujocoConfig()
    mujoco_warp: MujocoWarpConfig = MujocoWarpConfig()
    isaaclab: IsaacLabConfig = IsaacLabConfig()


@plain_dataclass(frozen=True, eq=False)
class Scene:
    """N environments: the same robot, table and cameras, one object each.

    Attributes:
        robot: Fixed to the world, its base frame at the origin.
        table: The table.
        objects: All objects of the run, also those that none of these environments has: so an
            engine can give its models the same layout in every worker.
        object_of_env: [N] index into `objects`.
        physics: Physics settings.
        substeps: Physics steps in a control period.
        camera: Depth camera, and left camera of the stereo pair.
        stereo_baseline_m: Distance of the right camera along the left one's x axis.
        look: Strengths of the random looks of colour images.
    """

    robot: Robot
    table: TableConfig
    objects: tuple[ObjectConfig, ...]
    object_of_env: tuple[int, ...]
    physics: PhysicsConfig
    substeps: int
    camera: CameraConfig
    stereo_baseline_m: float
    look: LookConfig

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self.object_of_env)

    @property
    def start_position_m(self) -> Vector3:
        """Where an engine has its objects before the first reset: above the table's centre."""
        x, y, _ = self.table.center_m
        return x, y, self.table.top_m + _START_HEIGHT_M
