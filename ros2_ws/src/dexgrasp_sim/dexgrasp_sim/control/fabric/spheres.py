"""The spheres that stand for the robot where the fabric and its guard keep it off things."""

from dataclasses import dataclass

from dexgrasp_sim.robot.kuka_allegro import FINGERS, PALM

Vector3 = tuple[float, float, float]


@dataclass(frozen=True)
class BodySphere:
    """A sphere that stands for a part of the robot.

    Attributes:
        frame: The frame it is fixed to.
        radius_m: Its radius.
        offset_m: Its centre in that frame.
    """

    frame: str
    radius_m: float
    offset_m: Vector3 = (0.0, 0.0, 0.0)


def _finger_spheres(finger: str) -> tuple[BodySphere, ...]:
    links = [f"{finger}_link_{number}" for number in range(4)]
    places = (
        ((1, 0.0), (1, 0.027), (2, 0.0), (3, 0.0))
        if finger != "thumb"
        else ((1, 0.0), (2, 0.0), (2, 0.025), (3, 0.0), (3, 0.025))
    )
    tip = (0.055 if finger == "thumb" else 0.035, 0.005, 0.0)
    along = (BodySphere(links[link], 0.02, (x, 0.0, 0.0)) for link, x in places)
    return (*along, BodySphere(links[3], 0.02, tip))


_UPPER_ARM = (
    BodySphere("iiwa7_link_2", 0.12),
    BodySphere("iiwa7_link_2", 0.10, (0.0, 0.15, 0.0)),
    BodySphere("iiwa7_link_2", 0.10, (0.0, 0.25, 0.0)),
)
_FOREARM = (
    BodySphere("iiwa7_link_4", 0.125),
    BodySphere("iiwa7_link_4", 0.10, (0.0, 0.15, 0.0)),
    BodySphere("iiwa7_link_4", 0.10, (0.0, 0.25, 0.0)),
    BodySphere("iiwa7_link_6", 0.10, (0.0, 0.0, 0.05)),
    BodySphere("iiwa7_link_7", 0.075),
    BodySphere("allegro_mount", 0.05),
)
_HAND = (
    BodySphere(PALM, 0.075, (0.0, 0.01, -0.05)),
    *(sphere for finger in FINGERS for sphere in _finger_spheres(finger)),
)
BODY_SPHERES = (*_UPPER_ARM, *_FOREARM, *_HAND)
"""The 31 spheres of the DEXTRAH fabric."""
UPPER_ARM_SPHERES = tuple(range(3))
"""Those of `BODY_SPHERES` that the hand must keep off."""
HAND_SPHERES = tuple(range(9, 31))
"""Palm and fingers among `BODY_SPHERES`."""
