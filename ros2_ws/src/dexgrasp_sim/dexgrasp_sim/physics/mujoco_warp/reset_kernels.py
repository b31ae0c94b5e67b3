# type: ignore -- kernels are written in the language of Warp, which has other rules
"""Warp kernels of the beginning of episodes: one thread per environment and column.

As tensor code the same is sixty small launches, each of which costs the host some ten
microseconds however few environments it concerns.
"""

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.struct
class GeomArrays:
    """Contact parameters of all geoms [N, G, 3 or 2]: nominal, and as the physics reads them."""

    nominal_friction: wp.array3d[float]
    nominal_solref: wp.array3d[float]
    friction: wp.array3d[float]
    solref: wp.array3d[float]


@wp.kernel
def set_contacts(
    env_ids: wp.array[wp.int64],
    friction_scale: wp.array[float],
    damping_ratio: wp.array[float],
    arrays: GeomArrays,
) -> None:
    """Gives a geom its friction and its softness; see `DeviceParameters`."""
    row, geom = wp.tid()
    world = int(env_ids[row])
    for i in range(3):
        nominal = arrays.nominal_friction[world, geom, i]
        arrays.friction[world, geom, i] = nominal * friction_scale[row]
    # the stiffness is 1 / (time constant * ratio)^2: this changes the damping only
    ratio = damping_ratio[row]
    arrays.solref[world, geom, 0] = arrays.nominal_solref[world, geom, 0] * (1.0 / ratio)
    arrays.solref[world, geom, 1] = arrays.nominal_solref[world, geom, 1] * ratio


@wp.struct
class JointArrays:
    """Servos and dry friction: of J joints of the robot in its order, and of the model's columns.

    Attributes:
        actuators: [J], columns of the actuators.
        dofs: [J], columns of the joints.
        dry_friction: [J] N m of the URDF.
        nominal_lead_s: [N, J] s.
    """

    actuators: wp.array[int]
    dofs: wp.array[int]
    dry_friction: wp.array[float]
    nominal_lead_s: wp.array2d[float]
    nominal_gain: wp.array3d[float]
    nominal_bias: wp.array3d[float]
    gain: wp.array3d[float]
    bias: wp.array3d[float]
    friction: wp.array2d[float]
    lead_s: wp.array2d[float]


@wp.kernel
def set_joints(
    env_ids: wp.array[wp.int64],
    stiffness_scale: wp.array2d[float],
    damping_scale: wp.array2d[float],
    friction_scale: wp.array2d[float],
    arrays: JointArrays,
) -> None:
    """Gives a joint its servo and its dry friction; see `DeviceParameters`."""
    row, joint = wp.tid()
    world = int(env_ids[row])
    column = arrays.actuators[joint]
    stiffness, damping = stiffness_scale[row, joint], damping_scale[row, joint]
    arrays.gain[world, column, 0] = arrays.nominal_gain[world, column, 0] * stiffness
    arrays.bias[world, column, 1] = arrays.nominal_bias[world, column, 1] * stiffness
    arrays.bias[world, column, 2] = arrays.nominal_bias[world, column, 2] * damping
    dry = arrays.dry_friction[joint] * friction_scale[row, joint]
    arrays.friction[world, arrays.dofs[joint]] = dry
    arrays.lead_s[world, joint] = arrays.nominal_lead_s[world, joint] * damping / stiffness


@wp.struct
class MassArrays:
    """What depends on the object's mass: nominal, and as the physics reads it.

    Attributes:
        body: Of the object.
        dof: The first of its six.
    """

    body: int
    dof: int
    nominal_mass: wp.array2d[float]
    nominal_inertia: wp.array3d[float]
    nominal_body_inverse: wp.array3d[float]
    nominal_dof_inverse: wp.array2d[float]
    nominal_subtree: wp.array2d[float]
    mass: wp.array2d[float]
    inertia: wp.array3d[float]
    body_inverse: wp.array3d[float]
    dof_inverse: wp.array2d[float]
    subtree: wp.array2d[float]
    object_mass: wp.array[float]


@wp.kernel
def set_mass(env_ids: wp.array[wp.int64], mass_scale: wp.array[float], arrays: MassArrays) -> None:
    """Scales the object's mass and what the compiler derived from it.

    The object is a tree of its own, so its inverse weights are those of its mass alone.
    """
    row = wp.tid()
    world, body, scale = int(env_ids[row]), arrays.body, mass_scale[row]
    mass = arrays.nominal_mass[world, body] * scale
    arrays.object_mass[world] = mass
    arrays.mass[world, body] = mass
    for i in range(3):
        arrays.inertia[world, body, i] = arrays.nominal_inertia[world, body, i] * scale
    for i in range(2):
        arrays.body_inverse[world, body, i] = arrays.nominal_body_inverse[world, body, i] / scale
    for i in range(6):
        dof = arrays.dof + i
        arrays.dof_inverse[world, dof] = arrays.nominal_dof_inverse[world, dof] / scale
    rest = arrays.nominal_subtree[world, 0] - arrays.nominal_subtree[world, body]
    arrays.subtree[world, body] = mass
    arrays.subtree[world, 0] = rest + mass


@wp.struct
class StateArrays:
    """The state that a reset sets.

    Attributes:
        joint_of_dof: [V], which joint of the robot each degree of freedom is; -1: none.
        qpos_columns: [J], columns of the joints in `qpos`.
        ctrl_columns: [J], of their actuators in `ctrl`.
        object_qpos: First column of the object.
        object_body: Its body.
    """

    joint_of_dof: wp.array[int]
    qpos_columns: wp.array[int]
    ctrl_columns: wp.array[int]
    object_qpos: int
    object_body: int
    qpos: wp.array2d[float]
    qvel: wp.array2d[float]
    ctrl: wp.array2d[float]
    qacc: wp.array2d[float]
    qacc_warmstart: wp.array2d[float]
    xfrc_applied: wp.array3d[float]
    time: wp.array[float]
    diverged: wp.array[bool]


@wp.kernel
def reset_state(
    env_ids: wp.array[wp.int64],
    joint_position: wp.array2d[float],
    object_pose: wp.array2d[float],
    joint_velocity: wp.array2d[float],
    state: StateArrays,
) -> None:
    """Sets one degree of freedom of an environment; `joint_velocity` may be empty: at rest."""
    row, dof = wp.tid()
    world = int(env_ids[row])
    joint = state.joint_of_dof[dof]
    velocity = wp.float32(0.0)
    if joint >= 0:
        position = joint_position[row, joint]
        state.qpos[world, state.qpos_columns[joint]] = position
        state.ctrl[world, state.ctrl_columns[joint]] = position
        if joint_velocity.shape[0] > 0:
            velocity = joint_velocity[row, joint]
    state.qvel[world, dof] = velocity
    state.qacc[world, dof] = 0.0
    state.qacc_warmstart[world, dof] = 0.0
    if dof < 7:
        state.qpos[world, state.object_qpos + dof] = object_pose[row, dof]
    if dof < 6:
        state.xfrc_applied[world, state.object_body, dof] = 0.0
    if dof == 0:
        state.time[world] = 0.0
        state.diverged[world] = False
