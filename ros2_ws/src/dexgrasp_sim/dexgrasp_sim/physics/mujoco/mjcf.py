"""MJCF generated from the robot's URDF model through `mujoco.MjSpec`."""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp_sim.physics.contact_model import ROBOT_COLLISION, CollisionBits
from dexgrasp_sim.robot.model import Inertial, Joint, Link, Shape
from dexgrasp_sim.robot.robot import ActuatorGains, Robot


@dataclass(frozen=True)
class RobotOptions:
    """Properties of the simulated robot that are not in the URDF.

    Attributes:
        gains: Position servos.
        collision: Bits of every robot geom.
        friction_scale: Factor on the URDF's dry joint friction; 0 saves the solver one constraint
            per joint.
        condim: Contact dimension of every robot geom (4: with torsional friction).
        contact_friction: Sliding, torsional (m) and rolling (m) friction of every robot geom.
    """

    gains: ActuatorGains
    collision: CollisionBits = ROBOT_COLLISION
    friction_scale: float = 0.0
    condim: int = 4
    contact_friction: tuple[float, float, float] = (1.0, 0.005, 0.0001)


def robot_spec(robot: Robot, options: RobotOptions | None = None) -> mujoco.MjSpec:
    """A spec with the robot only, its base at the world origin."""
    spec = mujoco.MjSpec()
    spec.modelname = robot.name
    spec.compiler.degree = False
    add_robot(spec, robot, options)
    return spec


def add_robot(
    spec: mujoco.MjSpec,
    robot: Robot,
    options: RobotOptions | None = None,
    frames: Sequence[str] | None = None,
) -> None:
    """Adds the robot to a spec, its root at the world origin.

    A link with mass becomes a body of the same name, its k-th collision shape a geom
    `<link>_<k>`; each revolute joint a hinge and a position actuator of the joint's name, the
    actuators in `robot.joint_names` order; each of `frames` a site of the frame's name. Gravity
    does not act on the robot: the real arm and hand compensate their own weight.

    Args:
        spec: What to add to; angles in rad (`compiler.degree` off).
        robot: The robot.
        options: Gains, collision and friction; None: the robot's `stiff` gains, else defaults.
        frames: Frames that get a site; None: `Robot.task_frames`.
    """
    options = options or RobotOptions(robot.gains["stiff"])
    frames = robot.task_frames if frames is None else frames
    children: dict[str, list[Joint]] = {}
    for joint in robot.joints.values():
        children.setdefault(joint.parent, []).append(joint)
    # sorts the joints of one parent, so that qpos is in the project's joint order as well
    order = {name: position for position, name in enumerate(robot.joint_names)}
    for joints in children.values():
        joints.sort(key=lambda joint: order.get(joint.name, -1))
    _add_subtree(spec.worldbody, np.eye(4), robot.root, robot, children, options, set(frames))
    for first, second in robot.touching_links:
        spec.add_exclude(name=f"{first}-{second}", bodyname1=first, bodyname2=second)
    _add_actuators(spec, robot, options.gains)


def _add_subtree(
    body: mujoco.MjsBody,
    in_body: NDArray[np.float64],
    link_name: str,
    robot: Robot,
    children: dict[str, list[Joint]],
    options: RobotOptions,
    frames: set[str],
) -> None:
    """Adds the subtree of a link whose frame has the pose `in_body` [4, 4] in `body`."""
    if link_name in frames:
        position, quaternion = _position_quaternion(in_body)
        body.add_site(name=link_name, pos=position, quat=quaternion, size=[0.005] * 3, group=4)
    for joint in children.get(link_name, []):
        child = robot.links[joint.child]
        child_in_body = in_body @ joint.origin.matrix
        if child.inertial is None and joint.kind == "fixed":
            _add_subtree(body, child_in_body, child.name, robot, children, options, frames)
            continue
        child_body = _add_body(body, child_in_body, child, options)
        if joint.kind == "revolute":
            _add_hinge(child_body, joint, robot, options)
        _add_subtree(child_body, np.eye(4), child.name, robot, children, options, frames)


def _add_body(
    parent: mujoco.MjsBody, in_parent: NDArray[np.float64], link: Link, options: RobotOptions
) -> mujoco.MjsBody:
    position, quaternion = _position_quaternion(in_parent)
    body = parent.add_body(name=link.name, pos=position, quat=quaternion, gravcomp=1.0)
    if link.inertial is not None:
        _set_inertial(body, link.inertial)
    colours = [visual.rgba for visual in link.visuals]
    for index, shape in enumerate(link.collisions):
        rgba = colours[index] if index < len(colours) else shape.rgba
        _add_geom(body, f"{link.name}_{index}", shape, rgba, options)
    return body


def _set_inertial(body: mujoco.MjsBody, inertial: Inertial) -> None:
    body.explicitinertial = True
    body.mass = inertial.mass
    body.ipos = inertial.origin.xyz
    rotation = inertial.origin.matrix[:3, :3]
    inertia = rotation @ inertial.matrix @ rotation.T
    # MuJoCo's order: xx, yy, zz, xy, xz, yz
    body.fullinertia = [*np.diag(inertia), inertia[0, 1], inertia[0, 2], inertia[1, 2]]


def _add_geom(
    body: mujoco.MjsBody, name: str, shape: Shape, rgba: Sequence[float], options: RobotOptions
) -> None:
    position, quaternion = _position_quaternion(shape.origin.matrix)
    kind, size = _geom_size(shape)
    body.add_geom(
        name=name,
        type=kind,
        size=size,
        pos=position,
        quat=quaternion,
        rgba=rgba,
        contype=options.collision.contype,
        conaffinity=options.collision.conaffinity,
        condim=options.condim,
        friction=options.contact_friction,
    )


def _geom_size(shape: Shape) -> tuple[mujoco.mjtGeom, list[float]]:
    """MuJoCo's geom type and size: half extents instead of the URDF's full ones."""
    if shape.kind == "box":
        return mujoco.mjtGeom.mjGEOM_BOX, [edge / 2 for edge in shape.size]
    if shape.kind == "cylinder":
        radius, length = shape.size
        return mujoco.mjtGeom.mjGEOM_CYLINDER, [radius, length / 2, 0.0]
    return mujoco.mjtGeom.mjGEOM_SPHERE, [shape.size[0], 0.0, 0.0]


def _add_hinge(body: mujoco.MjsBody, joint: Joint, robot: Robot, options: RobotOptions) -> None:
    index = robot.joint_names.index(joint.name)
    body.add_joint(
        name=joint.name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=joint.axis,
        range=[joint.lower, joint.upper],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        damping=joint.damping,
        frictionloss=options.friction_scale * joint.friction,
        armature=options.gains.armature[index],
    )


def _add_actuators(spec: mujoco.MjSpec, robot: Robot, gains: ActuatorGains) -> None:
    for index, name in enumerate(robot.joint_names):
        joint = robot.joints[name]
        actuator = spec.add_actuator(
            name=name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            target=name,
            ctrllimited=mujoco.mjtLimited.mjLIMITED_TRUE,
            ctrlrange=[joint.lower, joint.upper],
            forcelimited=mujoco.mjtLimited.mjLIMITED_TRUE,
            forcerange=[-joint.effort, joint.effort],
        )
        actuator.set_to_position(kp=gains.stiffness[index], kv=gains.damping[index])


def _position_quaternion(
    transform: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Position [3] and wxyz quaternion [4] of a homogeneous transform [4, 4]."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(transform[:3, :3]).ravel())
    return transform[:3, 3].copy(), quaternion
