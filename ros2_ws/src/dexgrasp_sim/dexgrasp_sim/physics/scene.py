"""Robot, table, ground and one object as compiled MuJoCo models, one model per object."""

from collections.abc import Sequence

import mujoco

from dexgrasp_sim.physics.engine import PhysicsConfig
from dexgrasp_sim.physics.mjcf import (
    OBJECT_COLLISION,
    TABLE_COLLISION,
    CollisionBits,
    RobotOptions,
    robot_spec,
)
from dexgrasp_sim.robot.kuka_allegro import GAINS
from dexgrasp_sim.robot.urdf import RobotModel
from dexgrasp_sim.tasks.grasp.config import TableConfig
from dexgrasp_sim.tasks.grasp.objects import ObjectConfig

OBJECT = "object"
"""Name of the object's body, joint and geom."""

_INTEGRATORS = {
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    "discrete": mujoco.mjtIntegrator.mjINT_DISCRETE,
}
_GEOM_TYPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
}
_TORSIONAL_FRICTION_M = 0.005
_ROLLING_FRICTION_M = 0.0001
_GROUND_RGBA = (0.36, 0.40, 0.45, 1.0)
_TABLE_RGBA = (0.62, 0.47, 0.33, 1.0)


def build_models(
    robot: RobotModel,
    table: TableConfig,
    objects: Sequence[ObjectConfig],
    physics: PhysicsConfig,
) -> list[mujoco.MjModel]:
    """Compiles one model per object; all share the layout, so one batch can mix them.

    Args:
        robot: The robot, fixed to the world at the origin.
        table: Table box.
        objects: Objects; each becomes the free body `object` of its own model.
        physics: Solver and contact settings.
    """
    return [_build_model(robot, table, item, physics) for item in objects]


def _build_model(
    robot: RobotModel, table: TableConfig, item: ObjectConfig, physics: PhysicsConfig
) -> mujoco.MjModel:
    friction = (physics.friction, _TORSIONAL_FRICTION_M, _ROLLING_FRICTION_M)
    options = RobotOptions(gains=GAINS[physics.actuator_gains], contact_friction=friction)
    spec = robot_spec(robot, options)
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
    body = spec.worldbody.add_body(
        name=OBJECT, pos=[table.center_m[0], table.center_m[1], table.top_m + 0.1]
    )
    body.add_freejoint(name=OBJECT)
    object_geom = body.add_geom(
        name=OBJECT,
        type=_GEOM_TYPES[item.shape],
        size=_half_sizes(item),
        mass=item.mass_kg,
        rgba=[*item.rgb, 1.0],
    )
    for geom, bits in (
        (ground, TABLE_COLLISION),
        (table_box, TABLE_COLLISION),
        (object_geom, OBJECT_COLLISION),
    ):
        _set_contact(geom, bits, friction)
    return spec.compile()


def _set_contact(
    geom: mujoco.MjsGeom, bits: CollisionBits, friction: tuple[float, float, float]
) -> None:
    geom.contype, geom.conaffinity = bits.contype, bits.conaffinity
    geom.friction = friction
    geom.condim = 4


def _set_options(spec: mujoco.MjSpec, physics: PhysicsConfig) -> None:
    option = spec.option
    option.timestep = physics.timestep_s
    option.integrator = _INTEGRATORS[physics.integrator]
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = physics.impratio
    option.iterations = physics.iterations
    option.ls_iterations = physics.line_search_iterations


def _half_sizes(item: ObjectConfig) -> list[float]:
    """MuJoCo's size vector of the object's geom."""
    extents = item.extents_m
    if item.shape == "box":
        return [extent / 2 for extent in extents]
    if item.shape == "cylinder":
        return [extents[0] / 2, extents[2] / 2, 0.0]
    return [extents[0] / 2, 0.0, 0.0]
