"""Robot, table, ground and one object as compiled MuJoCo models, one model per object."""

from collections.abc import Sequence

import mujoco

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.physics.contact_model import TABLE_COLLISION
from dexgrasp_sim.physics.mujoco.mjcf import RobotOptions, robot_spec
from dexgrasp_sim.physics.mujoco.object_geoms import OBJECT, Layout, add_object, common_layout
from dexgrasp_sim.physics.scene import GROUND_RGBA, TABLE_RGBA, PhysicsConfig, Scene

__all__ = ["OBJECT", "build_models"]

_INTEGRATORS = {
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    "discrete": mujoco.mjtIntegrator.mjINT_DISCRETE,
}
_TORSIONAL_FRICTION_M = 0.005
_ROLLING_FRICTION_M = 0.0001


def build_models(
    scene: Scene, objects: Sequence[ObjectConfig], layout: Layout | None = None
) -> list[mujoco.MjModel]:
    """Compiles one model per object; all share the layout, so one batch can mix them.

    Args:
        scene: Robot, table and physics.
        objects: Each becomes the free body `object` of its own model.
        layout: Of the objects' geoms; None for the smallest one that holds these objects.
    """
    layout = layout or common_layout(objects)
    return [_build_model(scene, item, layout) for item in objects]


def _build_model(scene: Scene, item: ObjectConfig, layout: Layout) -> mujoco.MjModel:
    spec = scene_spec(scene)
    add_object(spec, item, layout, scene.start_position_m, contact_friction(scene.physics))
    return spec.compile()


def contact_friction(physics: PhysicsConfig) -> tuple[float, float, float]:
    """Sliding, torsional (m) and rolling (m) friction coefficient of all geoms."""
    return physics.friction, _TORSIONAL_FRICTION_M, _ROLLING_FRICTION_M


def scene_spec(scene: Scene) -> mujoco.MjSpec:
    """Robot, table and ground with the settings of the physics, without an object."""
    robot, table, physics = scene.robot, scene.table, scene.physics
    friction = contact_friction(physics)
    gains = robot.gains[physics.actuator_gains]
    spec = robot_spec(robot, RobotOptions(gains, contact_friction=friction))
    _set_options(spec, physics)
    ground = spec.worldbody.add_geom(
        name="ground", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.0, 3.0, 0.1], rgba=GROUND_RGBA
    )
    table_box = spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=table.center_m,
        size=[extent / 2 for extent in table.size_m],
        rgba=TABLE_RGBA,
    )
    for geom in (ground, table_box):
        geom.contype, geom.conaffinity = TABLE_COLLISION.contype, TABLE_COLLISION.conaffinity
        geom.friction = friction
        geom.condim = 4
    return spec


def _set_options(spec: mujoco.MjSpec, physics: PhysicsConfig) -> None:
    option = spec.option
    option.timestep = physics.timestep_s
    option.integrator = _INTEGRATORS[physics.mujoco.integrator]
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = physics.mujoco.impratio
    option.iterations = physics.mujoco.iterations
    option.ls_iterations = physics.mujoco.line_search_iterations
