"""The scene in Isaac Lab: its configuration, and the one simulation of this process."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import isaaclab.sim as sim_utils
import torch
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import (
    Articulation,
    ArticulationCfg,
    AssetBaseCfg,
    RigidObject,
    RigidObjectCfg,
)
from isaaclab.scene import InteractiveScene, InteractiveSceneCfg
from isaaclab.sensors import Camera, CameraCfg
from isaaclab.sim import SimulationCfg, SimulationContext
from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg, NewtonShapeCfg
from isaaclab_newton.renderers import NewtonWarpRendererCfg

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.physics.isaaclab.assets import (
    common_kinds,
    write_object,
    write_robot,
    write_surroundings,
)
from dexgrasp_sim.physics.scene import Scene
from dexgrasp_sim.robot.robot import ActuatorGains, Robot
from dexgrasp_sim.robot.rotation import matrix_to_quaternion
from dexgrasp_sim.vision.camera import CameraConfig

_FOCAL_LENGTH = 24.0
"""Any: images depend on its ratio to the aperture only."""
_CLIPPING_M = (0.001, 100.0)
_TOLERANCE = 1e-8
"""MuJoCo's own; Isaac Lab's is 1e-6."""
LEFT, RIGHT, DEPTH = "left", "right", "depth"


@dataclass(frozen=True)
class Simulation:
    """The parts of a running simulation.

    Attributes:
        context: Steps it.
        robot: Its joints are in the robot's order.
        object: The object of every environment.
        cameras: `DEPTH`, `LEFT` and `RIGHT`.
    """

    context: SimulationContext
    robot: Articulation
    object: RigidObject
    cameras: dict[str, Camera]


def start_simulation(scene: Scene, device: torch.device) -> Simulation:
    """Builds N environments.

    All environments lie at the origin of the world: Newton keeps them apart, and what a camera
    sees then does not depend on which environment it is in.

    Raises:
        ConfigError: This process has a simulation already; Isaac Lab allows one.
    """
    if SimulationContext.instance() is not None:
        raise ConfigError(
            "isaaclab: this process has a simulation already, and Isaac Lab allows one; close it, "
            "or use another process"
        )
    context = SimulationContext(_simulation_cfg(scene, device))
    with tempfile.TemporaryDirectory(prefix="dexgrasp-isaaclab-") as folder:
        built = InteractiveScene(_scene_cfg(scene, Path(folder)))
        context.reset()
        built.reset()
    cameras = {name: built.sensors[name] for name in (DEPTH, LEFT, RIGHT)}
    return Simulation(
        context,
        built.articulations["robot"],
        built.rigid_objects["object"],
        cameras,  # type: ignore[arg-type]
    )


def _simulation_cfg(scene: Scene, device: torch.device) -> SimulationCfg:
    physics, settings = scene.physics, scene.physics.mujoco
    solver = MJWarpSolverCfg(
        njmax=physics.isaaclab.njmax,
        nconmax=physics.isaaclab.nconmax,
        iterations=settings.iterations,
        ls_iterations=settings.line_search_iterations,
        integrator="implicitfast",
        cone="elliptic",
        impratio=settings.impratio,
        tolerance=_TOLERANCE,
        use_mujoco_contacts=False,  # with its own, all environments have the first one's meshes
        disable_sensors=True,
    )
    newton = NewtonCfg(
        num_substeps=math.ceil(physics.timestep_s / physics.isaaclab.solver_step_s - 1e-6),
        solver_cfg=solver,
        default_shape_cfg=NewtonShapeCfg(gap=0.0),  # else shapes apart are contacts too
        use_cuda_graph=device.type == "cuda",
    )
    return SimulationCfg(device=str(device), dt=physics.timestep_s, physics=newton)


def _scene_cfg(scene: Scene, folder: Path) -> InteractiveSceneCfg:
    gains = scene.robot.gains[scene.physics.actuator_gains]
    own = "{ENV_REGEX_NS}"
    cfg = InteractiveSceneCfg(num_envs=scene.num_envs, env_spacing=0.0, replicate_physics=True)
    robot_file = str(write_robot(scene.robot, gains, folder))
    parts: dict[str, AssetBaseCfg | CameraCfg] = {
        "surroundings": AssetBaseCfg(
            prim_path=f"{own}/Surroundings",
            spawn=sim_utils.UsdFileCfg(
                usd_path=str(write_surroundings(scene, folder / "surroundings.usda"))
            ),
        ),
        "robot": ArticulationCfg(
            prim_path=f"{own}/Robot",
            spawn=sim_utils.UsdFileCfg(usd_path=robot_file),
            actuators={"servos": _servos(scene.robot, gains)},
            joint_ordering=list(scene.robot.joint_names),
            init_state=ArticulationCfg.InitialStateCfg(joint_pos=_posture(scene.robot)),
        ),
        "object": RigidObjectCfg(
            prim_path=f"{own}/Object",
            spawn=sim_utils.MultiAssetSpawnerCfg(
                assets_cfg=_object_files(scene, folder), random_choice=False
            ),
            init_state=RigidObjectCfg.InitialStateCfg(pos=scene.start_position_m),
        ),
    }
    left, right = scene.camera.stereo_pair(scene.stereo_baseline_m)
    for name, camera, kind in ((DEPTH, left, "depth"), (LEFT, left, "rgb"), (RIGHT, right, "rgb")):
        parts[name] = _camera(f"{own}/{name}", camera, kind)
    for name, part in parts.items():
        setattr(cfg, name, part)
    return cfg


def _posture(robot: Robot) -> dict[str, float]:
    return dict(zip(robot.joint_names, robot.postures["pregrasp"], strict=True))


def _servos(robot: Robot, gains: ActuatorGains) -> ImplicitActuatorCfg:
    names, joints = robot.joint_names, robot.joints
    return ImplicitActuatorCfg(
        joint_names_expr=list(names),
        stiffness=dict(zip(names, gains.stiffness, strict=True)),
        damping=dict(zip(names, gains.damping, strict=True)),
        armature=dict(zip(names, gains.armature, strict=True)),
        joint_effort_limit={name: joints[name].effort for name in names},
        viscous_friction={name: joints[name].damping for name in names},
        friction=0.0,  # scaled by the parameters
    )


def _object_files(scene: Scene, folder: Path) -> list[sim_utils.SpawnerCfg]:
    """One for each environment; Isaac Lab would give fewer to blocks of environments."""
    kinds = common_kinds(scene.objects)
    files = {
        index: write_object(scene.objects[index], kinds, folder / f"object_{index}.usda")
        for index in sorted(set(scene.object_of_env))
    }
    return [sim_utils.UsdFileCfg(usd_path=str(files[index])) for index in scene.object_of_env]


def _camera(path: str, camera: CameraConfig, kind: str) -> CameraCfg:
    w, x, y, z = matrix_to_quaternion(torch.from_numpy(camera.rotation)).tolist()
    aperture = _FOCAL_LENGTH * camera.width / camera.focal_px
    return CameraCfg(
        prim_path=path,
        spawn=sim_utils.PinholeCameraCfg(
            focal_length=_FOCAL_LENGTH,
            horizontal_aperture=aperture,
            clipping_range=_CLIPPING_M,
        ),
        offset=CameraCfg.OffsetCfg(pos=camera.position_m, rot=(x, y, z, w), convention="opengl"),
        data_types=[kind],
        width=camera.width,
        height=camera.height,
        renderer_cfg=NewtonWarpRendererCfg(),
    )
