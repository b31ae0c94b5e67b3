"""Joint limits in the text of a URDF."""

from math import inf
from xml.etree import ElementTree

from dexgrasp_deploy.checks.graph_facts import JointLimits


def urdf_limits(text: str) -> dict[str, JointLimits]:
    """Limits by joint name, of the joints that have some; {} for what is no URDF."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return {}
    found = {}
    for joint in root.iter("joint"):
        limit = joint.find("limit")
        if limit is None or joint.get("type") != "revolute":
            continue
        try:
            lower, upper, velocity = (
                float(limit.get(key, default))
                for key, default in (("lower", "0"), ("upper", "0"), ("velocity", str(inf)))
            )
        except ValueError:
            continue
        found[joint.get("name", "")] = JointLimits(lower, upper, velocity)
    return found
