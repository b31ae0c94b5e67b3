"""Robot, table, ground and one object as compiled MuJoCo models, one model per object."""

from collections.abc import Sequence

import mujoco

from dexgrasp_sim.objects.config import ObjectConfig
from dexgrasp_sim.physics.mujoco.mjcf import TABLE_COLLISION, RobotOptions, robot_spec
from dexgrasp_sim.physics.mujoco.object_geoms import OBJECT, Layout, add_object, common_layout
from dexgrasp_sim.physics.scene import PhysicsConfig, Scene

__all__ = ["OBJECT", "build_models"]

_INTEGRATORS = {
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    "discrete": mujoco.mjtIntegrator.mjINT_DISCRETE,
}
_TORSIONAL_FRICTION_M = 0.005
_ROLLING_FRICTION_M = 0.0001
_START_HEIGHT_M = 0.1
_GROUND_RGBA = (0.36, 0.40, 0.45, 1.0)
_TABLE_RGBA = (0.62, 0.47, 0.33, 1.0)


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
    robot, table, physics = scene.robot, scene.table, scene.physics
    friction = (physics.friction, _TORSIONAL_FRICTION_M, _ROLLING_FRICTION_M)
    gains = robot.gains[physics.actuator_gains]
    spec = robot_spec(robot, RobotOptions(gains, contact_friction=friction))
    _set_options(spec, physics)
    ground = spec.worldbody.add_geom(
        name="ground", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.0, 3.0, 0.1], rgba=_GROUND_RGBA
    )
    table_box = spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=table.center_m,
        size=[extent / 2 for extent in table.size_m],
        rgba=_TABLE_RGBA,
    )
    for geom in (ground, table_box):
        geom.contype, geom.conaffinity = TABLE_COLLISION.contype, TABLE_COLLISION.conaffinity
        geom.friction = friction
        geom.condim = 4
    above = (table.center_m[0], table.center_m[1], table.top_m + _START_HEIGHT_M)
    add_object(spec, item, layout, above, friction)
    return spec.compile()


def _set_options(spec: mujoco.MjSpec, physics: PhysicsConfig) -> None:
    option = spec.option
    option.timestep = physics.timestep_s
    option.integrator = _INTEGRATORS[physics.mujoco.integrator]
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = physics.mujoco.impratio
    option.iterations = physics.mujoco.iterations
    option.ls_iterations = physics.mujoco.line_search_iterations
