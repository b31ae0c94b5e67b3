"""Reads a robot from a URDF."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from dexgrasp_sim.robot.model import (
    WHITE,
    Inertial,
    Joint,
    Link,
    Pose,
    RobotModel,
    Shape,
    UrdfError,
    Vector,
)

_LARGEST_ANGLE_RAD = 7.0
"""No joint of an arm or a hand turns further; larger numbers are probably degrees."""
_SIZE_ATTRIBUTES = {"box": ("size",), "cylinder": ("radius", "length"), "sphere": ("radius",)}


def load_urdf(path: str | Path, joint_names: Sequence[str]) -> RobotModel:
    """Reads a URDF file; see `parse_urdf`."""
    return parse_urdf(Path(path).read_text(encoding="utf-8"), joint_names)


def parse_urdf(text: str, joint_names: Sequence[str]) -> RobotModel:
    """Builds the model from URDF text.

    Args:
        text: The URDF. The order of its elements does not matter.
        joint_names: Every revolute joint exactly once; their order becomes that of [J] vectors.

    Raises:
        UrdfError: Not a URDF, a joint of `joint_names` is missing or a movable one is not in it,
            a limit is missing or in degrees, a shape or joint is of an unsupported kind, a body
            is not physical, or the links do not form one tree.
    """
    try:
        robot = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UrdfError(f"not a URDF: {error}; give well-formed XML") from None
    colours = {
        name: _vector(material.find("color"), "rgba", WHITE, name)
        for name, material in _by_name(robot, "material").items()
    }
    links = {name: _link(name, link, colours) for name, link in _by_name(robot, "link").items()}
    joints = {name: _joint(name, joint) for name, joint in _by_name(robot, "joint").items()}
    _check_joints(joints, joint_names)
    return RobotModel(
        name=robot.get("name", "robot"),
        joint_names=tuple(joint_names),
        joints=dict(sorted(joints.items())),
        links=dict(sorted(links.items())),
        root=_root(links, joints),
    )


def movable_joints(text: str) -> tuple[str, ...]:
    """Names of the revolute joints of URDF text, in its order; UrdfError if it is no XML."""
    try:
        robot = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UrdfError(f"not a URDF: {error}; give well-formed XML") from None
    joints = _by_name(robot, "joint")
    return tuple(name for name, joint in joints.items() if joint.get("type") == "revolute")


def _by_name(robot: Element, tag: str) -> dict[str, Element]:
    elements: dict[str, Element] = {}
    for element in robot.findall(tag):
        name = _text(element, "name", robot.get("name", "robot"))
        if name in elements:
            raise UrdfError(f"there are two <{tag}> {name!r}; rename or remove one")
        elements[name] = element
    return elements


def _check_joints(joints: Mapping[str, Joint], joint_names: Sequence[str]) -> None:
    movable = {name for name, joint in joints.items() if joint.kind == "revolute"}
    for name in joint_names:
        if name not in movable:
            raise UrdfError(
                f"the URDF has no revolute joint {name!r}; add it, or correct the "
                f"joint names asked for (it has {', '.join(sorted(movable))})"
            )
    extra = sorted(movable - set(joint_names))
    if extra or len(set(joint_names)) != len(joint_names):
        raise UrdfError(
            f"the joint order names {len(joint_names)} joints, the URDF has "
            f"{len(movable)}; name each once (not named: {extra})"
        )


def _root(links: Mapping[str, Link], joints: Mapping[str, Joint]) -> str:
    children = [joint.child for joint in joints.values()]
    for joint in joints.values():
        for link in (joint.parent, joint.child):
            if link not in links:
                raise UrdfError(
                    f"joint {joint.name!r} names link {link!r}, which the URDF does "
                    "not define; add the link"
                )
    roots = [name for name in links if name not in children]
    if len(roots) != 1 or len(set(children)) != len(children):
        raise UrdfError(
            f"the links do not form one tree (roots: {roots}); give every link but "
            "one exactly one parent joint"
        )
    return roots[0]


def _link(name: str, element: Element, colours: Mapping[str, Vector]) -> Link:
    return Link(
        name=name,
        inertial=_inertial(element.find("inertial"), name),
        visuals=tuple(_shape(shape, name, colours) for shape in element.findall("visual")),
        collisions=tuple(_shape(shape, name, {}) for shape in element.findall("collision")),
    )


def _inertial(element: Element | None, link: str) -> Inertial | None:
    if element is None:
        return None
    mass, inertia = element.find("mass"), element.find("inertia")
    if mass is None or inertia is None:
        raise UrdfError(f"link {link!r}: <inertial> needs <mass> and <inertia>; add them")
    moments = tuple(
        _number(inertia, key, link) for key in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
    )
    inertial = Inertial(_number(mass, "value", link), _pose(element, link), moments)
    if inertial.mass <= 0 or np.linalg.eigvalsh(inertial.matrix)[0] <= 0:
        raise UrdfError(f"link {link!r}: mass and principal moments of inertia must be above 0")
    return inertial


def _shape(element: Element, link: str, colours: Mapping[str, Vector]) -> Shape:
    geometry = element.find("geometry")
    primitive = None if geometry is None or not len(geometry) else geometry[0]
    if primitive is None or primitive.tag not in _SIZE_ATTRIBUTES:
        found = "no geometry" if primitive is None else f"<{primitive.tag}>"
        raise UrdfError(f"link {link!r}: {found}; use one of {', '.join(_SIZE_ATTRIBUTES)}")
    attributes = _SIZE_ATTRIBUTES[primitive.tag]
    size = sum((_vector(primitive, attribute, (), link) for attribute in attributes), start=())
    if len(size) != (3 if primitive.tag == "box" else len(attributes)) or min(size) <= 0:
        raise UrdfError(f"link {link!r}: {primitive.tag} of size {size}; give {attributes} in m")
    material = element.find("material")
    rgba = WHITE if material is None else colours.get(material.get("name", ""), WHITE)
    return Shape(primitive.tag, size, _pose(element, link), rgba)


def _joint(name: str, element: Element) -> Joint:
    kind = element.get("type", "")
    if kind not in ("fixed", "revolute"):
        raise UrdfError(f"joint {name!r}: type {kind!r} is not supported; use fixed or revolute")
    parent, child = element.find("parent"), element.find("child")
    if parent is None or child is None:
        raise UrdfError(f"joint {name!r} needs <parent> and <child>; add them")
    ends = _text(parent, "link", name), _text(child, "link", name)
    joint = Joint(name, kind, *ends, origin=_pose(element, name))
    return joint if kind == "fixed" else _with_motion(joint, element)


def _with_motion(joint: Joint, element: Element) -> Joint:
    """The revolute joint with its axis, limits and friction."""
    limit, dynamics = element.find("limit"), element.find("dynamics")
    if limit is None:
        raise UrdfError(f"joint {joint.name!r} has no <limit>; add lower, upper, effort, velocity")
    axis = np.array(_vector(element.find("axis"), "xyz", (1.0, 0.0, 0.0), joint.name))
    if not axis.any():
        raise UrdfError(f"joint {joint.name!r}: <axis> is 0 0 0; give a direction")
    moving = replace(
        joint,
        axis=tuple((axis / np.linalg.norm(axis)).tolist()),
        lower=_number(limit, "lower", joint.name),
        upper=_number(limit, "upper", joint.name),
        velocity=_number(limit, "velocity", joint.name),
        effort=_number(limit, "effort", joint.name),
        damping=_vector(dynamics, "damping", (0.0,), joint.name)[0],
        friction=_vector(dynamics, "friction", (0.0,), joint.name)[0],
    )
    if not (moving.lower < moving.upper and moving.velocity > 0 and moving.effort > 0):
        raise UrdfError(
            f"joint {joint.name!r}: limits {limit.attrib} allow no motion; lower must be below "
            "upper, velocity and effort above 0"
        )
    if max(abs(moving.lower), abs(moving.upper)) > _LARGEST_ANGLE_RAD:
        raise UrdfError(
            f"joint {joint.name!r}: limits {moving.lower:g} to {moving.upper:g} look like "
            "degrees; a URDF has radians: convert them"
        )
    return moving


def _pose(element: Element, owner: str) -> Pose:
    origin, zero = element.find("origin"), (0.0, 0.0, 0.0)
    pose = Pose(_vector(origin, "xyz", zero, owner), _vector(origin, "rpy", zero, owner))
    if max(map(abs, pose.rpy)) > _LARGEST_ANGLE_RAD:
        raise UrdfError(f"{owner!r}: rpy {pose.rpy} looks like degrees; convert it to radians")
    return pose


def _vector(element: Element | None, attribute: str, default: Vector, owner: str) -> Vector:
    """The numbers of an attribute, as many as in `default` (() allows any number of them), or
    `default` if the attribute is missing.
    """
    if element is None or element.get(attribute) is None:
        return default
    text = _text(element, attribute, owner)
    try:
        values = tuple(float(part) for part in text.split())
    except ValueError:
        values = ()
    count = len(default) or max(1, len(values))
    if len(values) != count or not np.isfinite(values).all():
        raise UrdfError(
            f"{owner!r}: <{element.tag}> has {attribute} {text!r}; give {count} finite number(s)"
        )
    return values


def _number(element: Element, attribute: str, owner: str) -> float:
    _text(element, attribute, owner)  # refuses a missing attribute
    return _vector(element, attribute, (0.0,), owner)[0]


def _text(element: Element, attribute: str, owner: str) -> str:
    text = element.get(attribute)
    if text is None:
        raise UrdfError(f"{owner!r}: <{element.tag}> has no {attribute!r}; add it")
    return text
